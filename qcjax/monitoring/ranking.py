"""The ranking of segmentation methods by real and by pseudo Hausdorff distance (monitoring paper, Table 1)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
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
    frame = pd.DataFrame(rows)
    methods = present(frame, "method")
    everyone = frame["subject"].unique()
    n_methods = frame.groupby("subject")["method"].nunique()
    frame = frame[frame["subject"].map(n_methods) == len(methods)]
    values, undefined, used = _comparable(frame, columns, worst)
    totals = _Totals(frame, methods)
    weights = bootstrap_weights(totals.n_subjects, n_resamples, seed) if totals.n_subjects > 1 else None
    real, *estimates = columns
    means: dict[str, np.ndarray] = {}
    r_s = {}
    for name in estimates:
        pairs = used[real] & used[name]
        n, of_real, of_it = (totals.of(pairs, v) for v in (np.ones(len(frame)), values[real], values[name]))
        mean, means[name] = (_ratio(s.sum(axis=1), n.sum(axis=1)) for s in (of_real, of_it))
        means.setdefault(real, mean)
        r_s[name] = dict(spearman(mean, means[name])) | _interval(of_real, of_it, n, weights)
    first = used[real] & used[estimates[0]]
    return {
        "n_cases": totals.n_subjects,
        "n_left_out": len(everyone) - totals.n_subjects,
        "methods": {
            name: {key: _json(means[key][i]) for key in columns}
            | {
                "n": int((first & (totals.method == i)).sum()),
                "undefined": {key: int((undefined[key] & (totals.method == i)).sum()) for key in columns},
            }
            for i, name in enumerate(methods)
        },
        "r_s": r_s,
    }


def _comparable(
    frame: pd.DataFrame, columns: Mapping[str, str], worst: Mapping[str, float | None] | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """For each name: its values, undefined ones replaced where `worst` says so; where it is undefined; what counts."""
    values = {name: frame[column].to_numpy(np.float64, copy=True) for name, column in columns.items()}
    undefined = {name: ~np.isfinite(v) for name, v in values.items()}
    if worst is None:
        return values, undefined, {name: ~undefined[name] & (v != 0) for name, v in values.items()}
    for name, column in columns.items():
        replacement = worst.get(column)
        values[name][undefined[name]] = np.nan if replacement is None else replacement
    return values, undefined, {name: np.full(len(frame), True) for name in columns}


class _Totals:
    """Sums per method and subject."""

    def __init__(self, frame: pd.DataFrame, methods: Sequence[str]) -> None:
        self.method = frame["method"].map(methods.index).to_numpy(np.intp)
        subjects, self.subject = np.unique(frame["subject"].to_numpy(str), return_inverse=True)
        self.n_methods, self.n_subjects = len(methods), len(subjects)

    def of(self, pairs: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(methods, subjects): the sums of the values where `pairs` is true."""
        table = np.zeros((self.n_methods, self.n_subjects))
        np.add.at(table, (self.method[pairs], self.subject[pairs]), values[pairs])
        return table


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
