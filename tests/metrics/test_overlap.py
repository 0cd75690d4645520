import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcjax.labels import CARDIAC, LV, MYO, RV
from qcjax.metrics import overlap

label_pairs = hnp.array_shapes(min_dims=1, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint8, shape, elements=st.integers(0, 3))] * 2)
)


@pytest.fixture
def unchecked():
    """Annotations unchecked, so that a function's own check of its input is what refuses it."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


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


@pytest.mark.parametrize("both_empty", [1.0, 0.0])
def test_counts_of_slices_give_the_dice_of_their_volumes(both_empty):
    rng = np.random.default_rng(3)
    a, b = (rng.integers(0, 4, (7, 5, 6)).astype(np.uint8) for _ in range(2))
    a[4:], b[4:] = 0, 0
    a[4, 0, 0] = RV.id  # the second case: RV in one map, LV and MYO in none
    case_of_slice = np.array([0, 0, 0, 0, 1, 1, 2])
    per_slice = jax.vmap(lambda x, y: overlap.class_counts(x, y, 4))(jnp.asarray(a), jnp.asarray(b))
    assert per_slice.shape == (7, 3, 3)
    counts = overlap.case_counts(per_slice, jnp.asarray(case_of_slice), 3)
    scores = np.asarray(overlap.dice_from_counts(counts, both_empty))
    for case in range(3):
        of_case = case_of_slice == case
        np.testing.assert_allclose(
            scores[case], overlap.dice(a[of_case], b[of_case], both_empty=both_empty), rtol=1e-6
        )


@pytest.mark.parametrize("padding", [-1, 2, 99])
def test_padding_slices_count_nowhere(padding):
    counts = jnp.ones((3, 2, 3), jnp.int32)
    total = overlap.case_counts(counts, jnp.array([0, padding, 1]), 2)
    np.testing.assert_array_equal(total, np.ones((2, 2, 3)))


def test_counts_are_exact_beyond_float32():
    pixels = jnp.ones((4097, 4097), jnp.uint8)
    np.testing.assert_array_equal(overlap.class_counts(pixels, pixels, 2), [[4097**2] * 3])


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="same shape"):
        overlap.dice(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="expected integers"):
        overlap.check_label_maps(np.zeros((2, 2)), np.zeros((2, 2)))
