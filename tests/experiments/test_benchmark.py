"""The benchmark without the PyTorch originals, at sizes that compile in seconds."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import cases, clones, inputs, machine, memory, networks, refinement, report
from benchmarks.inputs import NETWORK_3D, QUICK, Sizes
from benchmarks.timing import OURS, THEIRS, Contestant, Measured, Row, alternate
from benchmarks.workload import Workload
from experiments import benchmark
from qcjax import qc
from qcjax.data.nifti import read_image
from qcjax.models import MaskAutoencoder
from qcjax.runtime.devices import Devices

MACHINE = machine.describe({})


@pytest.fixture
def rows() -> list[Row]:
    return [
        Row(
            "fast",
            "a case",
            "s",
            {OURS: Measured((0.02, 0.01, 0.03), 4.0), THEIRS: Measured((0.1, 0.2, 0.3))},
            8.0,
        ),
        Row("alone", "a case", "s", {OURS: Measured((2.0, 1.0, 3.0))}, note="nobody else"),
        Row("large", "a step", "MiB", {OURS: Measured((300.0,)), THEIRS: Measured((150.0,))}, 1.0),
    ]


def test_contestants_take_turns_after_a_warm_up():
    order: list[str] = []

    def contestant(name: str) -> Contestant:
        return Contestant(lambda: order.append(name), lambda: order.append(f"prepare {name}"))

    measured = alternate({OURS: contestant("a"), THEIRS: contestant("b")}, repeats=2, share=0.5)
    assert order == ["prepare a", "a", "prepare b", "b"] * 3
    assert all(len(m.values) == 2 and max(m.values) < 1 for m in measured.values())


def test_ratio_is_theirs_over_ours(rows: list[Row]):
    assert rows[0].ratio == pytest.approx(10)
    assert rows[1].ratio is None
    assert rows[2].ratio == pytest.approx(0.5)


def test_report_has_every_row_and_number(rows: list[Row], tmp_path: Path):
    report.write(tmp_path, {"machine": MACHINE, "quick": True, "repeats": 3, "hint": clones.WHERE}, rows)
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert [r["row"] for r in found["rows"]] == ["fast", "alone", "large"]
    assert found["rows"][0]["measured"][OURS] == {
        "median": 0.02, "low": 0.01, "high": 0.03, "values": [0.02, 0.01, 0.03], "compile_s": 4.0,
    }  # fmt: skip
    assert found["machine"]["threads"] >= 1 and found["machine"]["date"].endswith("UTC")
    lines = (tmp_path / "benchmark.md").read_text().splitlines()
    assert lines[2] == "| fast | a case | 20 ms (10–30) | 0.2 s (0.1–0.3) | 10.00 | 8 | 4.0 s |"
    assert lines[4] == "| large | a step | 300 MiB | 150 MiB | 0.50 | 1 |  |"
    text = (tmp_path / "benchmark.txt").read_text()
    assert "alone: nobody else" in text and clones.REFINEMENT_URL in text and MACHINE["processor"] in text
    with Image.open(tmp_path / "benchmark.png") as chart:
        assert min(chart.size) > 200 and np.asarray(chart.convert("L")).std() > 5


def test_report_says_which_goals_are_reached(rows: list[Row], tmp_path: Path):
    about = {"machine": MACHINE, "quick": False, "repeats": 3}
    report.write(tmp_path, about, rows)
    line = "Goals: 1 of 2 ratios reach theirs; not: large (0.50 of 1)."
    assert line in (tmp_path / "benchmark.md").read_text().splitlines()
    report.write(tmp_path, about, rows[1:2])
    assert "Goals" not in (tmp_path / "benchmark.md").read_text()


def test_report_of_ours_alone_has_no_ratios_and_no_chart(rows: list[Row], tmp_path: Path):
    report.write(tmp_path, {"machine": MACHINE, "quick": False, "repeats": 3}, rows[1:2])
    assert (tmp_path / "benchmark.md").read_text().startswith("|  | what | qcjax |\n")
    assert not (tmp_path / "benchmark.png").exists()


def test_variants_are_compared_with_eager_float32(rows: list[Row]):
    half = {**rows[0].measured, f"{OURS} bfloat16": Measured((0.05,))}
    (_, line) = report.variants([replace(rows[0], measured=half), rows[1]])
    assert line == ("fast", "qcjax bfloat16", "50 ms (50–50)", "4.00", "")


def test_share_of_the_ceiling_uses_the_precision_of_the_side(rows: list[Row]):
    measured = {OURS: Measured((2.0,)), f"{OURS} bfloat16": Measured((1.0,))}
    row = replace(rows[0], measured=measured, extra={"tflop": 1.0})
    found = networks.shares([row, rows[1]], {"float32": 1.0, "bfloat16": 4.0})
    assert [(x["side"], x["share"]) for x in found] == [(OURS, 0.5), (f"{OURS} bfloat16", 0.25)]


def test_targets_halve_from_scale_to_scale():
    found = inputs.targets("nnunet", QUICK)
    assert [t.shape for t in found] == [(16, 64 // 2**i, 64 // 2**i, 4) for i in range(6)]
    assert [t.shape[1:4] for t in inputs.targets(NETWORK_3D, QUICK)] == [(8, 32, 32), (8, 16, 16), (4, 8, 8)]
    assert all((t.sum(-1) == 1).all() for t in found)
    assert (found[0].reshape(-1, 4).sum(0) > 0).all()


def test_flops_of_a_forward_pass_grow_with_the_batch():
    small = Sizes(size=64, batch=1, width=4)
    one, two = (networks.forward_flops("acdc_unet", replace(small, batch=b)) for b in (1, 2))
    assert one > 0 and two == pytest.approx(2 * one, rel=0.01)


def test_wrong_clones_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert benchmark.main(["--mnms2", str(tmp_path), "--quality-control", str(tmp_path)]) == 1
    assert f"error: --mnms2 {tmp_path}: no utils.py, " in capsys.readouterr().err
    assert benchmark.main(["--mnms2", str(tmp_path)]) == 1
    assert "error: --quality-control: not given, expected a clone of " in capsys.readouterr().err
    for name in clones.REFINEMENT_FILES:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"--quality-control .*: no CA.py found"):
        clones.find(tmp_path, tmp_path)


def test_rows_are_chosen_by_a_part_of_their_name():
    rows = {name: lambda: pytest.fail("measured") for name in ("train step, a", "inference, a", "QC")}
    assert list(benchmark.chosen(rows, ())) == list(rows)
    assert list(benchmark.chosen(rows, ("QC", "train"))) == ["train step, a", "QC"]
    rows["train step, a, 3-D"] = rows["QC"]
    assert list(benchmark.chosen(rows, ("train step, a",))) == [
        "train step, a"
    ]  # a whole name means that row
    with pytest.raises(
        ValueError, match='--rows memory: no such row, expected a part of one of "train step, a"'
    ):
        benchmark.chosen(rows, ("QC", "memory"))


def test_synthetic_subjects_fill_a_batch(tmp_path: Path):
    s = replace(QUICK, matrix_scale=0.17, unlabelled=1, slices=7)
    workload = Workload.open(s, None, tmp_path)
    subjects = (*workload.training, *workload.validation, *workload.unlabelled)
    assert len(subjects) == 3
    for case in (case for subject in subjects for case in subject.cases):
        image, label = read_image(case.image_path), read_image(case.label_path)
        assert image.array.shape == label.array.shape and image.array.shape[2] == 7
        assert label.array.any((0, 1)).sum() >= 6


def their_code(work: Callable[[float], None]) -> Any:
    """The part of their code that an epoch goes through, whose work only takes time."""

    class Validator:
        def __init__(self, m_best: int) -> None:
            pass

        def domain_evaluation(self, domain: str, model: Any, loader: Any, *rest: Any, **more: Any) -> None:
            work(1)

    def optimize_segmentation(loader: Any, model: Any, ae: Any = None, *rest: Any, **more: Any) -> None:
        work(10 if ae is None else 100)

    def refinement(m: Any, r: Any, epochs: range, *loaders: Any) -> None:
        *_, validator, _ = loaders
        validator.domain_evaluation("val", m, loaders[1])
        u.epoch_end({})
        for _ in epochs:
            u.optimize_segmentation(loaders[0], m)
            validator.domain_evaluation("val", m, loaders[1], None)
            validator.domain_evaluation("ulab", m, loaders[2], reconstructor=r)
            u.epoch_end({}, "1")
            for of_phase in validator.get_anomalies("ulab").values():
                for _ in of_phase:
                    u.optimize_segmentation(None, m, r, 1, best_prediction=None)
            validator.domain_evaluation("val", m, loaders[1], None)

    u: Any = SimpleNamespace(
        Validator=Validator, optimize_segmentation=optimize_segmentation, epoch_end=print
    )
    u.semisupervised_refinement, u.Checkpointer = refinement, lambda folder: None
    return u


def test_their_epoch_is_timed_by_part_from_its_beginning(monkeypatch: pytest.MonkeyPatch):
    now = 0.0

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(refinement, "time", SimpleNamespace(perf_counter=lambda: now))
    u = their_code(work)
    before = dict(vars(u)), u.Validator.domain_evaluation
    cohort = SimpleNamespace(cases=[SimpleNamespace(subject="300")], first=np.array([0, 3]))
    theirs: Any = SimpleNamespace(
        originals=SimpleNamespace(utils=u, wait=lambda: None),
        ours=SimpleNamespace(arm=SimpleNamespace(data=SimpleNamespace(unlabelled=cohort))),
        at_home=nullcontext,
        segmenter=lambda: "M",
        autoencoder="R",
        slices=lambda: "slices",
        patients=lambda part: part,
    )
    clock = refinement.their_epoch(theirs)
    # one pass over the labelled slices, two validations, one look at D_te, one step for each phase
    assert clock.parts == {"train": 10, "validate": 2, "detect": 1, "refine": 200} and clock.total == 213
    assert (dict(vars(u)), u.Validator.domain_evaluation) == before


def test_what_is_timed_of_qc_is_r_and_the_measures():
    network = MaskAutoencoder(width=2, latent=4)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 4)))
    arm = SimpleNamespace(
        networks=SimpleNamespace(autoencoder=network, config=SimpleNamespace(size=64)), devices=Devices(1)
    )
    ours: Any = SimpleNamespace(arm=arm, autoencoder=jax.tree.map(np.asarray, variables))
    mask = np.random.default_rng(0).integers(0, 4, (3, 8, 8)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    mask[2] = 0
    judge, given, spacing = cases.monitor(ours, 1.5), mask.transpose(2, 1, 0), (1.5, 1.5, 9.0)
    prepared = judge.prepare(given, spacing)
    np.testing.assert_array_equal(prepared.stack, mask)  # as it is: nothing to resample, pad or crop
    (rebuilt,) = judge.reconstruct([prepared])
    expected = np.asarray(network.apply(variables, jax.nn.one_hot(mask, 4))).argmax(-1)
    assert (rebuilt == expected).mean() > 0.98  # an untrained network is near its ties
    pdc, phd = qc.pseudo_measures(mask, rebuilt, (9.0, 1.5, 1.5))
    score = judge.score(given, spacing)
    np.testing.assert_array_equal(score.pdc, pdc)
    np.testing.assert_array_equal(score.phd, phd)


def test_one_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(benchmark, "measurements", lambda *_: {"fast": lambda: row, "slow": pytest.fail})
    row = Row("fast", "a case", "s", {OURS: Measured((2.0, 1.0, 3.0))})
    assert benchmark.main(["--quick", "--rows", "fa", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert [r["row"] for r in found["rows"]] == ["fast"] and found["minutes"] >= 0
    assert "ceiling_tflop_s" not in found  # of rows that have operations to count


def test_benchmark_of_ours_alone(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    tiny = replace(QUICK, width=2, stages=2, batch=4, repeats=1, warm_up_steps=(1, 0))
    monkeypatch.setattr(benchmark, "sizes", lambda quick, compare: tiny)
    monkeypatch.setattr(benchmark, "NETWORKS", ("nnunet",))
    monkeypatch.setattr(benchmark, "NETWORKS_3D", ())
    monkeypatch.setattr(memory, "STEPS", 1)
    assert benchmark.main(["--quick", "--data", str(cohort), "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "benchmark.json").read_text())
    names = [row["row"] for row in found["rows"]]
    assert names == [
        "train step, nnunet",
        "inference, nnunet",
        "peak memory, train step, nnunet",
        "loading and augmentation, per slice",
        "validation, per subject",
        "QC of one case, mask in, scores out",
        "Dice and HD of one case",
        "writing a prediction back to its grid",
        "one refinement epoch",
    ]
    assert all(row["measured"][OURS]["median"] > 0 for row in found["rows"])
    others = {name for row in found["rows"] for name in row["measured"] if name != OURS}
    assert others == {cases.LEAST}
    epoch = found["rows"][-1]
    parts = [epoch[f"{OURS}: {part}, s"] for part in refinement.PARTS]
    assert min(parts) > 0 and sum(parts) < 1.01 * epoch["measured"][OURS]["median"]
    assert f"{OURS} spends" in (tmp_path / "benchmark.txt").read_text()
    assert {x["row"] for x in found["shares"]} == set(names[:2])
    assert 0 < found["ceiling_tflop_s"]["float32"] < 10_000
    assert (tmp_path / "ours.nii.gz").exists()
    assert clones.WHERE.split(":")[0] in capsys.readouterr().out
