"""The monitoring experiment from files to report, tiny."""

import copy
import csv
import json
import shutil
from functools import cache
from pathlib import Path

import pytest

from experiments import acdc as experiment
from qcjax.config import Mnms2Config
from qcjax.data.datasets import acdc
from qcjax.inference.monitor import Monitor
from qcjax.monitoring.methods import METHODS
from qcjax.phantom import AcdcPhantomConfig, write_acdc
from qcjax.runtime.devices import Devices
from qcjax.train.networks import Networks
from tests.experiments import pinned_acdc
from tests.seeds import seed

TINY = (
    *("--preset", "demo", "--size", "64", "--spacing-mm", "5", "--devices", "1"),
    *("--seed", str(seed())),
    *("--supervised.width", "2", "--supervised.stages", "3", "--supervised.epochs", "1"),
    *("--supervised.steps", "2", "--supervised.batch", "4"),
    *("--monitor.spacing-mm", "5", "--monitor.autoencoder.width", "4", "--monitor.autoencoder.latent", "8"),
    *("--monitor.autoencoder.epochs", "3", "--monitor.autoencoder.steps", "4"),
    *("--monitor.autoencoder.batch", "4"),
)
TEST_CASES = 2 * 2


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_acdc(tmp_path_factory.mktemp("acdc"), AcdcPhantomConfig(5, 2, seed=0, matrix_scale=0.3))


@cache
def _networks(config: Mnms2Config, name: str, count: int) -> Networks:
    networks = Networks(config, name, Devices(count))
    assert networks.supervised_step  # made once, for all copies
    return networks


def _shared_networks(config: Mnms2Config, name: str, devices: Devices, title: str) -> Networks:
    """So narrow and brief, several methods of the field are of one size: they share what is compiled."""
    networks = copy.copy(_networks(config, name, devices.count))
    networks.title = title
    return networks


