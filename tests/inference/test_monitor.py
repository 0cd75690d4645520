"""What a monitor makes of intact and damaged masks: its network is given, and rebuilds the nearest of known shapes."""

from copy import copy
from pathlib import Path

import numpy as np
import pytest

from qcjax import qc
from qcjax.data.mask_cohort import MaskCase
from qcjax.inference.monitor import Monitor, in_plane_box
from tests.drawn_monitor import SPACING_MM, draw, nearest_shape_monitor, save_cases


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[MaskCase]:
    return save_cases(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def monitor(cases: list[MaskCase], tmp_path_factory: pytest.TempPathFactory) -> Monitor:
    return nearest_shape_monitor(cases, tmp_path_factory.mktemp("monitor"))


def test_original_measures_in_voxels_of_the_masks_own_grid(cases: list[MaskCase], tmp_path: Path) -> None:
    monitor = nearest_shape_monitor(cases, tmp_path, "original")
    mask = draw(np.random.default_rng(104))
    near, far = monitor.score(mask, SPACING_MM), monitor.score(mask, (2.0, 2.0, 16.0))
    np.testing.assert_array_equal(near.phd, far.phd)
    assert near.unit == "voxels"
    wide = np.zeros((60, 160, 4), np.uint8)
    wide[:, 52:108], wide[20:30, 150:158] = mask, 1
    reasons = [flag.reason for flag in monitor.score(wide, SPACING_MM).flags]
    assert any("voxels is above 50 voxels" in reason for reason in reasons), reasons


def test_an_intact_mask_is_rebuilt_and_not_flagged(monitor: Monitor) -> None:
    score = monitor.score(draw(np.random.default_rng(100)), SPACING_MM)
    assert score.pdc.min() > 0.5 and score.verdict == ""
    assert (score.phd < 30).all() and score.suspicion < 4


def test_damage_raises_suspicion_and_flags(monitor: Monitor) -> None:
    intact = draw(np.random.default_rng(101))
    far = intact.copy()
    far[50:58, 2:8, 0] = 3
    no_pool = np.where(intact == 3, 0, intact).astype(np.uint8)
    before = monitor.score(intact, SPACING_MM).suspicion
    assert monitor.score(far, SPACING_MM).suspicion > 2 * before
    missing = monitor.score(no_pool, SPACING_MM)
    assert missing.verdict == "erroneous" and missing.suspicion == np.inf
    assert [f.structure for f in missing.flags if f.kind == "erroneous"] == ["lv"]


def test_what_the_crop_cuts_off_counts_as_not_rebuilt(monitor: Monitor) -> None:
    wide = np.zeros((140, 56, 4), np.uint8)
    wide[40:100] = draw(np.random.default_rng(102))
    with_blob = wide.copy()
    with_blob[2:10, 20:28] = 3  # more than 64 mm from the middle: the autoencoder never sees it
    assert monitor.score(with_blob, SPACING_MM).phd[2] > 50 > monitor.score(wide, SPACING_MM).phd[2]


def test_centred_on_the_mask_a_heart_is_judged_alike_wherever_it_lies(monitor: Monitor) -> None:
    """Moved by 90 mm, out of the square in the image's middle."""
    centred = copy(monitor)
    centred.centre = "mask"
    wide = np.zeros((160, 100, 4), np.uint8)
    wide[50:110, 22:78] = draw(np.random.default_rng(102))
    moved = np.roll(wide, (45, -15), (0, 1))
    here, there = (centred.score(m, SPACING_MM) for m in (wide, moved))
    np.testing.assert_allclose(there.pdc, here.pdc)
    np.testing.assert_allclose(there.phd, here.phd)
    np.testing.assert_array_equal(there.reconstruction, np.roll(here.reconstruction, (45, -15), (0, 1)))
    assert here.pdc.min() > 0.5 and monitor.score(moved, SPACING_MM).pdc.min() < 0.3
    moved[2:10, 40:48] = 3  # far outside of the square: not rebuilt
    assert centred.score(moved, SPACING_MM).phd[2] > 50 > there.phd[2]


def test_masks_of_one_image_go_together(monitor: Monitor) -> None:
    masks = [draw(np.random.default_rng(i)) for i in range(3)]
    for mask, together in zip(masks, monitor.score_all(masks, SPACING_MM), strict=True):
        alone = monitor.score(mask, SPACING_MM)
        np.testing.assert_array_equal(together.reconstruction, alone.reconstruction)
        np.testing.assert_array_equal(together.measured, alone.measured)
        assert together.suspicion == alone.suspicion and together.unit == "mm"


def test_only_what_is_empty_in_both_is_cut_away() -> None:
    rng = np.random.default_rng(0)
    for at in ((0, 0), (5, 9), (11, 13)):
        mask, rebuilt = np.zeros((2, 3, 12, 14), np.uint8)
        mask[1, at[0], at[1]] = 1  # one pixel: a box of one row would have no surface across it
        rebuilt[2, 6:9, 4:6] = rng.integers(1, 4, (3, 2))
        for other in (mask, rebuilt):
            a, b = in_plane_box(mask, other)
            assert a.shape == b.shape and (a.sum(), b.sum()) == (mask.sum(), other.sum())
            before = qc.pseudo_measures(mask, other, (8.0, 2.0, 2.0))
            np.testing.assert_array_equal(qc.pseudo_measures(a, b, (8.0, 2.0, 2.0)), before)


def test_the_worst_slice_is_where_the_damage_is(monitor: Monitor) -> None:
    mask = draw(np.random.default_rng(103))
    mask[2:14, 2:14, 2] = 1
    mask[14:30, :, 2] = 0
    assert monitor.score(mask, SPACING_MM).worst_slice[0] == 2


@pytest.mark.parametrize(
    "mask",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.float32), np.full((4, 4, 2), 9, np.uint8)],
    ids=["2-D", "float", "unknown label"],
)
def test_a_mask_of_another_kind_is_refused(monitor: Monitor, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="found, expected"):
        monitor.score(mask, SPACING_MM)


def test_spacing_has_to_be_positive(monitor: Monitor) -> None:
    with pytest.raises(ValueError, match="expected three positive lengths"):
        monitor.score(np.zeros((4, 4, 2), np.uint8), (1.0, 0.0, 8.0))


def test_an_empty_mask_is_erroneous_throughout(monitor: Monitor) -> None:
    score = monitor.score(np.zeros((60, 56, 3), np.uint8), SPACING_MM)
    assert score.verdict == "erroneous" and len(score.flags) == 3 and not score.pdc.any()
    assert (score.worst_slice[score.phd != score.phd] <= 2).all()
