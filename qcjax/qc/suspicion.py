"""One number for how little a monitor trusts a mask: how far its pseudo measures lie outside of ground truth's.

The monitoring paper's flags have fixed limits (50 mm, 0.5), far out, so that they raise few false alarms. Ranking
cases, or finding subtler damage, needs a scale: here the spread of the same measures over ground-truth masks that the
autoencoder was validated on. The autoencoder sees one slice at a time, and rebuilds one without a structure without
it; what only the other slices tell, a structure that is lost and comes back or ends too early, is measured on the mask
itself. Arrays in, arrays out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from qcjax.labels import Structure
from qcjax.metrics.surface import Spacing

# of each measure, in its unit: a pixel more or less tells nothing, in the fifth half a slice; in the last a slice tells
LEAST_SPREAD = (0.02, 2.0, 3.0, 4.0, 0.1, 0.15)
# of their squares: the first three tell of the same thing, how mask and reconstruction part
WEIGHTS = (1 / 3, 1 / 3, 1 / 3, 1.0, 1.5, 1.5)
HIGH, HIGH_NORMAL = 0.9, 1.2816  # a quantile, and where a normal distribution has it, in standard deviations
FALSE_ALARMS = 0.02  # share of the reference masks above suspicion 1


def features(
    mask: Integer[np.ndarray, "s h w"],
    rebuilt: Integer[np.ndarray, "s h w"],
    spacing_mm: Spacing,
    pdc: Float[np.ndarray, " k"],
    phd: Float[np.ndarray, " k"],
    structures: Sequence[Structure],
) -> Float[np.ndarray, "6 k"]:
    """The measures of a case that grow as mask and reconstruction part.

    Args:
      mask, rebuilt: label maps (slices, h, w).
      spacing_mm: (slices, h, w).
      pdc, phd: (k,) of the case.

    Returns:
      (6, k): 1 − pDC; pHD in the unit of the spacing; the square root of the largest area in its square on which a
      slice of both differs; the same of the area that a slice of the mask lacks to the larger ones on either side of
      it; the share of the mask's other structures, by area, that lies in slices without this one; the number of slices
      without it between two that have it. Infinite where the structure is absent from the mask or its reconstruction.
    """
    pixel_mm2 = float(spacing_mm[1]) * float(spacing_mm[2])
    # in pixels: (k, slices)
    areas = np.array([np.count_nonzero(mask == s.id, axis=(1, 2)) for s in structures])
    changed = mask != rebuilt
    area = np.array(
        [
            (changed & ((mask == s.id) | (rebuilt == s.id))).sum((1, 2)).max(initial=0) * pixel_mm2
            for s in structures
        ]
    )
    valley = np.array([_valley(of_structure * pixel_mm2) for of_structure in areas])
    others = areas.sum(axis=0) - areas
    alone = np.where(areas == 0, others, 0).sum(axis=1) / np.maximum(others.sum(axis=1), 1)
    gaps = np.array([_gaps(of_structure) for of_structure in areas])
    absent = ~np.isfinite(phd)
    distance = np.where(absent, np.inf, phd)
    return np.where(
        absent, np.inf, np.stack([1 - pdc, distance, np.sqrt(area), np.sqrt(valley), alone, gaps])
    )


def _valley(areas: np.ndarray) -> float:
    """How far the area of a slice lies below the largest ones before and after it."""
    before, after = np.maximum.accumulate(areas), np.maximum.accumulate(areas[::-1])[::-1]
    return float((np.minimum(before, after) - areas).max(initial=0))


def _gaps(areas: np.ndarray) -> int:
    """How many slices are empty between two that aren't."""
    has = np.flatnonzero(areas)
    return int(has[-1] - has[0] + 1 - has.size) if has.size else 0


@dataclass(frozen=True)
class TrainingSpread:
    """How the measures of ground-truth masks spread, each (6, k) as nested lists.

    A mask's excess is the root of the weighted sum of squares of what its measures exceed the median by, in spreads.
    The spread is taken from a quantile, so that no single mask that was rebuilt badly makes a measure count for little.
    """

    median: list[list[float]]
    spread: list[list[float]]  # of the larger half: the standard deviation, were it normal
    limit: float  # the excess that all but 2 % of the masks stay below
    n: int  # masks
    weights: Sequence[float]  # of the measures' squares

    @classmethod
    def of(cls, measured: Sequence[Float[np.ndarray, "m k"]]) -> "TrainingSpread":
        """The spread of the `features` of ground-truth masks; those with an absent structure don't count.

        Raises:
          ValueError: none is left.
        """
        complete = [f for f in measured if np.isfinite(f).all()]
        if not complete:
            raise ValueError("reference masks: none with every structure found, expected at least one")
        table = np.stack(complete)
        median = np.median(table, axis=0)
        spread = (np.quantile(table, HIGH, axis=0) - median) / HIGH_NORMAL
        spread = np.maximum(spread, np.array(LEAST_SPREAD)[:, None])
        limit = float(np.quantile(_excess(table, median, spread, WEIGHTS), 1 - FALSE_ALARMS))
        return cls(median.tolist(), spread.tolist(), max(limit, 1.0), len(complete), list(WEIGHTS))

    def suspicion(self, measured: Float[np.ndarray, "m k"]) -> float:
        """0 at the reference's median, 1 at its limit; infinite where a structure is absent."""
        median, spread = np.array(self.median), np.array(self.spread)
        return float(_excess(measured, median, spread, self.weights)) / self.limit

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainingSpread":
        """The inverse of `to_json`."""
        return cls(**values)


def _excess(
    measured: np.ndarray, median: np.ndarray, spread: np.ndarray, weights: Sequence[float]
) -> np.ndarray | np.float64:
    """(..., measures, k) -> (...)."""
    above = np.maximum((measured - median) / spread, 0)
    return np.sqrt((np.square(above) * np.array(weights)[:, None]).sum((-2, -1)))
