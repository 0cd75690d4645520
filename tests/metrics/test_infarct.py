import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcjax.data.nifti import read_labels
from qcjax.labels import EMIDEC_REGIONS
from qcjax.metrics import calibration, infarct
from qcjax.metrics.surface import hausdorff_distance
from tests.unchecked import unchecked

SPACING = (10.0, 2.0, 2.0)  # a voxel has 0.04 ml


def ventricle(radii, size=40, scar=True):
    """Discs of myocardium around a cavity, one per slice; the right half infarcted with a core of no-reflow."""
    y, x = np.mgrid[:size, :size] - size // 2
    r = np.hypot(y, x)
    stack = np.zeros((len(radii), size, size), np.uint8)
    for plane, radius in zip(stack, radii, strict=True):
        if radius:
            plane[r < radius] = 2
            if scar:
                plane[(r < radius) & (x > 0)] = 3
                plane[(r < radius - 1) & (x > 0) & (abs(y) < 2)] = 4
            plane[r < radius / 2] = 1
    return stack


def certain(labels, k=5):
    return np.eye(k, dtype=np.float32)[labels]


def by_place(rows):
    return {(row["position"], row["structure"]): row for row in rows}


def score(predicted, truth, probabilities=None, spacing=SPACING):
    p = certain(predicted) if probabilities is None else probabilities
    return by_place(infarct.score_case(predicted, truth, p, spacing))


@pytest.mark.parametrize(
    ("n", "sizes"), [(0, (0, 0, 0)), (1, (0, 1, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (1, 2, 1)), (5, (2, 1, 2)),
                     (6, (2, 2, 2)), (7, (2, 3, 2)), (8, (3, 2, 3)), (10, (3, 4, 3))]
)  # fmt: skip
def test_thirds_are_even(n, sizes):
    found = infarct.thirds(ventricle([0, *(5 + i for i in range(n)), 0]))
    assert list(found) == list(infarct.POSITIONS)
    assert tuple(map(len, found.values())) == sizes
    np.testing.assert_array_equal(np.concatenate(list(found.values())), np.arange(1, n + 1))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(4, 12), min_size=2, max_size=9), st.integers(0, 3), st.integers(0, 3))
def test_thirds_follow_the_apex(radii, above, below):
    radii = sorted(radii)
    radii[0] = 3  # that end is the apex beyond doubt
    stack = ventricle([0] * above + radii + [0] * below)
    found = infarct.thirds(stack)
    flipped = infarct.thirds(stack[::-1])
    for position, slices in found.items():
        np.testing.assert_array_equal(np.sort(len(stack) - 1 - flipped[position]), slices)
    assert found["apical"].max() < found["basal"].min()


def test_apex_of_a_symmetrical_stack_is_first():
    np.testing.assert_array_equal(infarct.thirds(ventricle([8, 9, 8]))["apical"], [0])
    # 10 % and more is told: areas 193 and 225 of discs, either way round
    small, large = 8, 9
    np.testing.assert_array_equal(infarct.thirds(ventricle([large, 9, small]))["apical"], [2])
    np.testing.assert_array_equal(infarct.thirds(ventricle([small, 9, large]))["apical"], [0])


def test_thirds_need_myocardium_and_skip_gaps():
    stack = ventricle([4, 5, 6, 7, 8, 9, 10])
    stack[3] = 0  # a slice that wasn't drawn
    stack[6][stack[6] > 1] = 0  # and one with cavity only
    found = infarct.thirds(stack)
    assert {k: v.tolist() for k, v in found.items()} == {"apical": [0, 1], "mid": [2], "basal": [4, 5]}
    assert not any(len(v) for v in infarct.thirds((stack == 1).astype(np.uint8)).values())


def test_heart_box_by_hand():
    labels = np.zeros((5, 30, 40), np.uint8)
    labels[1, 10:14, 4] = 1
    labels[3, 12, 20:39] = 2
    assert infarct.heart_box(labels, (10, 2.5, 1.5)) == (slice(1, 4), slice(6, 18), slice(0, 40))
    assert infarct.heart_box(labels, (10, 2.5, 1.5), 0.0) == (slice(1, 4), slice(10, 14), slice(4, 39))
    assert infarct.heart_box(labels[:1] * 0, SPACING) == (slice(0, 1), slice(0, 30), slice(0, 40))
    with pytest.raises(ValueError, match="margin_mm: -1"):
        infarct.heart_box(labels, SPACING, -1.0)


