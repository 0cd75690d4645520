"""Statistics over cases: means with what is missing, paired differences, correlations."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float
from scipy import stats


class Summary(TypedDict):
    """Mean and spread of a measure; None where undefined."""

    mean: float | None
    sd: float | None
    n: int  # cases in which the measure is defined
    n_missing: int  # and cases in which it isn't


class PairedDifference(TypedDict):
    """Mean paired difference with its 95 % interval; None where undefined."""

    mean: float | None
    low: float | None
    high: float | None
    n: int  # pairs
    n_missing: int  # pairs dropped because one of the two is undefined


class Correlation(TypedDict):
    """A correlation coefficient; None where undefined."""

    r: float | None
    n: int  # pairs in which both are defined


Values = Sequence[Any] | Float[np.ndarray, " n"]


def summary(values: Values) -> Summary:
    """Mean and standard deviation (n - 1 in the denominator) of the defined values.

    Args:
      values: one per case; NaN or infinite where the measure is undefined.

    Returns:
      ``mean`` (None for no value), ``sd`` (None for fewer than two), ``n`` defined, ``n_missing`` undefined.
    """
    every = _vector(values, "values")
    defined = every[np.isfinite(every)]
    return {
        "mean": float(defined.mean()) if defined.size else None,
        "sd": float(defined.std(ddof=1)) if defined.size > 1 else None,
        "n": defined.size,
        "n_missing": every.size - defined.size,
    }


def paired_bootstrap(
    a: Values,
    b: Values,
    groups: Sequence[Any] | np.ndarray | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Mean paired difference b - a with its 95 % percentile-bootstrap interval.

    Whole groups are drawn with replacement, because the two phases of one subject aren't independent; the
    mean is over pairs (Efron & Tibshirani 1993, chapters 13 and 8.4).

    Args:
      a, b: one value per case, in the same order; pairs with a NaN or infinite value are dropped.
      groups: the group of each case, such as its subject; None takes every case for itself.
      n_resamples: number of bootstrap samples.
      seed: of the random numbers; the same seed gives the same interval.

    Returns:
      ``mean`` (None for no pair), ``low`` and ``high`` (None for fewer than two groups), ``n`` pairs,
      ``n_missing`` pairs dropped.

    Raises:
      ValueError: unequal lengths, or fewer than one resample.
    """
    first, second = _pair(a, b)
    labels = np.arange(first.size) if groups is None else np.asarray(groups)
    if labels.shape != first.shape:
        raise ValueError(f"groups: shape {labels.shape} found, expected {first.shape}, one for each case")
    if n_resamples < 1:
        raise ValueError(f"n_resamples: {n_resamples} found, expected at least 1")
    defined = np.isfinite(first) & np.isfinite(second)
    difference = second[defined] - first[defined]
    result: PairedDifference = {
        "mean": float(difference.mean()) if difference.size else None,
        "low": None,
        "high": None,
        "n": difference.size,
        "n_missing": first.size - difference.size,
    }
    names, members = np.unique(labels[defined], return_inverse=True)
    if names.size > 1:
        sums = np.bincount(members, weights=difference)
        sizes = np.bincount(members)
        drawn = np.random.default_rng(seed).integers(names.size, size=(n_resamples, names.size))
        means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        result["low"], result["high"] = (float(q) for q in np.quantile(means, (0.025, 0.975)))
    return result


def pearson(a: Values, b: Values) -> Correlation:
    """Pearson's r over the pairs in which both values are finite; None for fewer than two or a constant side.

    Raises:
      ValueError: unequal lengths.
    """
    return _correlation(a, b, stats.pearsonr)


def spearman(a: Values, b: Values) -> Correlation:
    """Spearman's rank correlation (average ranks for ties), under the same conditions as `pearson`.

    Raises:
      ValueError: unequal lengths.
    """
    return _correlation(a, b, stats.spearmanr)


def _correlation(a: Values, b: Values, function: Any) -> Correlation:
    first, second = _pair(a, b)
    defined = np.isfinite(first) & np.isfinite(second)
    first, second = first[defined], second[defined]
    constant = first.size < 2 or np.ptp(first) == 0 or np.ptp(second) == 0
    return {"r": None if constant else float(function(first, second).statistic), "n": first.size}


def _pair(a: Values, b: Values) -> tuple[np.ndarray, np.ndarray]:
    first, second = _vector(a, "a"), _vector(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"{first.size} and {second.size} values found, expected pairs")
    return first, second


def _vector(values: Values, name: str) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name}: shape {vector.shape} found, expected one axis")
    return vector
