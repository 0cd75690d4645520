"""Predicted quality as pages tell it."""

from collections.abc import Mapping
from typing import Any

from qcjax.report.table import DASH, number
from qcjax.runtime.line_journal import from_json

HEADER = ("Dice", "HD (mm)", "decision")


def expected_cells(found: Mapping[str, Any]) -> list[str]:
    """Predicted Dice and distance of a structure with their bounds, and the decision, as words under `HEADER`.

    Args:
      found: its columns as `qcjax.quality.model.predicted_columns` has them.
    """
    decision = found.get("decision") or DASH
    if found.get("predicted_dice") is None:
        return [DASH, DASH, decision]
    low, high = found["predicted_dice_low"], from_json(found["predicted_hd_high_mm"])
    return [
        f"{number(found['predicted_dice'], 2)}, at least {number(low, 2)}",
        f"{number(found['predicted_hd_mm'], 0)}, at most {'∞' if high == float('inf') else number(high, 0)}",
        decision,
    ]
