"""The uncertainty experiment from end to end, tiny."""

import csv
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from experiments import emidec as experiment
from experiments.presets import EMIDEC_SMALL
from qcjax.data.datasets import emidec
from qcjax.data.nifti import read_image
from qcjax.data.volumes import prepare_volumes, restore_volume
from qcjax.labels import EMIDEC_REGIONS
from qcjax.phantom import LgePhantomConfig, write_emidec
from qcjax.runtime.devices import Devices
from qcjax.train.journal import Journal
from qcjax.train.state import create
from qcjax.uncertainty.training import FoldTraining, VolumeNetwork
from tests.experiments import pinned_emidec
from tests.experiments.pinned_emidec import Seen
from tests.seeds import seed

TINY = (
    *(
        "--preset",
        "demo",
        "--folds",
        "2",
        "--devices",
        "1",
        "--seed",
        str(seed()),
        "--arms",
        "baseline",
        "proposed",
    ),
    *("--spacing-mm", "10", "6", "6", "--size", "32", "--patch", "8", "32", "32", "--mc-samples", "3"),
    *(
        "--training.width",
        "2",
        "--training.max-stages",
        "3",
        "--training.epochs",
        "2",
        "--training.steps",
        "2",
    ),
    *("--training.batch", "2", "--training.samples", "2"),
    *("--monitor.size", "64", "--monitor.spacing-mm", "3", "--monitor.autoencoder.width", "2"),
    *("--monitor.autoencoder.latent", "4", "--monitor.autoencoder.epochs", "1"),
    *("--monitor.autoencoder.steps", "2", "--monitor.autoencoder.batch", "4"),
)
CASES = 6


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two normal and four pathological cases, coarsely sampled."""
    return write_emidec(tmp_path_factory.mktemp("lge"), LgePhantomConfig(2, 4, matrix_scale=0.4))


@pytest.fixture(scope="module")
def seen() -> Seen:
    """What the run doesn't leave in files."""
    return Seen()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cohort: Path, seen: Seen) -> Path:
    out = tmp_path_factory.mktemp("emidec") / "run"
    with seen.recording():
        assert experiment.main([*TINY, "--data", str(cohort), "--out", str(out)]) == 0
    return out


