import time

import numpy as np
import pytest
from scipy import ndimage

from qcjax.data.nifti import read_labels
from qcjax.labels import ACDC_LABELS, Structure
from qcjax.phantom import make_subject
from qcjax.qc import anatomy
from qcjax.qc.anatomy import broken_rules
from tests.drawn import CENTRE_MM, SPACING_MM, drawn_heart
from tests.unchecked import unchecked

LESION = (Structure(1, "organ", "organ", "#000000"), Structure(2, "lesion", "lesion", "#ffffff"))


def broken(mask, **arguments):
    return {(b.structure, b.rule) for b in broken_rules(mask, SPACING_MM, **arguments)}


def reason(mask, rule, spacing_mm=SPACING_MM):
    (found,) = (b.reason for b in broken_rules(mask, spacing_mm) if b.rule == rule)
    return found


def test_a_heart_breaks_nothing():
    mask = drawn_heart()
    before = mask.copy()
    assert broken_rules(mask, SPACING_MM) == []
    np.testing.assert_array_equal(mask, before)
    assert broken_rules(mask.astype(np.int64), SPACING_MM) == []


def test_a_heart_at_the_edge_of_the_image_breaks_nothing():
    mask = drawn_heart()
    rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
    tight = mask[1:-1, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert broken_rules(tight, SPACING_MM) == []


def test_missing_structures():
    mask = drawn_heart()
    assert broken(np.where(mask == 3, 0, mask)) == {("rv", "missing")}
    assert broken(np.zeros_like(mask)) == {("lv", "missing"), ("myo", "missing"), ("rv", "missing")}
    without_lv = broken(np.where(mask == 1, 0, mask))
    assert without_lv == {("lv", "missing"), ("myo", "holes")}  # an empty ring


def test_pieces_count_from_a_size_on():
    voxel_ml = np.prod(SPACING_MM) / 1000
    enough = int(np.ceil(anatomy.PIECE_ML / voxel_ml))
    for n, expected in ((enough - 1, set()), (enough, {("rv", "pieces")})):
        mask = drawn_heart()
        mask[3, 2, 2:].flat[:n] = 3
        assert n < 108 and broken(mask) == expected
    assert reason(mask, "pieces").endswith(f", {n * voxel_ml:.1f} ml")


def test_pieces_that_touch_across_slices_are_one():
    mask = np.zeros((3, 40, 40), np.uint8)
    mask[0, 8:20, 8:20] = mask[1, 20:32, 20:32] = 1  # by a corner alone
    assert broken(mask, structures=LESION[:1]) == set()
    mask[1] = np.roll(mask[1], 1, axis=0)
    assert broken(mask, structures=LESION[:1]) == {("organ", "pieces")}


@pytest.mark.parametrize("inside", [0, 2, 3])
def test_holes(inside):
    mask = drawn_heart()
    centre = tuple(round(c / mm) for c, mm in zip(CENTRE_MM, SPACING_MM[1:], strict=True))
    hole = mask[4, centre[0] - 2 : centre[0] + 2, centre[1] - 1 : centre[1] + 1]  # 8 pixels of 2.5 mm²
    hole[:] = inside
    assert {("lv", "holes")} <= broken(mask) <= {("lv", "holes"), ("rv", "pieces")}
    assert reason(mask, "holes").endswith("has a hole of 20 mm², in slice 5 of 9")
    hole[0, 0] = 1  # 7 pixels are too few
    assert broken(mask) == set()


def test_a_hole_in_the_ring_is_the_rings():
    mask = drawn_heart()
    row = round(CENTRE_MM[0] / SPACING_MM[1])
    column = round((CENTRE_MM[1] + 25) / SPACING_MM[2])
    mask[4, row - 3 : row + 3, column - 1 : column + 1] = 0
    assert broken(mask) == {("myo", "holes")}


def test_gaps_between_slices():
    mask = drawn_heart()
    mask[4][mask[4] == 3] = 0
    assert ("rv", "gap") in broken(mask)
    assert ("myo", "gap") not in broken(mask)
    assert "in slice 5, between" in reason(mask, "gap")
    mask[5][mask[5] == 3] = 0
    assert "in slices 5, 6, between" in reason(mask, "gap")
    mask = drawn_heart()
    mask[1][mask[1] == 3] = 0  # an end that is shorter is no gap
    assert broken(mask) == set()


def test_area_that_jumps():
    mask = drawn_heart()
    h, w = np.ogrid[: mask.shape[1], : mask.shape[2]]
    from_rv = np.hypot(h * SPACING_MM[1] - 90, w * SPACING_MM[2] - 70)
    for radius_mm, expected in ((11, set()), (11.7, {("rv", "area_jump")})):
        jumping = mask.copy()
        jumping[4][(mask[4] == 3) & (from_rv > radius_mm)] = 0
        areas = [np.count_nonzero(jumping[i] == 3) * 2.5 for i in (3, 4)]
        assert areas[0] / areas[1] > anatomy.AREA_RATIO
        assert (areas[1] < anatomy.AREA_MM2) == (not expected)  # too small to tell
        assert broken(jumping) == expected
    assert f"from {areas[0]:.0f} to {areas[1]:.0f} mm² between slices 4 and 5 of 9" in reason(
        jumping, "area_jump"
    )


def test_position_that_jumps_is_measured_in_mm():
    organ = np.zeros((2, 90, 90), np.uint8)
    organ[0, :60, :20] = 1
    organ[1, :60, 16:36] = 1  # 16 pixels aside: 32 mm of 2 mm, and touching
    assert broken(organ, structures=LESION[:1]) == {("organ", "position_jump")}
    (found,) = broken_rules(organ, SPACING_MM, LESION[:1])
    assert found.reason == "organ: its centre moves by 32 mm between slices 1 and 2 of 2"
    assert broken_rules(organ, (8.0, 2.0, 1.8), LESION[:1]) == []  # 28.8 mm


def test_a_move_of_just_the_limit_is_none():
    organ = np.zeros((2, 90, 90), np.uint8)
    organ[0, :60, :20] = organ[1, :60, 15:35] = 1
    assert broken_rules(organ, (8.0, 2.0, 2.0), LESION[:1]) == []  # 30 mm


def test_the_share_of_a_border_is_one_of_lengths():
    """Four rows of 3 mm and six columns of 1 mm: of 36 mm around the LV, 6 mm lie on the myocardium below it."""
    mask = np.zeros((1, 30, 40), np.uint8)
    mask[0, 10:14, 10:16] = 1
    mask[0, 14:16, 10:16] = 2
    found = {b.reason.split(": ")[1] for b in broken_rules(mask, (8.0, 3.0, 1.0)) if b.structure == "lv"}
    assert "17 % of its border lies on the myocardium, expected at least 50 %" in found


def test_a_ring_that_is_open():
    mask = drawn_heart()
    row = round(CENTRE_MM[0] / SPACING_MM[1])
    gap = mask[4, row - 6 : row + 6, round(CENTRE_MM[1] / SPACING_MM[2]) :]
    gap[gap == 2] = 0
    assert broken(mask) == {("lv", "ring_open")}
    assert reason(mask, "ring_open").endswith("isn't enclosed by myocardium, in slice 5 of 9")
    for end in (1, -2):  # at base and apex the ring may be open
        at_end = drawn_heart()
        at_end[end] = mask[4]
        at_end[-2][at_end[-2] == 3] = 0
        assert broken(at_end) == set()


def test_ventricles_that_lie_apart_from_the_myocardium():
    mask = drawn_heart()
    apart = np.where(mask == 3, 0, mask)
    apart[:, :, :-10][mask[:, :, 10:] == 3] = 3  # 20 mm further
    assert broken(apart) == {("rv", "detached")}
    assert "0 % of its border lies on the myocardium" in reason(apart, "detached")
    eaten = np.where((mask == 2) & ndimage.binary_dilation(mask == 1, iterations=2), 0, mask)
    assert ("lv", "detached") in broken(eaten) and ("rv", "detached") not in broken(eaten)


def test_other_organs_have_the_general_rules_alone():
    organ = np.zeros((3, 40, 40), np.uint8)
    organ[:, 5:35, 5:35] = 1
    organ[:, 10:20, 10:20] = 2  # a lesion inside is none of its holes
    assert broken_rules(organ, SPACING_MM, LESION) == []
    organ[1, 25:30, 25:30] = 0
    assert broken(organ, structures=LESION) == {("organ", "holes")}
    assert broken(np.where(organ == 2, 1, organ), structures=LESION) == {
        ("organ", "holes"),
        ("lesion", "missing"),
    }


def test_every_rule_is_named():
    mask = drawn_heart()
    found = broken_rules(np.where(mask == 1, 3, np.where(mask == 3, 1, mask)), SPACING_MM)
    assert {b.rule for b in found} <= set(anatomy.RULES) and len(found) > 2
    assert all(b.reason.startswith(("left ventricular", "right ventricular")) for b in found)


@pytest.mark.parametrize(
    ("mask", "spacing_mm", "message"),
    [
        (np.zeros((4, 4), np.uint8), SPACING_MM, "expected integers \\(slices, h, w\\)"),
        (np.zeros((4, 4, 4)), SPACING_MM, "float64"),
        (np.zeros((4, 4, 4), np.uint8), (1, 1), "spacing_mm"),
    ],
)
def test_what_is_refused(mask, spacing_mm, message):
    with unchecked(), pytest.raises(ValueError, match=message):
        broken_rules(mask, spacing_mm)


def test_phantoms_break_few():
    n, with_broken = 0, 0
    for code in range(1, 7):
        subject = make_subject(code, "train", 0, 0.4)
        for phase in ("ED", "ES"):
            image = subject.images["SA", phase]
            found = broken_rules(image.label.transpose(2, 1, 0), image.spacing_mm[::-1])
            n, with_broken = n + 1, with_broken + bool(found)
            assert {b.rule for b in found} <= {"pieces", "area_jump", "position_jump"}  # at the base
    assert with_broken <= n / 6


def test_fast_enough_for_a_thousand_masks():
    mask = np.zeros((10, 256, 256), np.uint8)
    heart = drawn_heart(spacing_mm=(8.0, 1.0, 1.0), shape=(10, 180, 180))
    mask[:, 30:210, 40:220] = heart
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        broken_rules(mask, (8.0, 1.0, 1.0))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05  # 0.01 on a machine with nothing else to do


def test_true_masks_break_few(real_data):
    paths = sorted((real_data / "acdc" / "training").glob("patient*/*_gt.nii.gz"))[::3]
    if not paths:
        pytest.skip("no ACDC training subjects")
    with_broken = 0
    for path in paths:
        volume = read_labels(path, ACDC_LABELS)
        with_broken += bool(broken_rules(volume.array.transpose(2, 1, 0), volume.spacing_mm[::-1]))
    assert with_broken <= 0.1 * len(paths)
