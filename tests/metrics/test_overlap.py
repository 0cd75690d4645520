import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcjax.labels import CARDIAC, LV, MYO, RV
from qcjax.metrics import overlap
from tests.unchecked import unchecked

label_pairs = hnp.array_shapes(min_dims=1, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint8, shape, elements=st.integers(0, 3))] * 2)
)


def dice_by_sets(a, b, label):
    in_a = {i for i, v in np.ndenumerate(a) if v == label}
    in_b = {i for i, v in np.ndenumerate(b) if v == label}
    return 2 * len(in_a & in_b) / (len(in_a) + len(in_b)) if in_a or in_b else 1.0


def test_dice_by_hand():
    a = np.array([[1, 1, 0, 2]], np.uint8)
    b = np.array([[1, 0, 0, 3]], np.uint8)
    np.testing.assert_allclose(overlap.dice(a, b), [2 / 3, 0, 0])
    np.testing.assert_allclose(overlap.dice(a, b, (RV, LV)), [0, 2 / 3])


def test_dice_of_absent_structures():
    none = np.zeros(3, bool)
    assert overlap.mask_dice(none, none) == 1 and overlap.mask_dice(none, ~none) == 0
    nothing, something = np.zeros((2, 3), int), np.full((2, 3), LV.id)
    np.testing.assert_array_equal(overlap.dice(nothing, nothing), [1, 1, 1])
    np.testing.assert_array_equal(overlap.dice(nothing, nothing, both_empty=0.0), [0, 0, 0])
    np.testing.assert_array_equal(overlap.dice(nothing, something, (LV, MYO)), [0, 1])


@settings(deadline=None, max_examples=50)
@given(label_pairs)
def test_dice_matches_sets_of_voxels(pair):
    expected = [dice_by_sets(*pair, s.id) for s in CARDIAC]
    np.testing.assert_allclose(overlap.dice(*pair), expected)


def test_joint_box():
    a, b = np.zeros((5, 6, 7), np.uint8), np.zeros((5, 6, 7), np.uint8)
    assert a[overlap.joint_box(a, b)].size == 0
    a[1, 2, 3], b[3, 2, 6] = 2, 1
    assert overlap.joint_box(a, b) == (slice(1, 4), slice(2, 3), slice(3, 7))
    assert overlap.joint_box(a > 0, b > 0) == (slice(1, 4), slice(2, 3), slice(3, 7))


@unchecked()
def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="same shape"):
        overlap.dice(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="expected integers"):
        overlap.check_label_maps(np.zeros((2, 2)), np.zeros((2, 2)))
