"""Sizes against a reference, by hand."""

import numpy as np
import pytest

from qcjax.labels import LV, MYO
from qcjax.qc.sizes import SizeReference, measure_sizes

TWO = (LV, MYO)


def test_sizes_by_hand() -> None:
    mask = np.zeros((2, 5, 5), np.int64)
    mask[0, 0, :3] = 1
    mask[1, 0, :1] = 1
    mask[1, 1, :5] = 2
    found = measure_sizes(mask, (10.0, 2.0, 3.0), TWO)
    volumes = np.array([4, 5]) * 60 / 1000  # ml
    np.testing.assert_allclose(found, np.log([*volumes, 18.0, 30.0, 4 / 5]))


def test_what_is_absent_has_no_size() -> None:
    mask = np.ones((1, 2, 2), np.int64)
    found = measure_sizes(mask, (1, 1, 1), TWO)
    np.testing.assert_array_equal(np.isnan(found), [False, True, False, True, True])


def test_deviations_are_in_spreads_of_the_reference() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.normal([3.0, 4.0], [0.2, 0.3], (4000, 2))
    reference = SizeReference.of(list(sizes))
    np.testing.assert_allclose(reference.median, [3, 4], atol=0.02)
    np.testing.assert_allclose(reference.spread, [0.2, 0.3], rtol=0.05)
    np.testing.assert_allclose(reference.deviations(np.array([3.4, 3.4])), [2, -2], atol=0.15)


def test_equal_sizes_leave_a_least_spread_and_absences_are_left_out() -> None:
    reference = SizeReference.of([np.array([1.0, 2.0]), np.array([1.0, np.nan])])
    assert reference.spread == [0.05, 0.05] and reference.median == [1.0, 2.0] and reference.n == 2


def test_what_makes_no_reference() -> None:
    with pytest.raises(ValueError, match="sizes of 0 masks found"):
        SizeReference.of([])
    with pytest.raises(ValueError, match="expected every structure in at least one"):
        SizeReference.of([np.array([1.0, np.nan])])
    with pytest.raises(ValueError, match="expected \\(2,\\)"):
        SizeReference([0.0, 0.0], [1.0, 1.0], 3).deviations(np.zeros(3))