def table(run: Path) -> list[dict[str, str]]:
    with (run / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_arm_case_prediction_and_region_has_its_row(run: Path) -> None:
    rows = table(run)
    whole = [r for r in rows if r["position"] == "all"]
    found = {(r["arm"], r["subject"], r["prediction"], r["structure"]) for r in whole}
    assert len(found) == len(whole) == 2 * CASES * 2 * len(EMIDEC_REGIONS)
    assert {r["position"] for r in rows} == {"all", "apical", "mid", "basal"}
    assert {r["fold"] for r in rows} == {"0", "1"}
    for row in rows:
        assert 0 <= float(row["dc"]) <= 1
        assert 0 <= float(row["dice_within_samples"]) <= 1
        assert float(row["variance"]) > 0
        assert 0 <= float(row["brier"]) <= 1
    judged = [r for r in rows if r["pdc"]]
    assert {(r["prediction"], r["position"]) for r in judged} == {("deterministic", "all")}
    assert len(judged) == len(whole) // 2


def test_the_table_is_what_its_files_say(run: Path, seen: Seen) -> None:
    pinned_emidec.check(run, seen, seed())


def test_what_is_left_behind(run: Path, cohort: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert set(results["reliability"]) == {"baseline", "proposed"}
    bins = results["reliability"]["proposed"]["myocardium"]
    assert sum(bins["count"]) > 0
    assert results["n_skipped"] == 0
    assert results["peak_memory"]["host_gib"] > 0
    assert "Does uncertainty find the failures?" in (run / "report.html").read_text()
    for case in (c for s in emidec.find(cohort) for c in s.cases):
        image = nib.load(case.image_path)
        for folder in ("proposed", "proposed-mean"):
            mask = nib.load(
                run / "predictions" / folder / case.subject / "Contours" / f"{case.subject}.nii.gz"
            )
            assert mask.shape == image.shape
            np.testing.assert_array_equal(mask.affine, image.affine)
        variance = nib.load(run / "predictions" / "proposed-variance" / f"{case.subject}.nii.gz")
        assert variance.shape == image.shape
        assert float(variance.get_fdata().max()) > 0


def test_started_again_nothing_is_done_again(
    run: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "cases.csv").read_bytes()
    judged = {p: p.stat().st_mtime_ns for p in (run / "stages").rglob("*.json")}
    assert experiment.main([*TINY, "--data", str(cohort), "--out", str(run)]) == 0
    assert "epoch 1/2," not in capsys.readouterr().out
    assert (run / "cases.csv").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in judged} == judged


def test_sizes_that_the_network_cannot_take(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = (*TINY, "--data", str(cohort), "--out", str(tmp_path / "out"))
    for options, said in (
        (("--patch", "8", "30", "32"), "--patch"),
        (("--monitor.may-be-absent", "scar"), "--may-be-absent: scar found"),
    ):
        assert experiment.main([*start, *options]) == 1
        assert said in capsys.readouterr().err
    for options, said in (
        (("--size", "16"), "--size: 16 found"),
        (("--mc-samples", "1"), "--mc-samples: 1 found"),
        (("--mc-chunk", "0"), "--mc-chunk: 0 found"),
        (("--monitor.size", "100"), "--size: 100 found"),
        (("--folds", "1"), "--folds: 1 found"),
        (("--training.steps", "0"), "--steps: 0 found"),
    ):
        with pytest.raises(SystemExit) as error:
            experiment.main([*start, *options])
        printed = capsys.readouterr()
        assert error.value.code == 2 and said in " ".join((printed.err + printed.out).split())
    assert not (tmp_path / "out").exists()


SETTINGS = replace(
    EMIDEC_SMALL,
    seed=seed(),
    spacing_mm=(10.0, 6.0, 6.0),
    size=48,
    patch=(8, 32, 32),  # four windows, which devices share
    mc_samples=3,
    training=replace(
        EMIDEC_SMALL.training,
        **{"width": 2, "max_stages": 3, "epochs": 2, "steps": 2, "batch": 8, "samples": 2},
        optimiser="sgd",  # Adam makes whole steps of the rounding in gradients that batch norm cancels
        learning_rate=0.01,
    ),
)


@pytest.fixture(scope="module")
def volumes(cohort: Path):
    return prepare_volumes(emidec.find(cohort), SETTINGS.spacing_mm, SETTINGS.size, SETTINGS.patch[0])


def trained(volumes, devices: Devices, folder: Path):
    network = VolumeNetwork(SETTINGS, devices)
    held_out = np.arange(CASES) < 2
    placed = devices.replicate(volumes.volumes)
    variables = FoldTraining(network, "proposed", 0, volumes, placed, held_out, folder).run()
    history = [
        {k: v for k, v in r.items() if "seconds" not in k} for r in Journal(folder / "metrics.jsonl").read()
    ]
    return network, variables, history


def test_one_device_and_four_train_and_sample_alike(volumes, tmp_path: Path) -> None:
    import jax

    outcomes = []
    for count in (1, 4):
        (tmp_path / str(count)).mkdir()
        network, variables, history = trained(volumes, Devices(count), tmp_path / str(count))
        image = volumes.volumes.image[0][volumes.geometries[0].real]
        key = jax.random.key(3)
        outcomes.append(
            (history, network.probabilities(variables, image), network.samples(variables, image, key))
        )
    (one, p, drawn), (four, q, others) = outcomes
    for a, b in zip(one, four, strict=True):
        for name, value in a.items():
            assert b[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-4))
    np.testing.assert_allclose(p, q, atol=1e-4)
    np.testing.assert_allclose(drawn, others, atol=1e-4)
    assert drawn.shape == (3, *p.shape)
    np.testing.assert_allclose(drawn.sum(-1), 1, atol=1e-4)


def test_the_baseline_has_one_sample_and_no_variance(run: Path) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    variances = {
        arm: [r["train_variance"] for r in records if r.get("arm") == arm] for arm in ("baseline", "proposed")
    }
    assert variances["baseline"] and not any(variances["baseline"])
    assert variances["proposed"] and all(variances["proposed"])


def test_lambda_dice_and_lambda_ce_weigh_what_the_segmenter_learns_and_is_judged_by() -> None:
    weighted = replace(SETTINGS, training=replace(SETTINGS.training, lambda_dice=0.5, lambda_ce=2.0))
    loss = VolumeNetwork(weighted, Devices(1)).segmentation_loss
    assert (loss.lambda_dice, loss.lambda_ce) == (0.5, 2.0)
    assert loss.weighted(np.float32(3), np.float32(5)) == 11.5
    uniform, label = np.full((1, 2, 2, 5), 0.2), np.zeros((1, 2, 2), int)
    both = [VolumeNetwork(s, Devices(1)).loss(uniform, label, label == 0) for s in (SETTINGS, weighted)]
    entropy = math.log(5)
    assert both[1] == pytest.approx(0.5 * (both[0] - entropy) + 2 * entropy, rel=1e-5)


def test_alpha_ramps_up_for_the_proposed_arm_alone() -> None:
    ramped = replace(SETTINGS, training=replace(SETTINGS.training, ramp_epochs=3, alpha=4.0))
    network = VolumeNetwork(ramped, Devices(1))
    assert [network.alpha("proposed", e) for e in (1, 2, 3, 4, 5)] == [1, 2, 3, 4, 4]
    assert network.alpha("control", 5) == network.alpha("baseline", 5) == 0
    assert network.step("control") is network.step("proposed")
    assert network.step("baseline") is not network.step("control")


@pytest.mark.skipif("QCJAX_DATA" not in os.environ, reason="QCJAX_DATA is not set: no real data")
def test_cases_as_distributed_are_predicted_on_their_own_grid(tmp_path: Path) -> None:
    """Header spacing of 13 mm, labels stored as floats, an sform alone."""
    import jax
    import jax.numpy as jnp

    subjects = emidec.find(Path(os.environ["QCJAX_DATA"]) / "emidec_samples")
    config = replace(SETTINGS, spacing_mm=(10.0, 1.458, 1.458), size=128, patch=(8, 64, 64))
    cohort = prepare_volumes(subjects, config.spacing_mm, config.size, config.patch[0])
    network = VolumeNetwork(config, Devices(1))
    state = create(network.model, network.tx, jax.random.key(0), jnp.zeros((1, *config.patch, 1)))
    for case, geometry, image in zip(cohort.cases, cohort.geometries, cohort.volumes.image, strict=True):
        labels = restore_volume(network.probabilities(state.variables, image), geometry)
        written = nib.load(emidec.write_prediction(tmp_path, case, labels, read_image(case.image_path)))
        original = nib.load(case.image_path)
        assert written.shape == original.shape
        np.testing.assert_array_equal(written.affine, original.affine)
        np.testing.assert_allclose(written.header.get_zooms(), original.header.get_zooms())
        assert set(np.unique(written.dataobj)) <= set(range(5))
        assert len(np.unique(written.dataobj)) > 1
    assert sorted({round(g.plane.spacing_mm[0]) for g in cohort.geometries}) == [10, 13]
