"""The numbers of the monitoring experiment, from the rows of `measures.csv` (monitoring paper, section 3.2).

An undefined Hausdorff distance has no number. "Failures counted in" puts in its place the worst finite value
of its column (real, pseudo and RCA's apart, over all structures), so that an absent structure never looks
better than one that is there, and tells how often; the Dice of a failure is 0 and stays. "Dropped" is what
the authors' code does: of correlations, whole masks are left out that have a value of 0 or an undefined one, real or
pseudo, in any structure; of rankings, pairs of distances.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from qcjax.data.subject import PHASES
from qcjax.labels import CARDIAC
from qcjax.metrics.selective import FAILURE_DC
from qcjax.metrics.statistics import pearson_difference, pearson_interval
from qcjax.monitoring.flags import count_flags, flags_against_truth, limits_curves
from qcjax.monitoring.ranking import rank_methods
from qcjax.monitoring.risk import summarise_risk
from qcjax.monitoring.table import MeasureRow, by_case, has_rca, has_truth
from qcjax.report.columns import present

REAL = {"dc": "dc", "hd": "hd"}  # measure -> column
PSEUDO = {"ours": {"dc": "pdc", "hd": "phd"}, "rca": {"dc": "rca_dc", "hd": "rca_hd"}}
KEYS = tuple(structure.key for structure in CARDIAC)

Mask = tuple[str, str, str]  # method, subject, phase


def summarise_monitoring(
    rows: Sequence[MeasureRow],
    *,
    seed: int = 0,
    failure_dc: float = FAILURE_DC,
    hd_limit: float = 50.0,
    dc_limit: float = 0.5,
    unit: str = "mm",
    n_resamples: int = 2000,
) -> dict[str, Any]:
    """Every table of the monitoring report as nested dictionaries that JSON can hold (None, never NaN).

    Args:
      rows: as in `measures.csv`.
      seed: of the bootstraps; subjects are resampled, so that one's phases, structures and methods stay together.
      failure_dc: a structure failed where its Dice is below, or where only one of mask and truth has it.
      hd_limit, dc_limit: those of the flags, where the curves over one of them hold the other.
      unit: of all distances, the limit too: "mm", or "voxels" in preset `original`.
      n_resamples: of each bootstrap; the risk-coverage intervals take a quarter of it.

    Returns:
      `methods`, `structures`, `phases`, `n` (subjects, cases, cases with truth), `failure_dc`, `distance_unit`,
      `limits`, `flagged` (counts that need no truth), and, over the rows with truth, `scopes`: "all", and "rca" where
      RCA was run on a part of them only; each holds `estimators`, `n`, `worst`, `correlation`,
      `correlation_differences`, `ranking` and `risk`. `flags` and `flag_curves` are None without truth.
    """
    truth = [row for row in rows if has_truth(row)]
    judged = [row for row in truth if has_rca(row)]
    order = present(rows, "structure", KEYS)
    scopes = {"all": truth} if truth else {}
    if judged and len(judged) < len(truth):
        scopes["rca"] = judged
    return {
        "methods": present(rows, "method"),
        "structures": order,
        "phases": present(rows, "phase", PHASES),
        "n": _counts(rows)
        | {"cases_with_truth": len(by_case(truth)), "cases_with_rca": len(by_case(judged))},
        "failure_dc": failure_dc,
        "distance_unit": unit,
        "limits": {"hd": hd_limit, "dc": dc_limit},
        "flagged": count_flags(rows),
        "flags": flags_against_truth(truth, failure_dc) if truth else None,
        "flag_curves": limits_curves(truth, failure_dc, hd_limit, dc_limit) if truth else None,
        "scopes": {
            name: _summarise_scope(chosen, order, failure_dc, n_resamples, seed)
            for name, chosen in scopes.items()
        },
    }


def failures_counted(
    rows: Sequence[MeasureRow], column: str, worst: float | None
) -> tuple[Float[np.ndarray, " n"], int]:
    """A column with its undefined values replaced by `worst`, and how many there were."""
    values = column_of(rows, column)
    undefined = ~np.isfinite(values)
    return np.where(undefined, math.nan if worst is None else worst, values), int(undefined.sum())


def worst_finite(rows: Sequence[MeasureRow], column: str) -> float | None:
    """The largest finite value of a distance's column; None where there is none."""
    values = column_of(rows, column)
    return float(values[np.isfinite(values)].max()) if np.isfinite(values).any() else None


