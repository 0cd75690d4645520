import numpy as np
import pytest
from scipy.spatial import cKDTree

from qcjax.qc.corruptions import DAMAGES
from tests.drawn import SPACING_MM, drawn_heart, in_mm

LV, MYO, RV = 1, 2, 3
SEEDS = range(5)


def damaged(key, seed=0, mask=None):
    return DAMAGES[key](drawn_heart() if mask is None else mask, SPACING_MM, np.random.default_rng(seed))


def slices_with(mask, label):
    return set(np.flatnonzero((mask == label).any(axis=(1, 2))).tolist())


def test_all_are_there():
    assert set(DAMAGES) == {
        *("lv_removed", "rv_removed_half", "swapped", "shifted", "structure_shifted", "mirrored"),
        *("blob", "myo_opened", "slice_lost", "eroded", "dilated"),
    }


@pytest.mark.parametrize("key", DAMAGES)
def test_pure_and_always_a_change(key):
    mask = drawn_heart()
    for seed in SEEDS:
        first = damaged(key, seed, mask)
        np.testing.assert_array_equal(mask, drawn_heart())
        np.testing.assert_array_equal(damaged(key, seed, mask), first)
        assert first.shape == mask.shape and first.dtype == mask.dtype
        assert not np.shares_memory(first, mask)
        assert (first != mask).any() and first.max() <= 3


@pytest.mark.parametrize("key", DAMAGES)
def test_what_is_refused(key):
    with pytest.raises(ValueError, match=f"{key}: an empty mask"):
        damaged(key, mask=np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=f"{key}: a mask float64"):
        damaged(key, mask=np.ones((3, 8, 8)))


def test_absent_structures_are_refused():
    mask = drawn_heart()
    one_slice = np.where((mask == RV) & (np.arange(9)[:, None, None] != 4), 0, mask)
    for key, without, message in [
        ("lv_removed", np.where(mask == LV, 0, mask), "without lv"),
        ("swapped", np.where(mask == RV, 0, mask), "without rv"),
        ("structure_shifted", np.where(mask == RV, 0, mask), "without rv"),
        ("myo_opened", np.where(mask == MYO, 0, mask), "without myo"),
        ("rv_removed_half", one_slice, "1 slices with RV"),
        ("slice_lost", mask[:3], "2 slices with foreground"),
    ]:
        with pytest.raises(ValueError, match=message):
            damaged(key, mask=without)
    symmetric = np.zeros((1, 9, 9), np.uint8)
    symmetric[0, 4, 4] = LV
    with pytest.raises(ValueError, match="mirrored: it changes nothing"):
        damaged("mirrored", mask=symmetric)


def test_lv_removed():
    mask, result = drawn_heart(), damaged("lv_removed")
    np.testing.assert_array_equal(result, np.where(mask == LV, 0, mask))


def test_rv_removed_in_half_of_its_slices():
    mask = drawn_heart()
    drawn = set()
    for seed in SEEDS:
        result = damaged("rv_removed_half", seed)
        kept = slices_with(result, RV)
        assert len(slices_with(mask, RV)) == 6 and len(kept) == 3
        drawn.add(tuple(kept))
        for i in range(9):
            np.testing.assert_array_equal(
                result[i], mask[i] if i in kept else np.where(mask[i] == RV, 0, mask[i])
            )
    assert len(drawn) > 1


def test_swapped():
    mask, result = drawn_heart(), damaged("swapped")
    np.testing.assert_array_equal(result == LV, mask == RV)
    np.testing.assert_array_equal(result == RV, mask == LV)
    np.testing.assert_array_equal(result == MYO, mask == MYO)


def test_shifted_by_20_mm_whatever_the_spacing():
    mask, directions = drawn_heart(), []
    for seed in SEEDS:
        result = damaged("shifted", seed)
        for label in (LV, MYO, RV):
            moved = in_mm(result, label).mean(axis=0) - in_mm(mask, label).mean(axis=0)
            assert moved[0] == 0 and np.linalg.norm(moved) == pytest.approx(20, abs=1.2)  # half a pixel
            assert (result == label).sum() == (mask == label).sum()
        directions.append(np.arctan2(*moved[1:]))
    assert np.ptp(directions) > 1


def test_what_leaves_the_image_is_lost():
    mask = np.zeros((1, 60, 60), np.uint8)
    mask[0, :, :] = LV
    result = damaged("shifted", 1, mask)
    lost = np.flatnonzero(~(result[0] == LV).all(axis=1)), np.flatnonzero(~(result[0] == LV).all(axis=0))
    assert result.sum() < mask.sum() and (lost[0].size or lost[1].size)


def test_rv_alone_shifted():
    mask = drawn_heart()
    for seed in SEEDS:
        result = damaged("structure_shifted", seed)
        moved = in_mm(result, RV).mean(axis=0) - in_mm(mask, RV).mean(axis=0)
        assert moved[0] == 0 and np.linalg.norm(moved) == pytest.approx(20, abs=1.2)
        assert (result == RV).sum() == (mask == RV).sum()
        rest = (mask != RV) & (result != RV)
        np.testing.assert_array_equal(result[rest], mask[rest])
        assert (result[(mask == RV) & (result != RV)] == 0).all()


