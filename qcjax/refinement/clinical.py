"""Errors of the clinical quantities: ventricular volumes and ejection fractions from the short-axis stack."""

from typing import Any

import numpy as np
import pandas as pd

from qcjax.data.subject import PHASES
from qcjax.metrics.clinical import ejection_fraction
from qcjax.refinement.table import STRUCTURES

VENTRICLES = ("lv", "rv")


def clinical(rows: pd.DataFrame) -> dict[str, Any]:
    """Errors of EF and volumes of the short-axis cases of one segmenter and stage.

    Args:
      rows: one per subject and phase, all with truth.

    Returns:
      `ef[lv|rv] = {mae_points, bias_points, n, n_missing}` in percentage points, over the subjects with both
      phases; `volume[structure][phase] = {mae_ml, bias_ml, n, n_missing}`. Bias is predicted minus true.
    """
    ed, es = (rows[rows["phase"] == phase].set_index("subject") for phase in PHASES)
    both = ed.index[ed.index.isin(es.index)]

    def ef(column: str) -> np.ndarray:
        pairs = zip(ed.loc[both, column], es.loc[both, column], strict=True)
        return np.array([ejection_fraction(edv_ml, esv_ml) for edv_ml, esv_ml in pairs])

    def volume_errors(key: str, phase: str) -> np.ndarray:
        cases = rows[rows["phase"] == phase]
        return (cases[f"volume_{key}_ml"] - cases[f"truth_volume_{key}_ml"]).to_numpy(float)

    return {
        "ef": {
            key: _errors(ef(f"volume_{key}_ml") - ef(f"truth_volume_{key}_ml"), "points")
            for key in VENTRICLES
        },
        "volume": {
            key: {phase: _errors(volume_errors(key, phase), "ml") for phase in PHASES} for key in STRUCTURES
        },
    }


def _errors(differences: np.ndarray, unit: str) -> dict[str, Any]:
    known = differences[np.isfinite(differences)]
    missing = len(differences) - len(known)
    if not len(known):
        return {f"mae_{unit}": None, f"bias_{unit}": None, "n": 0, "n_missing": missing}
    return {
        f"mae_{unit}": float(np.abs(known).mean()),
        f"bias_{unit}": float(known.mean()),
        "n": len(known),
        "n_missing": missing,
    }