def column_of(rows: Sequence[MeasureRow], column: str) -> Float[np.ndarray, " n"]:
    """The values of a column in n rows, in their order; NaN where a measure is undefined."""
    return np.array([row[column] for row in rows], np.float64)


def paper_drops(rows: Sequence[MeasureRow], estimator: str) -> set[Mask]:
    """The masks that the authors' correlations leave out: any measure of any structure is 0 or undefined."""
    columns = (*REAL.values(), *PSEUDO[estimator].values())
    return {mask_of(row) for row in rows if any(not math.isfinite(row[c]) or row[c] == 0 for c in columns)}


def mask_of(row: MeasureRow) -> Mask:
    """Which mask a row is about."""
    return row["method"], row["subject"], row["phase"]


def _summarise_scope(
    rows: Sequence[MeasureRow], structures: Sequence[str], failure_dc: float, n_resamples: int, seed: int
) -> dict[str, Any]:
    estimators = ["ours"] + (["rca"] if all(has_rca(row) for row in rows) else [])
    columns = [REAL["hd"], *(PSEUDO[name]["hd"] for name in estimators)]
    worst = {column: worst_finite(rows, column) for column in columns}
    by_structure = {key: [row for row in rows if row["structure"] == key] for key in structures}
    dropped = {name: paper_drops(rows, name) for name in estimators}
    return {
        "estimators": estimators,
        "n": _counts(rows),
        "worst": worst,
        "correlation": {
            name: {
                key: {m: _correlation(own, name, m, worst, dropped[name], n_resamples, seed) for m in REAL}
                for key, own in by_structure.items()
            }
            for name in estimators
        },
        "correlation_differences": {
            key: {m: _difference(own, m, worst, n_resamples, seed) for m in REAL}
            for key, own in by_structure.items()
        }
        if "rca" in estimators
        else None,
        "ranking": {
            policy: {
                phase: {
                    key: rank_methods(
                        [row for row in own if row["phase"] == phase],
                        {"hd": REAL["hd"]} | {name: PSEUDO[name]["hd"] for name in estimators},
                        worst if policy == "counted" else None,
                        n_resamples,
                        seed,
                    )
                    for key, own in by_structure.items()
                }
                for phase in present(rows, "phase", PHASES)
            }
            for policy in ("counted", "dropped")
        },
        "risk": summarise_risk(
            rows, structures, failure_dc, "rca" in estimators, max(1, n_resamples // 4), seed
        ),
    }


def _correlation(
    rows: Sequence[MeasureRow],
    estimator: str,
    measure: str,
    worst: dict[str, float | None],
    dropped_masks: set[Mask],
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Pearson's r of real and pseudo measure of one structure, failures counted in and dropped."""
    subjects = [row["subject"] for row in rows]
    real_column, pseudo_column = REAL[measure], PSEUDO[estimator][measure]
    real, real_replaced = failures_counted(rows, real_column, worst.get(real_column))
    pseudo, pseudo_replaced = failures_counted(rows, pseudo_column, worst.get(pseudo_column))
    raw_real, raw_pseudo = column_of(rows, real_column), column_of(rows, pseudo_column)
    dropped = np.array([mask_of(row) in dropped_masks for row in rows], bool)
    kept = pearson_interval(
        raw_real[~dropped], raw_pseudo[~dropped], np.array(subjects)[~dropped], n_resamples, seed
    )
    return {
        "counted": {
            **pearson_interval(real, pseudo, subjects, n_resamples, seed),
            "n_replaced_real": real_replaced,
            "n_replaced_pseudo": pseudo_replaced,
            "n_replaced_both": int((~np.isfinite(raw_real) & ~np.isfinite(raw_pseudo)).sum()),
        },
        "dropped": {**kept, "n_dropped": int(dropped.sum())},
    }


def _difference(
    rows: Sequence[MeasureRow], measure: str, worst: dict[str, float | None], n_resamples: int, seed: int
) -> dict[str, Any]:
    """Our r minus RCA's, failures counted in."""
    columns = (REAL[measure], PSEUDO["rca"][measure], PSEUDO["ours"][measure])
    target, rca, ours = (failures_counted(rows, column, worst.get(column))[0] for column in columns)
    subjects = [row["subject"] for row in rows]
    return dict(pearson_difference(target, rca, ours, subjects, n_resamples, seed))


def _counts(rows: Sequence[MeasureRow]) -> dict[str, int]:
    return {
        "subjects": len({row["subject"] for row in rows}),
        "cases": len(by_case(rows)),
        "rows": len(rows),
    }
