"""Agreement as a sign of quality: of several models with each other, of a mask with what models make of its image.

No truth, no training, and the strongest single sign there is while models err apart; what all of them get wrong it
cannot see. Arrays in, arrays out.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from qcjax.labels import CARDIAC, Structure
from qcjax.metrics.overlap import dice
from qcjax.metrics.surface import Spacing, hausdorff_distance


class Agreement(NamedTuple):
    """How alike the masks of several models are, per structure; distances NaN where only some have the structure."""

    dice_mean: Float[np.ndarray, " k"]  # over all pairs
    dice_least: Float[np.ndarray, " k"]  # of the pair that agrees least
    hd_mm_mean: Float[np.ndarray, " k"]
    hd_mm_most: Float[np.ndarray, " k"]


def pairwise_agreement(
    masks: Sequence[Integer[np.ndarray, "*space"]],
    spacing_mm: Spacing,
    structures: Sequence[Structure] = CARDIAC,
) -> Agreement:
    """Dice and Hausdorff distance between every two masks of one image, mean and worst (Roy et al., NeuroImage 2019).

    A pair without the structure agrees: Dice 1, distance 0. Where only one of a pair has it, Dice is 0, and the
    structure has no distance.

    Args:
      masks: label maps of one shape from m models, at least two.
      spacing_mm: in the order of the axes.
      structures: the k structures.

    Raises:
      ValueError: fewer than two masks, different shapes, values that are not integers, or an unfitting spacing.
    """
    if len(masks) < 2:
        raise ValueError(f"masks of {len(masks)} models found, expected at least two to compare")
    pairs = list(combinations(masks, 2))
    of_dice = np.array([dice(a, b, structures) for a, b in pairs])
    of_hd = np.array([_distances(a, b, spacing_mm, structures) for a, b in pairs])
    return Agreement(of_dice.mean(0), of_dice.min(0), of_hd.mean(0), of_hd.max(0))


def agreement_with(
    mask: Integer[np.ndarray, "*space"],
    probabilities: Float[np.ndarray, "... c"],
    spacing_mm: Spacing,
    structures: Sequence[Structure] = CARDIAC,
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Dice and Hausdorff distance in mm of anybody's mask with the most likely classes of our models' mean, (k,) each.

    Args:
      mask: label map.
      probabilities: of the classes 0 … c − 1 at each voxel, such as the mean over models.
      spacing_mm: in the order of the mask's axes.
      structures: the k structures, whose ids are classes.

    Returns:
      Dice 1 and distance 0 where neither has the structure; 0 and NaN where only one has.

    Raises:
      ValueError: shapes that don't fit, values that are not integers, or an unfitting spacing.
    """
    if probabilities.shape[:-1] != mask.shape:
        raise ValueError(
            f"probabilities: shape {probabilities.shape} found, expected {(*mask.shape, 'classes')} as the mask's"
        )
    theirs = probabilities.argmax(-1)
    return dice(mask, theirs, structures), _distances(mask, theirs, spacing_mm, structures)


def mirror_agreement(
    probabilities: Float[np.ndarray, "... c"],
    mirrored: Float[np.ndarray, "... c"],
    structures: Sequence[Structure] = CARDIAC,
) -> Float[np.ndarray, " k"]:
    """Dice, (k,), between a model's prediction of an image and of the mirrored image, mirrored back.

    It tells something of models that were trained with mirrored images; others take a mirrored heart for another one.

    Raises:
      ValueError: different shapes.
    """
    if probabilities.shape != mirrored.shape:
        raise ValueError(
            f"probabilities of shapes {probabilities.shape} and {mirrored.shape} found, expected the same shape"
        )
    return dice(probabilities.argmax(-1), mirrored.argmax(-1), structures)


def _distances(
    a: np.ndarray, b: np.ndarray, spacing_mm: Spacing, structures: Sequence[Structure]
) -> np.ndarray:
    return np.array([hausdorff_distance(a == s.id, b == s.id, spacing_mm) for s in structures])
