"""Which measure finds the failures: numbers of both experiments, worked out by `metrics.failure_detection`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qcjax.metrics.failure_detection import failure_table, higher_is_better
from qcjax.report.columns import Row


def detections(
    rows: Sequence[Row],
    real: str,
    columns: Mapping[str, str],
    reference: str,
    seed: int = 0,
    n_resamples: int = 2000,
) -> dict[str, Any]:
    """`failure_table` of the measures that any of the rows has, subjects as groups.

    Args:
      rows: one per result, with its `subject`.
      real: the column of the real Dice.
      columns: name of a measure -> its column.
      reference: the measure that the others are compared with, where the rows have it.
    """

    def column(name: str) -> np.ndarray:
        return np.array([row.get(name, math.nan) for row in rows], np.float64)

    taken = {name: column(c) for name, c in columns.items() if np.isfinite(column(c)).any()}
    subjects = [row["subject"] for row in rows]
    compared = reference if reference in taken else None
    found = failure_table(column(real), higher_is_better(taken), subjects, seed, compared, n_resamples)
    return {name: dict(cell) for name, cell in found.items()}
