"""Whether labels seem to stand for one another's structures, as in masks that are numbered like another data set's."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Integer
from scipy import ndimage

from qcjax.labels import CARDIAC, LV, MYO, RV, Structure

Swap = tuple[str, str, float, float]  # two keys; mean Dice as it is, and with the two swapped

BETTER = 0.2  # of mean Dice, by which a swap shows
MOSTLY = 0.8  # of a cavity's pixels


def better_swapped(
    mask: Integer[np.ndarray, "*space"],
    truth: Integer[np.ndarray, "*space"],
    structures: Sequence[Structure] = CARDIAC,
) -> Swap | None:
    """The two structures whose swap brings a mask closest to its truth, if by `BETTER` or more.

    Returns:
      Both keys, the mean Dice as it is, and the mean Dice with the two swapped; or None.
    """
    ids = [s.id for s in structures]
    table = np.array([[_dice(mask == i, truth == j) for j in ids] for i in ids])
    now = float(np.diag(table).mean())
    found = None
    for a, b in combinations(range(len(ids)), 2):
        order = list(range(len(ids)))
        order[a], order[b] = b, a
        swapped = float(table[range(len(ids)), order].mean())
        if swapped >= now + BETTER and (found is None or swapped > found[3]):
            found = structures[a].key, structures[b].key, now, swapped
    return found


def swap_in_words(found: Sequence[Swap | None]) -> str:
    """What to tell where more than half of some masks are better with the same two structures swapped; or nothing."""
    swaps = [swap for swap in found if swap is not None]
    for a, b in dict.fromkeys(swap[:2] for swap in swaps):
        own = [swap for swap in swaps if swap[:2] == (a, b)]
        if 2 * len(own) > len(found):
            now, then = (float(np.mean([swap[i] for swap in own])) for i in (2, 3))
            return f"mean Dice {now:.2f} in {len(own)} masks; with {a} and {b} swapped it would be {then:.2f}"
    return ""


def seems_swapped(mask: Integer[np.ndarray, "x y s"], structures: Sequence[Structure] = CARDIAC) -> bool:
    """Whether the right ventricle lies within the ring of the myocardium, and the left one beside it.

    Looked at is the slice with most myocardium; False where a structure is absent there or isn't cardiac.
    """
    ids = {s.key: s.id for s in structures}
    if not {LV.key, MYO.key, RV.key} <= set(ids):
        return False
    muscle = mask == ids[MYO.key]
    number = int(muscle.sum(axis=(0, 1)).argmax()) if muscle.any() else 0
    ring, plane = muscle[..., number], mask[..., number]
    left, right = plane == ids[LV.key], plane == ids[RV.key]
    if not (ring.any() and left.any() and right.any()):
        return False
    rows, columns = (np.flatnonzero(ring.any(axis=axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    if np.count_nonzero(left[box]) > np.count_nonzero(right[box]):
        return False  # most often so: nothing needs to be filled
    inside = np.zeros_like(ring)
    inside[box] = ndimage.binary_fill_holes(ring[box])
    return bool(inside[right].mean() > MOSTLY and inside[left].mean() < 1 - MOSTLY)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0