def test_volumes_and_shares_by_hand():
    truth = np.zeros((2, 10, 10), np.uint8)
    truth[:, 1:9, 1:9] = 2  # 128 voxels of myocardium,
    truth[0, 1:5, 1:9] = 3  # 32 of them infarcted,
    truth[0, 1, 1:9] = 4  # 8 of those without reflow
    truth[:, 4:6, 4:6] = 1  # 8 of cavity, of which 2 would be infarcted
    predicted = truth.copy()
    predicted[0, 4, 1:9] = 2
    found = score(predicted, truth)
    wall, scar, core, cavity = (found["all", region.key] for region in EMIDEC_REGIONS)
    assert wall["true_volume_ml"] == pytest.approx(0.04 * 120)
    assert wall["volume_ml"] == pytest.approx(0.04 * 122)  # two voxels of cavity taken for wall
    assert wall["volume_error_ml"] == pytest.approx(0.08)
    assert wall["dc"] == pytest.approx(2 * 120 / 242)
    assert wall["hd_mm"] == pytest.approx(0, abs=4)
    assert math.isnan(wall["volume_error_percent"])
    assert math.isnan(cavity["volume_error_percent"])
    assert scar["true_volume_ml"] == pytest.approx(0.04 * 30)
    assert scar["volume_error_ml"] == pytest.approx(0.04 * 6)
    assert scar["volume_error_percent"] == pytest.approx(100 * (30 / 120 - 24 / 122))
    assert scar["dc"] == pytest.approx(2 * 24 / 54)
    assert scar["hd_mm"] == 2.0
    assert (core["dc"], core["hd_mm"]) == (1, 0)
    assert core["volume_error_percent"] == pytest.approx(100 * (8 / 120 - 8 / 122))
    # both slices have myocardium, the infarct is in one: found where it is, and agreed to be absent elsewhere
    places = {place: row for (place, key), row in found.items() if key == "infarction"}
    assert set(places) == {"all", "apical", "basal"}
    assert places["basal"]["dc"] == places["basal"]["true_volume_ml"] + 1 == 1
    assert places["apical"]["volume_error_percent"] == pytest.approx(100 * (30 / 60 - 24 / 62))


