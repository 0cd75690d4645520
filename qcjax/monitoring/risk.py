"""Risk against coverage of every measure that could tell good masks from bad ones without ground truth."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from qcjax.metrics.selective import aurc, excess_aurc, graded_loss, risk_coverage
from qcjax.metrics.statistics import interval_95
from qcjax.monitoring.flags import is_failure
from qcjax.monitoring.table import MeasureRow

# the more confident the higher; an absent structure has no pHD and comes last
CONFIDENCES: dict[str, Callable[[MeasureRow], float]] = {
    "pdc": lambda row: row["pdc"],
    "phd": lambda row: -row["phd"] if math.isfinite(row["phd"]) else -math.inf,
    "suspicion": lambda row: -row["suspicion"],
    "image": lambda row: -row.get("doubt", math.nan),
    "agreement": lambda row: row["agreement"],
    "rules": lambda row: -float(row["n_rules"]),
    "rca": lambda row: row["rca_dc"],
}
MAX_POINTS = 200  # of a curve, as it is kept


def summarise_risk(
    rows: Sequence[MeasureRow],
    structures: Sequence[str],
    failure_dc: float,
    with_rca: bool,
    n_resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """Area under the risk-coverage curve (AURC), its excess over the ideal, and the curves.

    One unit is one structure of one mask. A measure takes part where it is defined for at least one unit, and
    all are compared on the units in which every one of them is defined.

    Args:
      rows: with truth.
      n_resamples, seed: of the bootstrap over subjects.

    Returns:
      None where no unit is left; else `n`, `n_left_out`, `measures`, and per loss, `failure` (0 or 1) and
      `graded` (1 - Dice): `mean_loss`, `ideal` (its AURC), `measures[name]` with `aurc`, `low`, `high`,
      `excess` and `difference` (AURC less that of pDC: mean, low, high; positive where pDC is better),
      `structures[key][name]` with `aurc` and `excess`, and `curves[name or "ideal"]` with `coverage` and
      `risk`.
    """
    values = {name: np.array([of(row) for row in rows]) for name, of in CONFIDENCES.items()}
    names = [n for n, v in values.items() if (n != "rca" or with_rca) and not np.isnan(v).all()]
    used = np.all([~np.isnan(values[name]) for name in names], axis=0)
    if not used.any():
        return None
    confidences = {name: values[name][used] for name in names}
    chosen = [row for row, keep in zip(rows, used.tolist(), strict=True) if keep]
    losses = {
        "failure": np.array([float(is_failure(row, failure_dc)) for row in chosen]),
        "graded": graded_loss([row["dc"] for row in chosen]),
    }
    draws = _draws([row["subject"] for row in chosen], n_resamples, seed)
    structure = np.array([row["structure"] for row in chosen])
    result: dict[str, Any] = {"n": len(chosen), "n_left_out": len(rows) - len(chosen), "measures": names}
    for loss_name, loss in losses.items():
        result[loss_name] = {
            "mean_loss": float(loss.mean()),
            "ideal": aurc(-loss, loss),
            "measures": _areas(confidences, loss, draws),
            "structures": {
                key: {
                    name: {
                        "aurc": aurc(v[structure == key], loss[structure == key]),
                        "excess": excess_aurc(v[structure == key], loss[structure == key]),
                    }
                    for name, v in confidences.items()
                }
                for key in structures
                if (structure == key).any()
            },
            "curves": {name: _curve(v, loss) for name, v in ({"ideal": -loss} | confidences).items()},
        }
    return result


def _areas(
    confidences: Mapping[str, np.ndarray], loss: np.ndarray, draws: Sequence[np.ndarray]
) -> dict[str, Any]:
    drawn = {name: np.array([aurc(v[i], loss[i]) for i in draws]) for name, v in confidences.items()}
    result: dict[str, Any] = {}
    for name, v in confidences.items():
        area = aurc(v, loss)
        low, high = interval_95(drawn[name])
        result[name] = {"aurc": area, "low": low, "high": high, "excess": excess_aurc(v, loss)}
        if name != "pdc":
            low, high = interval_95(drawn[name] - drawn["pdc"])
            difference = area - aurc(confidences["pdc"], loss)
            result[name]["difference"] = {"mean": difference, "low": low, "high": high}
    return result


def _draws(subjects: Sequence[str], n_resamples: int, seed: int) -> list[np.ndarray]:
    """The units of each bootstrap sample of subjects; none for a single subject."""
    names, members = np.unique(subjects, return_inverse=True)
    if names.size < 2:
        return []
    units = [np.flatnonzero(members == i) for i in range(names.size)]
    rng = np.random.default_rng(seed)
    return [
        np.concatenate([units[i] for i in rng.integers(names.size, size=names.size)])
        for _ in range(n_resamples)
    ]


def _curve(confidence: np.ndarray, loss: np.ndarray) -> dict[str, list[float]]:
    coverage, risk = risk_coverage(confidence, loss)
    kept = np.unique(np.linspace(0, len(risk) - 1, min(MAX_POINTS, len(risk))).round().astype(int))
    return {"coverage": coverage[kept].tolist(), "risk": risk[kept].tolist()}
