import numpy as np
import pytest

from qcjax.labels import LV, RV
from qcjax.metrics.agreement import mean_pairwise_dice


def masks():
    first = np.array([[[1, 1, 2, 0]]], np.uint8)
    second = np.array([[[1, 0, 2, 0]]], np.uint8)
    third = np.array([[[0, 1, 0, 0]]], np.uint8)
    return [first, second, third]


def test_by_hand():
    lv = [(2 / 3 + 2 / 3) / 2, (2 / 3 + 0) / 2, (2 / 3 + 0) / 2]
    myo = [1 / 2, 1 / 2, 0]  # the third has none
    rv = [1, 1, 1]  # nobody has one
    np.testing.assert_allclose(mean_pairwise_dice(masks()), np.stack((lv, myo, rv), axis=1))


def test_order_of_methods_and_structures():
    ordered = mean_pairwise_dice(masks())
    np.testing.assert_allclose(mean_pairwise_dice(masks()[::-1], (RV, LV)), ordered[::-1][:, [2, 0]])


def test_two_methods_agree_alike():
    np.testing.assert_allclose(mean_pairwise_dice(masks()[:2]), [[2 / 3, 1, 1]] * 2)


def test_the_odd_one_out_agrees_least():
    rng = np.random.default_rng(0)
    common = rng.integers(0, 4, (3, 9, 9))
    agreement = mean_pairwise_dice([common, common, common, np.roll(common, 4, axis=1)])
    np.testing.assert_array_equal(agreement[0], agreement[2])
    assert (agreement[3] < agreement[0]).all() and (agreement[0] > 2 / 3).all()


def test_what_is_refused():
    with pytest.raises(ValueError, match="masks of 1 methods found"):
        mean_pairwise_dice(masks()[:1])
