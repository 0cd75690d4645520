"""Overlap of label maps: Dice per structure, on the host."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from qcjax.labels import CARDIAC, Structure


def check_label_maps(a: Shaped[np.ndarray, "*a"], b: Shaped[np.ndarray, "*b"]) -> None:
    """Whether two label maps can be compared.

    Raises:
      ValueError: different shapes, or values that are not integers.
    """
    if a.shape != b.shape:
        raise ValueError(f"label maps of shapes {a.shape} and {b.shape} found, expected the same shape")
    for name, labels in (("first", a), ("second", b)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"{name} label map: dtype {labels.dtype} found, expected integers")


def joint_box(a: Shaped[np.ndarray, "*shape"], b: Shaped[np.ndarray, "*shape"]) -> tuple[slice, ...]:
    """The smallest box that holds every non-zero element of two arrays of one shape; empty if none is."""
    occupied = a | b if a.dtype == b.dtype == np.bool_ else (a != 0) | (b != 0)
    box = []
    for _ in range(a.ndim):  # one axis less each time: the later, slower reductions see little data
        indices = np.flatnonzero(occupied.reshape(len(occupied), -1).any(axis=1))
        box.append(slice(int(indices[0]), int(indices[-1]) + 1) if indices.size else slice(0, 0))
        occupied = occupied.any(axis=0)
    return tuple(box)


def dice(
    a: Integer[np.ndarray, "*space"],
    b: Integer[np.ndarray, "*space"],
    structures: Sequence[Structure] = CARDIAC,
    both_empty: float = 1.0,
) -> Float[np.ndarray, " k"]:
    """Dice coefficient 2|A ∩ B| / (|A| + |B|) per structure of two label maps, on the host.

    Args:
      a, b: label maps of one shape, any number of axes.
      structures: the k structures to score, in the order of the result.
      both_empty: the value where neither map has the structure: 1, or 0 as medpy 0.4 gives, which the
        preset `original` follows.

    Returns:
      (k,) float64 in [0, 1]; 0 where only one of the maps has the structure.

    Raises:
      ValueError: different shapes, or values that are not integers.
    """
    check_label_maps(a, b)
    box = joint_box(a, b)  # most of an image is background in both
    a, b = a[box], b[box]
    scores = np.empty(len(structures))
    for i, structure in enumerate(structures):  # comparing and counting bytes beats one joint histogram
        scores[i] = mask_dice(a == structure.id, b == structure.id, both_empty)
    return scores


def mask_dice(a: Bool[np.ndarray, "*space"], b: Bool[np.ndarray, "*space"], both_empty: float = 1.0) -> float:
    """Dice coefficient 2|A ∩ B| / (|A| + |B|) of two masks of one shape; `both_empty` where neither has any."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else both_empty
