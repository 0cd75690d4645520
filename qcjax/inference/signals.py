"""Signals of a mask's quality from what is known of it: the same ones for held-out subjects and for new images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from qcjax.inference.monitor import Score
from qcjax.qc.confidence import ConfidenceSums
from qcjax.quality.signals import Signals, confidence_signals, mask_signals, of_case


def signals_of(
    mask: Integer[np.ndarray, "x y slices"],
    spacing_mm: Sequence[float],
    score: Score,
    sums: ConfidenceSums | None = None,
) -> Signals:
    """All signals of a mask.

    Args:
      mask: (x, y, slices), ids of the score's structures.
      spacing_mm: of its voxels.
      sums: of each network that hasn't seen the image by itself, (networks, slices, k); None for a mask from elsewhere.
    """
    x_mm, y_mm, slice_mm = spacing_mm
    stack = mask.transpose(2, 1, 0)
    found = mask_signals(stack, (slice_mm, y_mm, x_mm), score.measured, score.structures)
    if sums is not None:
        found |= confidence_signals(sums)
    return of_case(found)