@pytest.fixture(scope="module")
def seen() -> pinned_acdc.Seen:
    """What the run doesn't leave in files."""
    return {}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cohort: Path, seen: pinned_acdc.Seen) -> Path:
    """R moves what it is given: what one that was trained for seconds makes of a mask depends on the CPU."""
    out = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch, pinned_acdc.recording(seen):
        patch.setattr("qcjax.monitoring.methods.Networks", _shared_networks)
        patch.setattr(Monitor, "_rebuild_slices", lambda self, slices: pinned_acdc.moved(slices))
        assert experiment.main([*TINY, "--data", str(cohort), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory, cohort: Path) -> Path:
    """The ground truth as if a method had made it."""
    folder = tmp_path_factory.mktemp("truth")
    for subject in acdc.find(cohort):
        for case in subject.cases:
            if subject.part == "test":
                assert case.label_path is not None
                shutil.copy(case.label_path, folder / f"{acdc.prediction_name(case)}.nii.gz")
    return folder


def table(run: Path) -> list[dict[str, str]]:
    with (run / "measures.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results(run: Path) -> dict[str, object]:
    found = json.loads((run / "results.json").read_text())
    return {k: v for k, v in found.items() if k not in ("seconds", "peak_memory")}


def test_every_method_case_and_structure_has_a_row_with_its_truth(run: Path) -> None:
    rows = table(run)
    assert len(rows) == len(METHODS) * TEST_CASES * 3
    assert {row["method"] for row in rows} == set(METHODS)
    assert all(row["dc"] and row["pdc"] and row["agreement"] for row in rows)
    assert all(
        (run / row["mask_path"]).is_file() and (run / row["reconstruction_path"]).is_file() for row in rows
    )


def test_the_table_is_what_its_files_say(run: Path, seen: pinned_acdc.Seen) -> None:
    pinned_acdc.check(run, seen, target_mm=5)


def test_results_hold_what_the_report_tells(run: Path) -> None:
    found = json.loads((run / "results.json").read_text())
    assert [point["epoch"] for point in found["reconstruction"]] == [1, 2, 3]
    assert found["seconds"]["per_case"] > 0 and found["seconds"]["rca_per_case"] is None
    assert found["false_alarms_untouched"]["n"] == TEST_CASES
    assert {"lv_removed", "blob", "shifted"} <= set(found["damage"])
    assert found["damage"]["lv_removed"]["auc"] == 1 and found["split"] == ""
    assert "<html" in (run / "report.html").read_text()


def test_started_again_it_ends_the_same_and_redoes_nothing(run: Path, cohort: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(run, tmp_path / "again"))
    before = {p: p.stat().st_mtime_ns for p in again.rglob("stages/**/*") if p.is_file()}
    assert before and experiment.main([*TINY, "--data", str(cohort), "--out", str(again)]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert results(again) == results(run)
    assert (again / "measures.csv").read_bytes() == (run / "measures.csv").read_bytes()


def test_given_masks_are_judged_instead_of_a_field(
    run: Path, cohort: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = Path(shutil.copytree(truth, tmp_path / "partial"))
    (partial / "patient101_ED.nii.gz").unlink()
    given = ("--predictions", f"expert={truth}", f"other={partial}")
    out = tmp_path / "run"
    shutil.copytree(run / "monitor", out / "monitor")
    assert experiment.main([*TINY, "--data", str(cohort), "--out", str(out), *given]) == 0
    rows = table(out)
    assert [row["method"] for row in rows].count("expert") == TEST_CASES * 3
    assert len(rows) == (2 * TEST_CASES - 1) * 3
    assert {float(row["dc"]) for row in rows} == {1.0}
    assert "1 of the test cases have none" in " ".join(capsys.readouterr().out.split())

    # a mask that comes later, and one that is made anew, are judged; the others stay
    shutil.copy(truth / "patient101_ED.nii.gz", partial)
    shutil.copy(truth / "patient101_ED.nii.gz", partial / "patient101_ES.nii.gz")
    kept = out / "stages" / "judged" / "patient102_SA_ED.json"
    before = kept.stat().st_mtime_ns
    assert experiment.main([*TINY, "--data", str(cohort), "--out", str(out), *given]) == 0
    rows = table(out)
    assert len(rows) == 2 * TEST_CASES * 3 and kept.stat().st_mtime_ns == before
    changed = {(r["method"], r["subject"], r["phase"]) for r in rows if float(r["dc"]) < 1}
    assert changed == {("other", "patient101", "ES")}


def test_what_would_stop_the_run_later_is_told_of_before_anything_is_trained(
    cohort: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(truth, tmp_path / "broken")) / "patient102_ES.nii.gz"
    broken.write_bytes(broken.read_bytes()[:100])
    out = ("--data", str(cohort), "--out", str(tmp_path / "run"))
    assert experiment.main([*TINY, *out, "--predictions", f"method={broken.parent}"]) == 1
    assert str(broken) in capsys.readouterr().err and not (tmp_path / "run" / "monitor").exists()
    assert experiment.main([*TINY, *out[:2], "--out", str(tmp_path / "none"), "--devices", "99"]) == 1
    assert "--devices: 99 asked for" in capsys.readouterr().err and not (tmp_path / "none").exists()
    pytest.importorskip("SimpleITK")
    assert experiment.main([*TINY, *out[:2], "--out", str(tmp_path / "rca"), "--rca", "9"]) == 1
    assert "--rca: 9 found, expected at most 4" in capsys.readouterr().err


def test_without_a_test_part_the_training_part_is_split_and_says_so(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(cohort / "training", data / "training")
    folder = tmp_path / "masks"
    for subject in acdc.find(data):
        for case in subject.cases:
            assert case.label_path is not None
            folder.mkdir(exist_ok=True)
            shutil.copy(case.label_path, folder / f"{acdc.prediction_name(case)}.nii.gz")
    out = tmp_path / "run"
    options = ("--data", str(data), "--out", str(out), "--predictions", f"expert={folder}")
    assert experiment.main([*TINY, *options]) == 0
    assert "split by patient" in json.loads((out / "results.json").read_text())["split"]
    assert "split by patient" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--predictions", "expert"), "expected NAME=DIR"),
        (("--predictions", "expert=/nowhere"), "no such folder"),
        (("--monitor.autoencoder.width", "5"), "holds a run with"),
        (("--preset", "original", "--monitor.dice", "soft"), "--dice: soft found, expected none"),
        (("--monitor.may-be-absent", "scar"), "--may-be-absent: scar found"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Path,
    cohort: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    out = Path(shutil.copytree(run / "monitor", tmp_path / "copy" / "monitor")).parent
    if "holds" in message:
        shutil.copy(run / "config.json", out / "config.json")
    assert experiment.main([*TINY, "--data", str(cohort), "--out", str(out), *options]) == 1
    assert message in capsys.readouterr().err


def test_rca_fills_its_columns(
    run: Path, cohort: Path, truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("SimpleITK")
    out = tmp_path / "run"
    shutil.copytree(run / "monitor", out / "monitor")
    given = ("--predictions", f"expert={truth}", "--rca", "1", "--rca-subjects", "1")
    assert experiment.main([*TINY, "--data", str(cohort), "--out", str(out), *given]) == 0
    rows = table(out)
    judged = [row for row in rows if row["rca_dc"]]
    assert len(judged) == 2 * 3 and {row["subject"] for row in judged} == {rows[0]["subject"]}
    assert all(0 <= float(row["rca_dc"]) <= 1 for row in judged)
    assert json.loads((out / "results.json").read_text())["seconds"]["rca_per_case"] > 0
