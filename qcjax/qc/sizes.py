"""Sizes of structures against those of masks that are trusted: what is too large, too small or out of proportion.

A heart's own variety sets the scale, by medians and quantiles of logarithms, so that no single case counts for much.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from qcjax.labels import CARDIAC, Structure
from qcjax.metrics.surface import Spacing, positive_spacing

LEAST_SPREAD = 0.05  # of a logarithm: sizes that differ by 5 % are the same
_QUARTILES = 1.349  # between the quartiles of a normal distribution, in standard deviations


def measure_sizes(
    mask: Integer[np.ndarray, "s h w"], spacing_mm: Spacing, structures: Sequence[Structure] = CARDIAC
) -> Float[np.ndarray, " m"]:
    """Logarithms of each structure's volume in ml and of its largest area in mm², then of all ratios of two volumes.

    Args:
      mask: label map of a stack of slices.
      spacing_mm: (slices, h, w).
      structures: the k structures.

    Returns:
      (m,), m = 2k + k (k − 1) / 2; NaN where a structure is absent, and in its ratios.

    Raises:
      ValueError: an unfitting spacing.
    """
    slice_mm, row_mm, column_mm = positive_spacing(spacing_mm, 3)
    pixels = np.array([np.count_nonzero(mask == s.id, axis=(1, 2)) for s in structures], np.float64)
    area_mm2 = pixels.max(axis=1, initial=0) * row_mm * column_mm
    volume_ml = pixels.sum(axis=1) * slice_mm * row_mm * column_mm / 1000
    absent = volume_ml == 0
    volume = np.log(np.where(absent, np.nan, volume_ml))
    area = np.log(np.where(absent, np.nan, area_mm2))
    first, second = np.triu_indices(len(structures), 1)
    return np.concatenate([volume, area, volume[first] - volume[second]])


@dataclass(frozen=True)
class SizeReference:
    """How the sizes of trusted masks spread; plain lists, for a file."""

    median: list[float]
    spread: list[float]  # a standard deviation, were they normal
    n: int  # masks

    @classmethod
    def of(cls, sizes: Sequence[Float[np.ndarray, " m"]]) -> "SizeReference":
        """The reference that trusted masks make, from their `measure_sizes`; what one lacks the others tell.

        Raises:
          ValueError: a size that no mask has.
        """
        table = np.stack(sizes) if len(sizes) else np.empty((0, 0))
        if not table.size or np.isnan(table).all(axis=0).any():
            raise ValueError(f"sizes of {len(table)} masks found, expected every structure in at least one")
        low, median, high = np.nanquantile(table, (0.25, 0.5, 0.75), axis=0)
        spread = np.maximum((high - low) / _QUARTILES, LEAST_SPREAD)
        return cls(median.tolist(), spread.tolist(), len(table))

    def deviations(self, sizes: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """How many spreads each size lies from the median, signed; NaN where a structure is absent.

        Raises:
          ValueError: another number of sizes than the reference has.
        """
        if sizes.shape != (len(self.median),):
            raise ValueError(f"sizes: shape {sizes.shape} found, expected ({len(self.median)},)")
        return (sizes - np.array(self.median)) / np.array(self.spread)
