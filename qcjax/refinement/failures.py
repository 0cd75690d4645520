"""Which measure finds the failures of the single best segmenter."""

import math
from collections.abc import Sequence
from typing import Any

from qcjax.data.subject import VIEWS
from qcjax.refinement.table import (
    STRUCTURES,
    UNCERTAINTY_OF_CASE,
    UNCERTAINTY_OF_STRUCTURE,
    CaseRow,
    has_truth,
)
from qcjax.report.columns import present
from qcjax.report.failures import detections

REFERENCE = "pdc"  # what needs no samples; the others' failure detection is compared with it


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
