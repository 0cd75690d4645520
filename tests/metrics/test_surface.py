import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import distance

from qcjax.labels import LV, RV
from qcjax.metrics.overlap import dice
from qcjax.metrics.surface import case_metrics, hausdorff_distance, positive_spacing, surface_distances
from tests.unchecked import unchecked

SPACING = (10.0, 1.5, 1.25)


def blobs(seed, shape=(6, 40, 44), level=0.3):
    """A smooth random mask with several parts, some at the border."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, [0.7 if n < 10 else 3.0 for n in shape])
    return smooth > level * smooth.std()


def surface_points(mask, spacing):
    inside = ndimage.binary_erosion(mask)  # face neighbours, and the border counts as outside
    return np.argwhere(mask & ~inside) * np.array(spacing)


def pairwise(a, b, spacing):
    """Every measure from the full matrix of distances."""
    matrix = distance.cdist(surface_points(a, spacing), surface_points(b, spacing))
    there, back = matrix.min(axis=1), matrix.min(axis=0)
    return (
        max(there.max(), back.max()),
        max(np.percentile(there, 95), np.percentile(back, 95)),
        np.concatenate([there, back]).mean(),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(6, 40, 44), (50, 60)])
def test_all_measures_match_the_full_matrix_of_distances(seed, shape):
    spacing = SPACING[-len(shape) :]
    a, b = blobs(seed, shape), blobs(seed + 100, shape, level=0.8)
    np.testing.assert_allclose(surface_distances(a, b, spacing), pairwise(a, b, spacing), rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    level=st.floats(0.0, 2.5),
    shift=st.tuples(st.integers(-1, 1), st.integers(-6, 6), st.integers(-6, 6)),
    spacing=st.tuples(*[st.floats(0.3, 12.0)] * 3),
)
def test_hausdorff_alone_leaves_out_nothing_that_matters(seed, level, shift, spacing):
    a = blobs(seed, (5, 24, 28), level)
    b = np.roll(a, shift, axis=(0, 1, 2)) ^ blobs(seed + 1, (5, 24, 28), 2.0)
    a[2, 5, 5] = b[3, 7, 9] = True
    directed = [
        distance.directed_hausdorff(surface_points(x, spacing), surface_points(y, spacing))[0]
        for x, y in ((a, b), (b, a))
    ]
    assert hausdorff_distance(a, b, spacing) == pytest.approx(max(directed), rel=1e-12)
    assert hausdorff_distance(a, b, spacing) == surface_distances(a, b, spacing).hd_mm


@pytest.mark.parametrize("seed", range(4))
def test_hausdorff_matches_simpleitk(seed):
    sitk = pytest.importorskip("SimpleITK")
    a, b = blobs(seed), blobs(seed + 50, level=1.0)
    images = []
    for mask in (a, b):  # its filter measures whole masks, so it is given the surfaces
        image = sitk.GetImageFromArray((mask & ~ndimage.binary_erosion(mask)).astype(np.uint8))
        image.SetSpacing(SPACING[::-1])
        images.append(image)
    oracle = sitk.HausdorffDistanceImageFilter()
    oracle.Execute(*images)
    assert hausdorff_distance(a, b, SPACING) == pytest.approx(oracle.GetHausdorffDistance(), rel=1e-5)


def test_two_voxels():
    a, b = np.zeros((4, 9, 9), bool), np.zeros((4, 9, 9), bool)
    a[1, 2, 2], b[2, 4, 6] = True, True
    expected = np.sqrt(10**2 + (2 * 1.5) ** 2 + (4 * 1.25) ** 2)
    np.testing.assert_allclose(surface_distances(a, b, SPACING), [expected] * 3)
    np.testing.assert_allclose(surface_distances(a, b, (1, 1, 1)), [np.sqrt(1 + 4 + 16)] * 3)


def test_anisotropic_spacing_belongs_to_its_axis():
    a = np.zeros((5, 5), bool)
    b = a.copy()
    a[0, 0], b[0, 2] = True, True
    assert hausdorff_distance(a, b, (7.0, 0.5)) == 1.0
    assert hausdorff_distance(a.T, b.T, (7.0, 0.5)) == 14.0


def test_line_with_an_outlier():
    # 1-D, so that a row of voxels would lose its inside: every second voxel keeps all of them surface
    a, b = np.zeros(300, bool), np.zeros(300, bool)
    a[:80:2] = True  # 40 voxels
    b[:80:2] = True
    b[179] = True  # the 41st, 101 from the nearest
    found = surface_distances(a, b, (2.0,))
    assert found.hd_mm == 2 * 101
    assert found.hd95_mm == 0  # 1 of 41 is beyond the 95th percentile of B, none of A
    assert found.assd_mm == pytest.approx(2 * 101 / 81)


def test_hd95_is_the_larger_of_the_directed_percentiles():
    a, b = np.zeros(400, bool), np.zeros(400, bool)
    a[:200:2] = True  # 100 voxels on the line
    b[0], b[210] = True, True  # the nearest of a: 0 and 198
    there = np.sort([min(i, 210 - i) for i in range(0, 200, 2)])
    assert surface_distances(a, b, (1.0,)).hd95_mm == pytest.approx(np.percentile(there, 95))
    assert surface_distances(b, a, (1.0,)).hd95_mm == pytest.approx(np.percentile(there, 95))
    assert np.percentile(there, 95) > np.percentile([0, 12], 95)


def test_concentric_squares_by_hand():
    a, b = np.zeros((21, 21), bool), np.zeros((21, 21), bool)
    a[5:16, 5:16], b[7:14, 7:14] = True, True
    found = surface_distances(a, b, (1.0, 1.0))
    assert found.hd_mm == pytest.approx(np.sqrt(8))  # corner to corner
    there = [np.hypot(max(abs(i) - 3, 0), 2) for i in range(-4, 5)] * 4 + [np.sqrt(8)] * 4
    assert found.assd_mm == pytest.approx((sum(there) + 24 * 2) / (40 + 24))


def test_identical_masks_and_symmetry():
    a, b = blobs(1), blobs(2)
    assert surface_distances(a, a, SPACING) == (0, 0, 0)
    np.testing.assert_allclose(surface_distances(a, b, SPACING), surface_distances(b, a, SPACING))


def test_beyond_the_border_is_outside():
    a = np.ones((7, 7), bool)
    b = np.zeros((7, 7), bool)
    b[3, 3] = True
    assert hausdorff_distance(a, b, (1.0, 1.0)) == pytest.approx(np.sqrt(18))
    assert surface_distances(a, b, (1.0, 1.0)).assd_mm == pytest.approx(
        (sum(np.hypot(i - 3, j - 3) for i, j in np.ndindex(7, 7) if 0 in (i, j) or 6 in (i, j)) + 3) / 25
    )


def ring_and_disc():
    """The ring's voxels nearest to the centre are at (3, 8) from it."""
    disc = np.hypot(*(np.indices((31, 31)) - 15)) < 9.5
    return disc & (np.hypot(*(np.indices((31, 31)) - 15)) > 8.5), disc


