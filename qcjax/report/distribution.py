"""How a number is distributed over a cohort, in as many bins as a small plot has."""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 24
ALIKE = 1e-9  # a range this small, of the values themselves, is none
FAR = 4.0  # interquartile ranges above the third quartile: what lies farther is counted, not drawn


@dataclass(frozen=True)
class Distribution:
    """Counts in bins of one width from `low` to `high`, and how many values lie above."""

    low: float
    high: float
    counts: tuple[int, ...]
    beyond: int

    def to_json(self) -> dict[str, Any]:
        """Its four parts by name."""
        return {"low": self.low, "high": self.high, "counts": list(self.counts), "beyond": self.beyond}


def distribution(values: Iterable[float]) -> Distribution | None:
    """How values are distributed; NaN don't count, infinite ones lie above.

    Returns:
      None where none of them is finite.
    """
    found = np.asarray(list(values), float)
    finite = found[np.isfinite(found)]
    if not len(finite):
        return None
    q1, q3 = np.quantile(finite, (0.25, 0.75))
    high = float(finite[finite <= q3 + FAR * (q3 - q1)].max())
    low = float(finite.min())
    scale = max(1.0, abs(low), abs(high))
    if high - low <= ALIKE * scale:
        low, high = low - scale / 2, high + scale / 2
    counts, _ = np.histogram(finite, BINS, (low, high))
    return Distribution(low, high, tuple(counts.tolist()), int((found > high).sum()))


def distributions(rows: Iterable[Mapping[str, float]]) -> dict[str, Distribution]:
    """Column -> its distribution over rows that come one by one, of which 8 bytes a number are kept."""
    kept: dict[str, array[float]] = {}
    for row in rows:
        for name, value in row.items():
            kept.setdefault(name, array("d")).append(value)
    found = {name: distribution(values) for name, values in kept.items()}
    return {name: one for name, one in found.items() if one is not None}
