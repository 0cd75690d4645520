"""Labels that stand for one another's structures, by truth and by anatomy."""

import numpy as np
import pytest

from qcjax.labels import structures_named
from qcjax.qc.label_order import better_swapped, seems_swapped, swap_in_words


def heart() -> np.ndarray:
    labels = np.zeros((40, 40, 3), np.uint8)
    labels[5:20, 5:20] = 2
    labels[9:16, 9:16] = 1
    labels[20:28, 5:20] = 3
    return labels


def swapped(labels: np.ndarray, a: int, b: int) -> np.ndarray:
    table = np.arange(4, dtype=np.uint8)
    table[[a, b]] = table[[b, a]]
    return table[labels]


@pytest.mark.parametrize(
    ("a", "b", "keys"), [(1, 3, ("lv", "rv")), (1, 2, ("lv", "myo")), (2, 3, ("myo", "rv"))]
)
def test_the_truth_shows_which_two_are_swapped(a: int, b: int, keys: tuple[str, str]) -> None:
    found = better_swapped(swapped(heart(), a, b), heart())
    assert found == (*keys, pytest.approx(1 / 3), 1.0)
    assert better_swapped(heart(), heart()) is None
    shifted = np.roll(heart(), 1, axis=0)
    found = better_swapped(swapped(shifted, a, b), heart())
    assert found is not None and found[:2] == keys and 0.7 < found[3] < 1


def test_it_is_told_where_most_masks_show_it() -> None:
    one = ("lv", "rv", 1 / 3, 0.93)
    assert swap_in_words([one, one, None]) == (
        "mean Dice 0.33 in 2 masks; with lv and rv swapped it would be 0.93"
    )
    assert swap_in_words([one, None]) == swap_in_words([]) == ""


def test_anatomy_shows_a_right_ventricle_within_the_myocardium() -> None:
    assert seems_swapped(swapped(heart(), 1, 3)) and not seems_swapped(heart())
    wide = heart()
    wide[20:28] = 0
    wide[28:36, 5:20] = 3
    assert seems_swapped(swapped(wide, 1, 3)) and not seems_swapped(wide)
    assert not seems_swapped(np.zeros_like(wide))
    assert not seems_swapped(wide, structures_named(("liver", "lesion", "cyst")))
    no_right = wide * (wide < 3)
    assert not seems_swapped(no_right)


def test_a_ring_one_voxel_wide_closes() -> None:
    labels = np.zeros((12, 12, 1), np.uint8)
    labels[2:8, 2:8] = 2
    labels[3:7, 3:7] = 1
    labels[8:11, 3:7] = 3
    assert seems_swapped(swapped(labels, 1, 3)) and not seems_swapped(labels)
