"""What is measured on the validation cases of a training, volume by volume, on the host."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from qcjax import losses
from qcjax.data.stacked import Stacked
from qcjax.labels import CARDIAC, Structure
from qcjax.metrics.overlap import dice
from qcjax.train.stage import Record


def mean_dice(
    predicted: Integer[np.ndarray, "n h w"],
    truth: Integer[np.ndarray, "n h w"],
    cohort: Stacked,
    structures: Sequence[Structure] = CARDIAC,
) -> Record:
    """Dice of label maps over all slices, (n, h, w), averaged over the cohort's cases, for the journal."""
    scores = [
        dice(a, b, structures) for a, b in zip(cohort.split(predicted), cohort.split(truth), strict=True)
    ]
    return {f"validation_dice_{s.key}": float(v) for s, v in zip(structures, np.mean(scores, 0), strict=True)}


def reconstruction_loss(
    sums: losses.Sums,
    error: Float[np.ndarray, " n"],
    cohort: Stacked,
    dice_loss: Callable[[losses.Sums], Any] = losses.generalised_dice_loss,
) -> float:
    """L_GD + L_MSE (monitoring paper) of each whole volume, averaged over the cohort's cases.

    Args:
      sums: of the classes, each (n, k), of every slice.
      error: (n,) mean squared error of every slice.
    """
    of_case = losses.Sums(*(cohort.sum_by_case(x) for x in sums))
    return float(np.mean(np.asarray(dice_loss(of_case)) + cohort.mean_by_case(error)))
