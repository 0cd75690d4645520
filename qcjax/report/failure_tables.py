"""The table of which measure finds the failures, as text."""

from collections.abc import Mapping
from typing import Any

from qcjax.report.table import NBSP, Table, compared, with_interval

FAILURE_NAMES = {
    "dice_within_samples": "DiceWithinSamples",
    "pairwise_dice": "pairwise Dice",
    "variance": "image variance",
    "variance_foreground": "foreground variance",
    "variance_interior": "interior variance",
    "entropy": "predictive entropy",
    "expected_entropy": "expected entropy",
    "mutual_information": "mutual information",
    "pdc": "pDC",
    "phd_mm": "pHD",
}


def measure_table(caption: str, found: Mapping[str, Any], reference: str) -> Table | None:
    """Each measure's Pearson, Spearman and AURC with their intervals, and its AURC against the reference measure's.

    Args:
      found: `report.failures.detections`.
    """
    rows = []
    for name, cell in found.items():
        undefined = f"\n{cell['n_undefined']}{NBSP}undefined" if cell["n_undefined"] else ""
        rows.append(
            [
                FAILURE_NAMES[name],
                with_interval(cell["pearson"], "r", 2),
                with_interval(cell["spearman"], "r", 2),
                with_interval(cell["aurc"], "value", 3),
                with_interval(cell["excess_aurc"], "value", 3),
                compared((cell["difference"] or {}).get("aurc"), 3, better=-1),
                f"{cell['n']}{undefined}",
            ]
        )
    less = f"AURC − that of {FAILURE_NAMES[reference]}"
    header = ["measure", "Pearson r", "Spearman r_s", "AURC", "excess", less, "n"]
    return Table(caption, header, rows) if rows else None