@pytest.mark.parametrize("axis", [0, 2])
def test_a_single_slice_is_measured_as_an_image(axis):
    ring, disc = ring_and_disc()
    expected = surface_distances(ring, disc, (1.4, 1.4))
    spacing = np.insert([1.4, 1.4], axis, 8.0)
    found = surface_distances(np.expand_dims(ring, axis), np.expand_dims(disc, axis), spacing)
    assert found == expected
    assert expected.hd_mm < 3
    original = hausdorff_distance(
        np.expand_dims(ring, axis), np.expand_dims(disc, axis), (1, 1, 1), "original"
    )
    assert original == pytest.approx(np.sqrt(73))  # all of the disc is surface, its centre too


def test_a_structure_in_one_slice_of_many_is_all_surface():
    ring, disc = ring_and_disc()
    stack = np.zeros((2, 3, 31, 31), bool)
    stack[0, 1], stack[1, 1] = ring, disc
    np.testing.assert_allclose(
        surface_distances(*stack, (8.0, 1.4, 1.4)), pairwise(*stack, (8.0, 1.4, 1.4)), rtol=1e-12
    )
    assert hausdorff_distance(*stack, (8.0, 1.4, 1.4)) == pytest.approx(np.sqrt(73) * 1.4)


@pytest.mark.parametrize(
    ("empty", "neither", "one"),
    [("nan", 0.0, np.nan), ("diagonal", 0.0, np.sqrt(40**2 + 9**2 + 5**2)), ("original", np.inf, np.inf)],
)
def test_empty_masks(empty, neither, one):
    nothing, something = np.zeros((4, 6, 4), bool), np.zeros((4, 6, 4), bool)
    something[1, 2, 3] = True
    for a, b, expected in ((nothing, nothing, neither), (nothing, something, one), (something, nothing, one)):
        np.testing.assert_allclose(surface_distances(a, b, SPACING, empty), [expected] * 3)
        np.testing.assert_allclose(hausdorff_distance(a, b, SPACING, empty), expected)


