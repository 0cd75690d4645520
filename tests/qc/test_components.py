"""The largest piece of each structure."""

import numpy as np

from qcjax.labels import CARDIAC, LV, RV
from qcjax.qc.components import keep_largest


def test_smaller_pieces_become_background_and_others_stay() -> None:
    labels = np.zeros((2, 5, 6), np.uint8)
    labels[0, :2, :2] = LV.id  # 4 voxels
    labels[1, 2, 2] = LV.id  # touches them at a corner: the same piece
    labels[0, 4, 4:] = LV.id  # 2 voxels
    labels[0, 0, 4], labels[0, 2, 5] = RV.id, RV.id
    found = keep_largest(labels, (LV,))
    expected = labels.copy()
    expected[0, 4, 4:] = 0
    assert np.array_equal(found, expected)
    assert np.count_nonzero(keep_largest(labels, CARDIAC) == RV.id) == 1
    assert labels[0, 4, 4] == LV.id  # what was given isn't changed


def test_nothing_is_nothing() -> None:
    assert not keep_largest(np.zeros((1, 3, 3), np.uint8), CARDIAC).any()


def test_the_largest_piece_may_come_last() -> None:
    labels = np.zeros((1, 5, 7), np.uint8)
    labels[0, 0, 0] = labels[0, 2, 2] = LV.id
    labels[0, 4, 4:] = LV.id
    expected = np.zeros_like(labels)
    expected[0, 4, 4:] = LV.id
    assert np.array_equal(keep_largest(labels, (LV,)), expected)
