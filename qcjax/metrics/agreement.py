"""Agreement between methods: how far the masks that several methods draw on one image are the same."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float, Integer

from qcjax.labels import CARDIAC, Structure
from qcjax.metrics.overlap import dice


def mean_pairwise_dice(
    masks: Sequence[Integer[np.ndarray, "*space"]], structures: Sequence[Structure] = CARDIAC
) -> Float[np.ndarray, "m k"]:
    """Mean Dice of each method's mask with those of the others, per structure.

    A measure of quality that needs neither truth nor training, and that a mistake made by all escapes. Dice
    is 1 where neither mask of a pair has the structure, 0 where only one has it.

    Args:
      masks: one label map of one image from each of m methods, at least two, all of one shape.
      structures: the k structures.

    Returns:
      (m, k) float64 in [0, 1].

    Raises:
      ValueError: fewer than two masks, different shapes, or values that are not integers.
    """
    if len(masks) < 2:
        raise ValueError(f"masks of {len(masks)} methods found, expected at least two to compare")
    total = np.zeros((len(masks), len(structures)))
    for i, j in combinations(range(len(masks)), 2):
        of_pair = dice(masks[i], masks[j], structures)
        total[i] += of_pair
        total[j] += of_pair
    return total / (len(masks) - 1)
