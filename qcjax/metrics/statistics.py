"""Statistics over cases: means with what is missing, paired differences, correlations."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Shaped
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


class CorrelationInterval(Correlation):
    """A correlation coefficient with its 95 % interval; None where undefined."""

    low: float | None
    high: float | None


Values = Sequence[Any] | Float[np.ndarray, " n"]
Groups = Sequence[Any] | np.ndarray


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
    groups: Sequence[Any] | Shaped[np.ndarray, "..."] | None = None,
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


def pearson_interval(
    a: Values, b: Values, groups: Groups, n_resamples: int = 2000, seed: int = 0
) -> CorrelationInterval:
    """`pearson` with its 95 % percentile-bootstrap interval, whole groups drawn as in `paired_bootstrap`.

    Args:
      a, b: one value per case; pairs with a NaN or infinite value are dropped.
      groups: the group of each case, such as its subject.
      n_resamples: number of bootstrap samples; those in which a side is constant are left out.
      seed: of the random numbers.

    Returns:
      ``r`` and ``n`` as `pearson`; ``low`` and ``high`` (None for fewer than two groups).

    Raises:
      ValueError: unequal lengths.
    """
    first, second, labels = _defined(a, b, groups=groups)
    names, members = np.unique(labels, return_inverse=True)
    found = pearson(first, second)
    low = high = None
    if found["r"] is not None and names.size > 1:
        weights = bootstrap_weights(names.size, n_resamples, seed)
        low, high = interval_95(_weighted_pearson(first, second, members, weights))
    return {**found, "low": low, "high": high}


def pearson_difference(
    target: Values, a: Values, b: Values, groups: Groups, n_resamples: int = 2000, seed: int = 0
) -> PairedDifference:
    """r(target, b) - r(target, a) with its 95 % percentile-bootstrap interval, both on the same draws.

    Args:
      target, a, b: one value per case; cases in which one of the three is NaN or infinite are dropped.
      groups, n_resamples, seed: as for `pearson_interval`.

    Raises:
      ValueError: unequal lengths.
    """
    reference, first, second, labels = _defined(target, a, b, groups=groups)
    names, members = np.unique(labels, return_inverse=True)
    n_missing = len(_vector(target, "target")) - reference.size
    r_a, r_b = pearson(reference, first)["r"], pearson(reference, second)["r"]
    if r_a is None or r_b is None:
        return {"mean": None, "low": None, "high": None, "n": reference.size, "n_missing": n_missing}
    low = high = None
    if names.size > 1:
        weights = bootstrap_weights(names.size, n_resamples, seed)
        drawn_a = _weighted_pearson(reference, first, members, weights)
        drawn_b = _weighted_pearson(reference, second, members, weights)
        low, high = interval_95(drawn_b - drawn_a)
    return {"mean": r_b - r_a, "low": low, "high": high, "n": reference.size, "n_missing": n_missing}


def bootstrap_weights(n_groups: int, n_resamples: int, seed: int) -> Float[np.ndarray, "resamples groups"]:
    """How often each group is drawn in each bootstrap sample of as many groups, with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples).astype(np.float64)


def interval_95(drawn: Float[np.ndarray, " resamples"]) -> tuple[float | None, float | None]:
    """The 2.5 and 97.5 % quantiles of a statistic's bootstrap samples, undefined ones left out."""
    defined = drawn[np.isfinite(drawn)]
    if not defined.size:
        return None, None
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def _weighted_pearson(a: np.ndarray, b: np.ndarray, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's r of each bootstrap sample, from sums over each group; NaN where a side is constant."""
    x, y = a - a.mean(), b - b.mean()  # near 0, so that the differences of sums below lose no digits
    sums = [np.bincount(members, weights=v) for v in (np.ones_like(x), x, y, x * x, y * y, x * y)]
    n, sum_x, sum_y, sum_xx, sum_yy, sum_xy = (weights @ s for s in sums)
    spread_x, spread_y = sum_xx - sum_x**2 / n, sum_yy - sum_y**2 / n
    constant = (spread_x <= 1e-12 * np.maximum(sum_xx, 1e-300)) | (
        spread_y <= 1e-12 * np.maximum(sum_yy, 1e-300)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (sum_xy - sum_x * sum_y / n) / np.sqrt(spread_x * spread_y)
    return np.where(constant, np.nan, np.clip(r, -1, 1))


def _defined(*values: Values, groups: Groups) -> list[np.ndarray]:
    """The cases in which every value is finite, and their groups last."""
    vectors = [_vector(v, "values") for v in values]
    labels = np.asarray(groups)
    if any(v.shape != labels.shape for v in vectors):
        sizes = ", ".join(str(v.size) for v in vectors)
        raise ValueError(f"{sizes} values in {labels.size} groups found, expected one of each for each case")
    defined = np.all([np.isfinite(v) for v in vectors], axis=0)
    return [v[defined] for v in vectors] + [labels[defined]]


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


def sign_flip_p(
    a: Values,
    b: Values,
    groups: Sequence[Any] | Shaped[np.ndarray, "..."],
    n_resamples: int = 10_000,
    seed: int = 0,
) -> float | None:
    """Two-sided p of no difference between paired values, by random sign flips of whole groups.

    The share of sign patterns, the observed one among them, under which the sum of the differences is at least as far
    from 0 (Phipson & Smyth 2010: 1 is added to both counts). Groups, such as subjects, are flipped whole, for their
    cases aren't independent.

    Args:
      a, b: one value per case; pairs with a NaN or infinite value are dropped.
      groups: the group of each case.
      n_resamples: number of random sign patterns.
      seed: of the random numbers.

    Returns:
      p; None for fewer than two groups.

    Raises:
      ValueError: unequal lengths.
    """
    first, second, labels = _defined(a, b, groups=np.asarray(groups))
    names, members = np.unique(labels, return_inverse=True)
    if names.size < 2:
        return None
    sums = np.bincount(members, weights=second - first)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (n_resamples, names.size))
    reached = np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12 * np.abs(sums).sum()
    return float((1 + reached.sum()) / (1 + n_resamples))


def holm(p: Values) -> list[float | None]:
    """p values corrected for their number (Holm 1979), in the given order; None where there is none.

    Of m values, rising, the i-th is multiplied by m - i + 1, at most 1, and is at least as large as the one before.
    """
    values = _vector(p, "p")
    order = np.argsort(values, kind="stable")  # NaN last
    m, least = int(np.isfinite(values).sum()), 0.0
    found: list[float | None] = [None] * values.size
    for place, i in enumerate(order[:m]):
        least = max(least, min(1.0, (m - place) * float(values[i])))
        found[i] = least
    return found
