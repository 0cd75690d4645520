"""Errors of the clinical quantities: ventricular volumes and ejection fractions from the short-axis stack."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qcjax.data.subject import PHASES
from qcjax.metrics.clinical import ejection_fraction
from qcjax.refinement.table import STRUCTURES, CaseRow

VENTRICLES = ("lv", "rv")


def clinical(rows: Sequence[CaseRow]) -> dict[str, Any]:
    """Errors of EF and volumes of the short-axis cases of one segmenter and stage.

    Args:
      rows: one per subject and phase, all with truth.

    Returns:
      `ef[lv|rv] = {mae_points, bias_points, n, n_missing}` in percentage points, over the subjects with both
      phases; `volume[structure][phase] = {mae_ml, bias_ml, n, n_missing}`. Bias is predicted minus true.
    """
    by_subject: dict[str, dict[str, CaseRow]] = {}
    for row in rows:
        by_subject.setdefault(row["subject"], {})[row["phase"]] = row
    both = [phases for phases in by_subject.values() if set(PHASES) <= set(phases)]
    return {
        "ef": {
            key: _errors(
                [_ef(phases, "volume", key) - _ef(phases, "truth_volume", key) for phases in both], "points"
            )
            for key in VENTRICLES
        },
        "volume": {
            key: {
                phase: _errors(
                    [
                        row[f"volume_{key}_ml"] - row[f"truth_volume_{key}_ml"]
                        for row in rows
                        if row["phase"] == phase
                    ],
                    "ml",
                )
                for phase in PHASES
            }
            for key in STRUCTURES
        },
    }


def _ef(phases: dict[str, CaseRow], prefix: str, key: str) -> float:
    edv_ml, esv_ml = (phases[phase][f"{prefix}_{key}_ml"] for phase in PHASES)
    return ejection_fraction(edv_ml, esv_ml)


def _errors(differences: Sequence[float], unit: str) -> dict[str, Any]:
    known = np.asarray([difference for difference in differences if math.isfinite(difference)], float)
    missing = len(differences) - len(known)
    if not len(known):
        return {f"mae_{unit}": None, f"bias_{unit}": None, "n": 0, "n_missing": missing}
    return {
        f"mae_{unit}": float(np.abs(known).mean()),
        f"bias_{unit}": float(known.mean()),
        "n": len(known),
        "n_missing": missing,
    }
