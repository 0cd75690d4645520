"""Agreement, by hand."""

import re

import numpy as np
import pytest

from qcjax.labels import LV, MYO
from qcjax.qc.agreement import agreement_with, mirror_agreement, pairwise_agreement

TWO = (LV, MYO)
SPACING_MM = (8.0, 2.0, 3.0)


def line(start: int, stop: int) -> np.ndarray:
    """A run of LV in one row of a slice."""
    mask = np.zeros((1, 3, 10), np.int64)
    mask[0, 1, start:stop] = 1
    return mask


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(3)[labels]


def test_mean_and_worst_pair() -> None:
    found = pairwise_agreement([line(0, 4), line(0, 4), line(2, 6)], SPACING_MM, TWO)
    np.testing.assert_allclose(found.dice_mean, [(1 + 0.5 + 0.5) / 3, 1])
    np.testing.assert_allclose(found.dice_least, [0.5, 1])
    np.testing.assert_allclose(found.hd_mm_mean, [(0 + 6 + 6) / 3, 0])  # two pixels of 3 mm
    np.testing.assert_allclose(found.hd_mm_most, [6, 0])


def test_a_structure_that_one_model_lacks_has_no_distance() -> None:
    found = pairwise_agreement([line(0, 4), line(0, 0)], SPACING_MM, TWO)
    assert found.dice_least[0] == 0 and np.isnan(found.hd_mm_mean[0]) and np.isnan(found.hd_mm_most[0])


def test_one_mask_agrees_with_nobody() -> None:
    with pytest.raises(ValueError, match="masks of 1 models found"):
        pairwise_agreement([line(0, 4)], SPACING_MM)


def test_with_the_mean_of_models() -> None:
    mean = (one_hot(line(2, 6)) + one_hot(line(2, 6)) + one_hot(line(0, 4))) / 3  # 2 … 6 wins
    of_dice, of_hd = agreement_with(line(0, 4), mean, SPACING_MM, TWO)
    np.testing.assert_allclose(of_dice, [0.5, 1])
    np.testing.assert_allclose(of_hd, [6, 0])
    with pytest.raises(ValueError, match=re.escape("shape (1, 3, 9, 3) found")):
        agreement_with(line(0, 4), mean[:, :, :9], SPACING_MM)


def test_mirrored() -> None:
    np.testing.assert_allclose(mirror_agreement(one_hot(line(0, 4)), one_hot(line(2, 6)), TWO), [0.5, 1])
    with pytest.raises(ValueError, match="expected the same shape"):
        mirror_agreement(one_hot(line(0, 4)), one_hot(line(0, 4))[:, :2])
