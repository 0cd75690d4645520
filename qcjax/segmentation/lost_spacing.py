"""Images whose pixel size was lost on the way: their header says 1 mm along every axis, as no short-axis stack has.

The networks look at such an image as if its pixels were of several sizes, and are believed in the size at which they
are surest. The monitor judges the mask at that size, so its distances are of it; volumes stay in the header's
millimetres, for how far the slices lie apart nothing tells.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from qcjax.data.subject import Volume
from qcjax.labels import Structure
from qcjax.qc.confidence import soft_dice_confidence

CANDIDATES_MM = (1.0, 1.25, 1.5)  # of cine MR's pixels
LOOKED_AT = 4  # slices, from the middle of the stack


def looks_lost(spacing_mm: Sequence[float]) -> bool:
    """Whether a spacing is exactly 1 along all three axes."""
    return all(s == 1.0 for s in spacing_mm)


def likely_pixel_mm(
    volume: Volume,
    predict: Callable[[Volume], Float[np.ndarray, "slices h w k"]],
    structures: Sequence[Structure],
) -> float:
    """The candidate at which the soft Dice confidence is highest on the middle slices, averaged over the structures.

    Args:
      predict: of a volume -> class probabilities (slices, h, w, 1 + k).
    """
    count = volume.array.shape[2]
    first = max(0, (count - LOOKED_AT) // 2)
    middle = replace(volume, array=volume.array[:, :, first : first + LOOKED_AT])

    def confidence(pixel_mm: float) -> float:
        found = predict(replace(middle, spacing_mm=(pixel_mm, pixel_mm, volume.spacing_mm[2])))
        return float(soft_dice_confidence(found.astype(np.float32), structures).mean())

    return max(CANDIDATES_MM, key=confidence)
