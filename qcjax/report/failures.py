"""Which measure finds the failures: numbers of both experiments, worked out by `metrics.failure_detection`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qcjax.data.subject import VIEWS
from qcjax.metrics.failure_detection import failure_table, higher_is_better
from qcjax.report.cases import STRUCTURES, UNCERTAINTY_OF_CASE, UNCERTAINTY_OF_STRUCTURE, CaseRow, has_truth
from qcjax.report.columns import Row, present

REFERENCE = "pdc"  # what needs no samples; the others' failure detection is compared with it


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


def measures_of(key: str) -> dict[str, str]:
    """The measures of a structure in a row of `cases.csv`: name -> column."""
    own = {name: pattern.format(key) for name, pattern in UNCERTAINTY_OF_STRUCTURE.items()}
    return own | {name: name for name in UNCERTAINTY_OF_CASE} | {"pdc": f"pdc_{key}"}


def summarise_failures(rows: Sequence[CaseRow], seed: int = 0, n_resamples: int = 2000) -> dict[str, Any]:
    """Segmenter -> view -> structure -> `detections` over the single best segmenter's cases with truth.

    Holds only segmenters and views that dropout samples were drawn of.
    """
    result: dict[str, Any] = {}
    for segmenter in present(rows, "segmenter"):
        for view in VIEWS:
            chosen = [
                row
                for row in rows
                if (row["segmenter"], row["view"], row["stage"]) == (segmenter, view, "segmenter")
                and has_truth(row)
                and math.isfinite(row.get("variance", math.nan))
            ]
            if chosen:
                result.setdefault(segmenter, {})[view] = {
                    key: detections(chosen, f"dc_{key}", measures_of(key), REFERENCE, seed, n_resamples)
                    for key in STRUCTURES
                }
    return result
