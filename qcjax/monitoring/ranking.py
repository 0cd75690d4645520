"""The ranking of segmentation methods by real and by pseudo Hausdorff distance (monitoring paper, Table 1)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from qcjax.metrics.statistics import bootstrap_weights, interval_95, spearman
from qcjax.monitoring.table import MeasureRow
from qcjax.report.columns import present


def rank_methods(
    rows: Sequence[MeasureRow],
    columns: Mapping[str, str],
    worst: Mapping[str, float | None] | None,
    n_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Mean distances of each method and Spearman's r_s of each estimate's means with the real ones.

    A mean over other images than those of the others ranks nothing, so only images of which every method has a mask
    count.

    Args:
      rows: of one structure and phase.
      columns: name -> column; the first is the real distance, the others estimate it.
      worst: column -> what takes the place of an undefined distance; None drops, for real and estimate
        alike, the rows in which one of them is 0 or undefined, as the paper does.
      n_resamples, seed: of the bootstrap over subjects behind the interval of r_s.

    Returns:
      `n_cases` images that count and `n_left_out` others; `methods[method]`: the mean of each name (None where no
      value is left; of the real distance over the rows of the first estimate), `n` rows of the first estimate and,
      for each name, `undefined[name]` rows; `r_s[name]` with `r`, `low`, `high` and `n`, the number of methods.
    """
    methods = present(rows, "method")
    everyone = {row["subject"] for row in rows}
    shared = everyone.intersection(*({r["subject"] for r in rows if r["method"] == m} for m in methods))
    rows = [row for row in rows if row["subject"] in shared]
    values = {name: np.array([row[column] for row in rows], np.float64) for name, column in columns.items()}
    undefined = {name: ~np.isfinite(v) for name, v in values.items()}
    used = {name: np.full(len(rows), True) for name in columns}
    if worst is None:
        used = {name: ~undefined[name] & (v != 0) for name, v in values.items()}
    else:
        for name, column in columns.items():
            replacement = worst.get(column)
            values[name][undefined[name]] = np.nan if replacement is None else replacement
    method = np.array([methods.index(row["method"]) for row in rows], np.intp)
    subjects, subject = np.unique([row["subject"] for row in rows], return_inverse=True)
    weights = bootstrap_weights(len(subjects), n_resamples, seed) if len(subjects) > 1 else None

    def total(pairs: np.ndarray, of: np.ndarray) -> np.ndarray:
        """(methods, subjects)"""
        table = np.zeros((len(methods), len(subjects)))
        np.add.at(table, (method[pairs], subject[pairs]), of[pairs])
        return table

    real, *estimates = columns
    means: dict[str, np.ndarray] = {}
    r_s = {}
    for name in estimates:
        pairs = used[real] & used[name]
        n, of_real, of_it = (total(pairs, v) for v in (np.ones(len(rows)), values[real], values[name]))
        mean, means[name] = (_ratio(s.sum(axis=1), n.sum(axis=1)) for s in (of_real, of_it))
        means.setdefault(real, mean)
        r_s[name] = dict(spearman(mean, means[name])) | _interval(of_real, of_it, n, weights)
    first = used[real] & used[estimates[0]]
    return {
        "n_cases": len(subjects),
        "n_left_out": len(everyone) - len(subjects),
        "methods": {
            name: {key: _json(means[key][i]) for key in columns}
            | {
                "n": int((first & (method == i)).sum()),
                "undefined": {key: int((undefined[key] & (method == i)).sum()) for key in columns},
            }
            for i, name in enumerate(methods)
        },
        "r_s": r_s,
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
