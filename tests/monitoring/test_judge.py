"""Masks of several methods judged beside the truth, and the study of damages, without a network."""

import math
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from qcjax.data.subject import Case
from qcjax.monitoring.corruption_study import damage_study
from qcjax.monitoring.judge import Judged, judge_case
from qcjax.qc.corruptions import DAMAGES
from tests import fake_monitor
from tests.drawn import drawn_heart
from tests.fake_monitor import KEYS, SHAPE, FakeMonitor, draw_mask, save_mask


@pytest.fixture
def case(tmp_path: Path) -> Case:
    image = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)
    save_mask(tmp_path / "image.nii.gz", image)
    truth = save_mask(tmp_path / "truth.nii.gz", draw_mask(18, rv=1, lv=3))
    return Case("patient001", "SA", "ED", tmp_path / "image.nii.gz", truth)


def judge(case: Case, folder: Path, unit: str) -> Judged:
    monitor = FakeMonitor(folder / "monitor")
    monitor.unit = unit
    masks = {
        name: save_mask(folder / f"{name}.nii.gz", draw_mask(rv_at, rv=1, lv=3))
        for name, rv_at in (("near", 20), ("far", 28))
    }
    judged = judge_case(monitor, case, "NOR", masks, folder / "run")  # type: ignore[arg-type]
    assert monitor.groups == [2]  # both in one go
    return judged


@pytest.mark.parametrize(("unit", "size"), [("mm", 1.5), ("voxels", 1.0)])
def test_real_and_pseudo_distances_are_in_one_unit(
    case: Case, tmp_path: Path, unit: str, size: float
) -> None:
    judged = judge(case, tmp_path, unit)
    rows = {(row["method"], row["structure"]): row for row in judged.rows}
    assert set(rows) == {(m, key) for m in ("near", "far") for key in KEYS}
    assert len(judged.seconds) == 2 and min(judged.seconds) > 0
    near, far = rows["near", "rv"], rows["far", "rv"]
    assert {row["distance_unit"] for row in judged.rows} == {unit}
    assert (near["hd"], far["hd"]) == pytest.approx((2 * size, 10 * size))  # shifts of 2 and 10 rows
    assert (near["phd"], far["phd"]) == pytest.approx((2 * size, 10 * size))  # rows that get lost
    assert far["flag"] == "suspicious" and rows["far", "lv"]["hd"] == 0
    assert far["dc"] == pytest.approx(1 / 6) and far["agreement"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("unit", "dc", "hd"), [("mm", 1.0, 0.0), ("voxels", 0.0, math.nan)])
def test_a_structure_that_neither_has_counts_as_the_unit_says(
    case: Case, tmp_path: Path, unit: str, dc: float, hd: float
) -> None:
    truth = draw_mask(18, rv=1, lv=3)
    truth[truth == 3] = 0  # LV
    assert case.label_path is not None
    save_mask(case.label_path, truth)
    monitor = FakeMonitor(tmp_path / "monitor")
    monitor.unit = unit
    mask = {"own": save_mask(tmp_path / "own.nii.gz", truth)}
    judged = judge_case(monitor, case, "NOR", mask, tmp_path / "run")  # type: ignore[arg-type]
    (row,) = (row for row in judged.rows if row["structure"] == "lv")
    assert (row["dc"], row["hd"]) == pytest.approx((dc, hd), nan_ok=True)


def test_reconstructions_lie_below_the_run_in_the_files_labels(case: Case, tmp_path: Path) -> None:
    row = judge(case, tmp_path, "mm").rows[0]
    written = nibabel.load(tmp_path / "run" / row["reconstruction_path"])  # type: ignore[arg-type]
    expected = draw_mask(20, rv=1, lv=3)
    expected[30:] = 0
    np.testing.assert_array_equal(np.asarray(written.dataobj), expected)  # type: ignore[attr-defined]


def test_every_damage_is_compared_with_the_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_monitor, "KEPT", 200)  # everything is rebuilt
    heart = drawn_heart((8.0, 1.5, 1.5), (6, 140, 120)).transpose(2, 1, 0)
    labels = np.array([0, 3, 2, 1], np.uint8)[heart]
    intensities = 100.0 * np.isin(labels, (1, 3)) + np.random.default_rng(0).normal(100, 20, labels.shape)
    image = save_mask(tmp_path / "image.nii", intensities.astype(np.float32))
    cases = [Case(f"p{i}", "SA", "ED", image, save_mask(tmp_path / f"{i}.nii", labels)) for i in (0, 1)]
    monitor = FakeMonitor(tmp_path / "monitor")
    done: list[int] = []
    study = damage_study(monitor, cases, 0, lambda: done.append(1))  # type: ignore[arg-type]
    assert len(done) == 2 and study["false_alarms_untouched"]["n"] == 2
    assert list(study["damage"]) == list(DAMAGES)
    found = {"auc": 1.0, "detection_2pct": 1.0}
    with_image = {"auc_with_image": 1.0, "detection_2pct_with_image": 1.0}
    removed = found | with_image | {"flagged": 1.0, "rules": 1.0, "n": 2}
    assert study["damage"]["lv_removed"] == removed
    assert study["damage"]["mirrored"]["auc"] == 0.5 and study["damage"]["mirrored"]["flagged"] == 0
    for elsewhere in ("mirrored", "shifted"):  # sound to a monitor, and not where the image has it
        assert study["damage"][elsewhere].items() >= with_image.items()
    assert study["false_alarms_untouched"] == {"flagged": 0, "rules": 0, "image": 0, "n": 2}


def test_a_monitor_without_a_scale_of_suspicion_ranks_nothing(case: Case, tmp_path: Path) -> None:
    monitor = FakeMonitor(tmp_path / "monitor")
    score_all = monitor.score_all
    monitor.score_all = lambda *args: [  # type: ignore[method-assign]
        replace(score, suspicion=math.nan) for score in score_all(*args)
    ]
    study = damage_study(monitor, [case], 0)  # type: ignore[arg-type]
    ranks = dict.fromkeys(("auc", "detection_2pct", "auc_with_image", "detection_2pct_with_image"))
    assert study["damage"]["lv_removed"] == ranks | {"flagged": 1.0, "rules": 1.0, "n": 1}