def test_case_metrics_are_those_of_the_structures():
    rng = np.random.default_rng(0)
    prediction, truth = (np.zeros((4, 40, 40), np.uint8) for _ in range(2))
    prediction[:3, 5:17, 6:20] = rng.integers(1, 3, (3, 12, 14))
    truth[:3, 5:19, 8:20] = rng.integers(1, 4, (3, 14, 12))
    found = case_metrics(prediction, truth, SPACING)
    assert list(found)[:4] == ["dc_lv", "hd_lv_mm", "hd95_lv_mm", "assd_lv_mm"]
    assert len(found) == 12
    expected = surface_distances(prediction == LV.id, truth == LV.id, SPACING)
    assert (found["hd_lv_mm"], found["hd95_lv_mm"], found["assd_lv_mm"]) == pytest.approx(expected)
    assert found["dc_lv"] == dice(prediction, truth, (LV,))[0]
    assert found["dc_rv"] == 0
    assert np.isnan(found["hd_rv_mm"])  # the truth alone has it


def test_case_metrics_use_the_whole_arrays_diagonal_and_axes():
    prediction, truth = np.zeros((3, 31, 31), int), np.zeros((3, 31, 31), int)
    prediction[1][ring_and_disc()[0]] = LV.id
    truth[1][ring_and_disc()[1]] = LV.id
    truth[1, 0, 0] = RV.id
    found = case_metrics(prediction, truth, (8.0, 1.0, 1.0), (LV, RV), "diagonal")
    assert found["hd_rv_mm"] == pytest.approx(np.sqrt(24**2 + 31**2 + 31**2))
    assert found["hd_lv_mm"] == pytest.approx(np.sqrt(73))  # one slice of a stack: all surface


def test_original_case_metrics_are_in_voxels():
    prediction, truth = np.zeros((2, 9, 9), int), np.zeros((2, 9, 9), int)
    prediction[0, 1, 1], truth[0, 1, 5] = LV.id, LV.id
    found = case_metrics(prediction, truth, SPACING, (LV, RV), "original")
    assert found["hd_lv_voxels"] == 4
    assert found["dc_rv"] == 0
    assert found["hd_rv_voxels"] == np.inf


@unchecked()
def test_what_cannot_be_measured_is_refused():
    mask = np.ones((3, 3), bool)
    with pytest.raises(ValueError, match="same shape"):
        surface_distances(mask, mask[:2], (1.0, 1.0))
    with pytest.raises(ValueError, match="expected bool"):
        surface_distances(mask.astype(int), mask.astype(int), (1.0, 1.0))
    with pytest.raises(ValueError, match="expected one of"):
        surface_distances(mask, mask, (1.0, 1.0), "zero")
    with pytest.raises(ValueError, match="2 axes"):
        hausdorff_distance(mask, mask, SPACING)
    with pytest.raises(ValueError, match="positive"):
        hausdorff_distance(mask, mask, (1.0, 0.0))
    with pytest.raises(ValueError, match="positive"):
        positive_spacing((1.0, np.nan), 2)
    with pytest.raises(ValueError, match="3 values found"):
        case_metrics(mask.astype(int), mask.astype(int), SPACING)


def test_a_stack_of_two_slices_is_surface_throughout():
    """Each of its voxels has a neighbour outside, above or below."""
    a, b = np.ones((2, 5, 5), bool), np.zeros((2, 5, 5), bool)
    b[:, 2, 2] = True
    to_the_middle = 4 + 4 * 2**0.5 + 4 * 2 + 8 * 5**0.5 + 4 * 8**0.5  # of the 25 voxels of a slice
    found = surface_distances(a, b, (1.0, 1.0, 1.0))
    assert found.assd_mm == pytest.approx(2 * to_the_middle / (50 + 2))
