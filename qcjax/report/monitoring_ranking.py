"""The ranking of segmentation methods by real and by pseudo Hausdorff distance (monitoring paper, Table 1)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from qcjax.metrics.statistics import bootstrap_weights, interval_95, spearman
from qcjax.report.columns import present
from qcjax.report.measures import MeasureRow


def rank_methods(
    rows: Sequence[MeasureRow],
    columns: Mapping[str, str],
    worst: Mapping[str, float | None] | None,
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Mean distances of each method and Spearman's r_s of each estimate's means with the real ones.

    Args:
      rows: of one structure and phase.
      columns: name -> column; the first is the real distance, the others estimate it.
      worst: column -> what takes the place of an undefined distance; None drops, for real and estimate
        alike, the rows in which one of them is 0 or undefined, as the paper does.
      n_resamples, seed: of the bootstrap over subjects behind the interval of r_s.

    Returns:
      `methods[method]`: the mean of each name (None where no value is left), `n` rows and, for each name,
      `undefined[name]` among them; `r_s[name]` with `r`, `low`, `high` and `n`, the number of methods.
    """
    methods = present(rows, "method")
    values = {name: np.array([row[column] for row in rows], np.float64) for name, column in columns.items()}
    undefined = {name: ~np.isfinite(v) for name, v in values.items()}
    used = np.ones(len(rows), bool)
    if worst is None:
        used = np.all([~undefined[name] & (v != 0) for name, v in values.items()], axis=0)
    else:
        for name, column in columns.items():
            replacement = worst.get(column)
            values[name] = np.where(
                undefined[name], np.nan if replacement is None else replacement, values[name]
            )
    method = np.array([methods.index(row["method"]) for row in rows], np.intp)
    subjects, subject = np.unique([row["subject"] for row in rows], return_inverse=True)
    sums, counts = {}, np.zeros((len(methods), len(subjects)))
    np.add.at(counts, (method[used], subject[used]), 1)
    for name, v in values.items():
        sums[name] = np.zeros_like(counts)
        np.add.at(sums[name], (method[used], subject[used]), v[used])
    means = {name: _ratio(total.sum(axis=1), counts.sum(axis=1)) for name, total in sums.items()}
    real, *estimates = columns
    weights = bootstrap_weights(len(subjects), n_resamples, seed) if len(subjects) > 1 else None
    return {
        "methods": {
            name: {key: _json(means[key][i]) for key in columns}
            | {
                "n": int((used & (method == i)).sum()),
                "undefined": {key: int((undefined[key] & (method == i)).sum()) for key in columns},
            }
            for i, name in enumerate(methods)
        },
        "r_s": {
            name: dict(spearman(means[real], means[name]))
            | _interval(sums[real], sums[name], counts, weights)
            for name in estimates
        },
    }


def _interval(
    real: np.ndarray, estimate: np.ndarray, counts: np.ndarray, weights: np.ndarray | None
) -> dict[str, float | None]:
    """95 % interval of r_s over subjects drawn anew, each draw ranking all of the methods."""
    if weights is None or len(counts) < 2:
        return {"low": None, "high": None}
    n = weights @ counts.T  # (resamples, methods)
    ranks = [stats.rankdata(_ratio(weights @ total.T, n), axis=1) for total in (real, estimate)]
    whole = np.all(n > 0, axis=1)
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    spread = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    r_s = np.divide((a * b).sum(axis=1), spread, out=np.full(len(n), np.nan), where=whole & (spread > 0))
    low, high = interval_95(r_s)
    return {"low": low, "high": high}


def _ratio(total: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