def test_mirrored():
    mask, result = drawn_heart(), damaged("mirrored")
    np.testing.assert_array_equal(result[:, :, ::-1], mask)
    side = [in_mm(m, RV)[:, 2].mean() - in_mm(m, LV)[:, 2].mean() for m in (mask, result)]
    assert side[0] < -30 and side[1] == pytest.approx(-side[0])


def test_blob_far_from_the_heart():
    mask = np.pad(drawn_heart(), ((0, 0), (40, 40), (60, 60)))
    for seed in SEEDS:
        result = damaged("blob", seed, mask)
        new = (result != mask) & (mask == 0)
        np.testing.assert_array_equal(new, result != mask)
        assert len(np.unique(result[new])) == 1
        at = in_mm(new, True)
        middle = (at.min(axis=0) + at.max(axis=0)) / 2
        assert np.linalg.norm((at - middle)[:, 1:], axis=1).max() <= 15
        np.testing.assert_allclose(np.ptp(at[:, 1:], axis=0), 30, atol=4)
        gap, _ = cKDTree(in_mm(mask > 0, True)[:, 1:]).query(at[:, 1:])
        assert gap.min() >= 60
        volume = new.sum() * np.prod(SPACING_MM)
        assert volume == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.1)


def test_blob_in_a_corner_of_a_small_image():
    mask = drawn_heart()[:, 25:130, 15:75]  # 131 mm x 120 mm: nowhere 60 mm from the heart
    result = damaged("blob", 0, mask)
    new = in_mm(result != mask, True)
    gap, _ = cKDTree(in_mm(mask > 0, True)[:, 1:]).query(new[:, 1:].mean(axis=0))
    corners = np.array([[h, w] for h in (15, 116) for w in (15, 105)])
    assert np.linalg.norm(corners - new[:, 1:].mean(axis=0), axis=1).min() < 5
    assert gap > 5


def test_myo_opened_by_60_degrees_in_half_of_the_slices():
    mask = drawn_heart()
    for seed in SEEDS:
        result = damaged("myo_opened", seed)
        lost = (mask == MYO) & (result == 0)
        np.testing.assert_array_equal(lost, mask != result)
        opened = np.flatnonzero(lost.any(axis=(1, 2)))
        assert len(opened) == 4  # of 7
        shares = lost[opened].sum(axis=(1, 2)) / (mask == MYO)[opened].sum(axis=(1, 2))
        np.testing.assert_allclose(shares, 60 / 360, atol=0.02)
        away = in_mm(lost, True)[:, 1:] - in_mm(mask, LV)[:, 1:].mean(axis=0)
        angles = np.unwrap(np.sort(np.arctan2(away[:, 0], away[:, 1])))
        gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
        assert np.rad2deg(2 * np.pi - gaps.max()) == pytest.approx(60, abs=5)  # the same sector in all


def test_one_slice_of_the_middle_third_lost():
    mask = drawn_heart()  # foreground in slices 1 to 7
    lost = set()
    for seed in range(20):
        result = damaged("slice_lost", seed)
        (i,) = np.flatnonzero((result != mask).any(axis=(1, 2)))
        assert not result[i].any()
        lost.add(int(i))
    assert lost == {3, 4, 5}
    assert not damaged("slice_lost", 0, mask[:4])[2].any()  # of three the middle one


def widths_mm(mask, i=4):
    """Extent of the foreground of a slice in mm along h and along w."""
    return [np.count_nonzero((mask[i] > 0).any(axis=1 - a)) * SPACING_MM[1 + a] for a in (0, 1)]


@pytest.mark.parametrize("pixel_mm", [1.5, 2.0])
def test_two_rows_of_a_square_are_lost_or_gained(pixel_mm):
    """Up to 3 mm from the edge, half a pixel from the centres: that of the second row is 3 or 4 mm from outside."""
    mask = np.zeros((1, 30, 30), np.uint8)
    mask[0, 10:20, 10:20] = RV
    for key, rows in (("eroded", slice(12, 18)), ("dilated", slice(8, 22))):
        result = DAMAGES[key](mask, (8.0, pixel_mm, pixel_mm), np.random.default_rng(0))
        expected = np.zeros(30, np.uint8)
        expected[rows] = RV
        np.testing.assert_array_equal(result[0, 15], expected)
        np.testing.assert_array_equal(result[0, :, 15], expected)


@pytest.mark.parametrize(("key", "by_mm"), [("eroded", -3), ("dilated", 3)])
def test_eroded_and_dilated_by_3_mm(key, by_mm):
    mask, result = drawn_heart(), damaged(key)
    for before, after, pixel_mm in zip(widths_mm(mask), widths_mm(result), SPACING_MM[1:], strict=True):
        assert after - before == pytest.approx(
            2 * by_mm, abs=1.2 * pixel_mm
        )  # to a pixel on both sides together
    assert slices_with(result, LV) == slices_with(mask, LV)
    changed = result != mask
    if key == "eroded":
        assert (result[changed] == 0).all()
    else:
        assert (mask[changed] == 0).all()
        assert not result[[0, -1]].any()
        nearest = cKDTree(np.argwhere(mask[4] > 0) * SPACING_MM[1:])
        for place in np.argwhere(changed[4])[::20]:
            distance, _ = nearest.query(place * SPACING_MM[1:])
            around = np.argwhere(mask[4] == result[4][tuple(place)]) * SPACING_MM[1:]
            assert np.linalg.norm(around - place * SPACING_MM[1:], axis=1).min() == pytest.approx(distance)