def test_only_one_map_has_it_or_neither():
    sick, well = ventricle([4, 8, 9], scar=True), ventricle([4, 8, 9], scar=False)
    found = score(well, sick)
    assert found["all", "infarction"]["dc"] == 0
    assert math.isnan(found["all", "infarction"]["hd_mm"])
    share = 100 * np.isin(sick, (3, 4)).sum() / (sick > 1).sum()
    assert found["all", "infarction"]["volume_error_percent"] == pytest.approx(share)
    found = score(well, well)
    for key in ("infarction", "no_reflow"):
        row = found["all", key]
        assert (row["dc"], row["hd_mm"], row["volume_error_ml"], row["volume_error_percent"]) == (1, 0, 0, 0)
    nothing = np.zeros_like(well)
    found = score(nothing, well)  # no share of a myocardium that isn't there
    assert math.isnan(found["all", "infarction"]["volume_error_percent"])
    assert found["all", "infarction"]["dc"] == 1
    assert found["all", "myocardium"]["dc"] == 0
    found = score(nothing, nothing)
    assert set(found) == {("all", region.key) for region in EMIDEC_REGIONS}
    assert found["all", "infarction"]["volume_error_percent"] == 0
    assert all(row["dc"] == 1 and row["hd_mm"] == 0 and row["brier"] == 0 for row in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_rows_match_their_definitions(seed):
    """Every figure from masks of the whole stack, with nothing cropped."""
    rng = np.random.default_rng(seed)
    truth = ventricle([0, 3, 5, 7, 0, 8, 9, 9, 0])
    predicted = np.roll(ventricle([3, 4, 5, 6, 7, 8, 9, 8, 0]), rng.integers(-2, 3, size=2), axis=(1, 2))
    p = rng.dirichlet(np.full(5, 0.2), size=truth.shape).astype(np.float32)
    found = score(predicted, truth, p)
    assert len(found) == 16
    thirds = {"apical": [1, 2], "mid": [3, 5], "basal": [6, 7]}
    for (position, key), row in found.items():
        ids = {"myocardium": (2, 3, 4), "infarction": (3, 4), "no_reflow": (4,), "cavity": (1,)}[key]
        slices = thirds.get(position, range(9))
        inside = np.zeros(truth.shape, bool)
        inside[list(slices)] = True
        a, b = np.isin(predicted, ids) & inside, np.isin(truth, ids) & inside
        assert row["dc"] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert row["volume_ml"] == pytest.approx(0.04 * a.sum())
        assert row["volume_error_ml"] == pytest.approx(0.04 * abs(int(a.sum()) - int(b.sum())))
        assert row["hd_mm"] == pytest.approx(hausdorff_distance(a, b, SPACING))
        heart = np.argwhere((truth > 0) & inside)
        low, high = heart.min(axis=0) - (0, 5, 5), heart.max(axis=0) + (1, 6, 6)
        box = np.zeros(truth.shape, bool)
        box[tuple(slice(max(0, i), j) for i, j in zip(low, high, strict=True))] = True
        region = calibration.region_probability(p, ids)
        there = np.isin(truth, ids)
        assert row["brier"] == pytest.approx(calibration.brier(region, there, box & inside), rel=1e-5)
        assert row["brier_volume"] == pytest.approx(calibration.brier(region, there, inside), rel=1e-5)


def test_one_slice_is_measured_as_an_image():
    """A slice of its own has no surface across slices; a mask one column wide has one on either side."""
    truth, predicted = np.zeros((2, 1, 12, 12), np.uint8)
    truth[0, 2:10, 2:10] = 2
    predicted[0, 2:10, 2:10] = 2
    predicted[0, 5, 5] = 1  # a hole: its rim at (6, 5) is 3 pixels from the border
    found = score(predicted, truth)
    assert found["mid", "myocardium"]["hd_mm"] == found["all", "myocardium"]["hd_mm"] == 6.0
    line = np.zeros((3, 12, 12), np.uint8)
    line[:, 3:9, 5] = 2
    assert score(line, np.roll(line, 1, axis=1))["all", "myocardium"]["hd_mm"] == 2.0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_a_perfect_case_and_ranges(seed):
    rng = np.random.default_rng(seed)
    truth = ventricle(rng.integers(0, 12, size=6))
    for row in score(truth, truth).values():
        assert (row["dc"], row["hd_mm"], row["volume_error_ml"], row["brier"]) == (1, 0, 0, 0)
    p = rng.dirichlet(np.full(5, 0.2), size=truth.shape).astype(np.float32)
    for row in score(np.roll(truth, 3, axis=1), truth, p).values():
        assert 0 <= row["dc"] <= 1
        assert 0 <= row["brier_volume"] <= 1
        assert 0 <= row["brier"] <= 1
        assert not row["volume_error_percent"] > 100


@unchecked()
def test_arrays_that_do_not_go_together_are_refused():
    truth = ventricle([4, 6])
    p = certain(truth)
    for arguments, message in [
        ((truth[:1], truth, p, SPACING), "expected the same shape"),
        ((truth, truth.astype(float), p, SPACING), "expected integers"),
        ((truth, truth, p[:, :5], SPACING), "an axis of classes"),
        ((truth, truth, p[..., :4], SPACING), "4 classes found, expected 5"),
        ((truth, truth + 1, p, SPACING), "truth: labels 1 to 5 found, expected classes 0 to 4"),
        ((truth, truth, p * np.nan, SPACING), r"expected values in \[0, 1\]"),
        ((truth, truth, p, (10.0, 2.0)), "expected one for each of 3 axes"),
    ]:
        with pytest.raises(ValueError, match=message):
            infarct.score_case(*arguments)


def test_real_stacks_begin_at_the_apex(real_data):
    """In EMIDEC's files the first slice is apical: told by the ventricle's taper, or, where it has none, assumed."""
    folders = [real_data / "emidec_samples", real_data / "emidec_like"]
    paths = [p for folder in folders for p in sorted(folder.glob("*/Contours/*.nii.gz"))[:12]]
    assert paths
    for path in paths:
        volume = read_labels(path, {i: i for i in range(5)})
        found = infarct.thirds(np.moveaxis(volume.array, 2, 0))
        assert found["apical"].max() < found["basal"].min(), path.name
