"""Does a measure find the failures? Measures of quality that need no truth, held against the real Dice.

One value per result: a case, or one structure of it. A measure that is undefined for a result (no pseudo Dice
because a structure is absent, say) counts as the worst value of that measure there, below every other, because
whoever acts on it would look at that result first. So all measures are compared on the same results.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float

from qcjax.metrics.selective import aurc, excess_aurc, graded_loss
from qcjax.metrics.statistics import (
    Correlation,
    CorrelationInterval,
    Groups,
    PairedDifference,
    Values,
    bootstrap_weights,
    interval_95,
    pearson_difference,
    pearson_interval,
    spearman,
)

# +1 where a higher value means a better result, -1 where it means a more uncertain one
MEASURES: dict[str, int] = {
    "dice_within_samples": +1,
    "pairwise_dice": +1,
    "variance": -1,
    "variance_foreground": -1,
    "variance_interior": -1,
    "entropy": -1,
    "expected_entropy": -1,
    "mutual_information": -1,
    "pdc": +1,
    "phd_mm": -1,
}

_CHUNK = 2**21  # elements of a table of bootstrap samples × results that is worked on at once


class AreaInterval(TypedDict):
    """An area under the risk-coverage curve with its 95 % interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


class Differences(TypedDict):
    """A measure's figure less that of the reference measure, on the same draws."""

    pearson: PairedDifference  # positive where this measure is better than the reference
    spearman: PairedDifference  # likewise
    aurc: PairedDifference  # negative where this measure is better


class Detection(TypedDict):
    """How well one measure follows the real Dice coefficient."""

    pearson: CorrelationInterval
    spearman: CorrelationInterval
    aurc: AreaInterval  # of the loss 1 - Dice; lower is better
    excess_aurc: AreaInterval  # less that of the ideal ranking; 0 is perfect
    n: int  # results with truth
    n_dropped: int  # results without truth
    n_undefined: int  # results with truth but without this measure, counted as its worst
    difference: Differences | None  # to the reference; None for the reference itself, or where there is none


def higher_is_better(columns: Mapping[str, Values]) -> dict[str, Float[np.ndarray, " n"]]:
    """Measures by name, those that grow with uncertainty negated as `MEASURES` declares.

    Raises:
      ValueError: a name that `MEASURES` doesn't know.
    """
    unknown = sorted(set(columns) - set(MEASURES))
    if unknown:
        raise ValueError(f"measures: {', '.join(unknown)} found, expected names of {', '.join(MEASURES)}")
    return {name: MEASURES[name] * np.asarray(values, np.float64) for name, values in columns.items()}


def failure_table(
    dc: Values,
    measures: Mapping[str, Values],
    groups: Groups,
    seed: int = 0,
    reference: str | None = None,
    n_resamples: int = 2000,
) -> dict[str, Detection]:
    """Pearson, Spearman and AURC of each measure against the real Dice, with 95 % bootstrap intervals.

    Whole groups are drawn with replacement, as in `statistics.paired_bootstrap`, and every measure sees the
    same draws. AURC is the area under the risk-coverage curve (Geifman & El-Yaniv, NeurIPS 2017) of the loss
    1 - Dice. For Pearson's r an undefined value takes the lowest defined value of its measure; in ranks it
    comes below that. A measure that is undefined for all results tells nothing: its figures are None.

    Args:
      dc: (n,) real Dice coefficients; results without one (NaN) are dropped and counted.
      measures: name -> (n,), higher is better (see `higher_is_better`); NaN and -∞ are undefined.
      groups: (n,) such as the subject of each result.
      seed, n_resamples: of the bootstrap; no interval where there are fewer than two groups.
      reference: the measure that all others are compared with; None compares none.

    Returns:
      For each measure its figures, in the order of `measures`.

    Raises:
      ValueError: unequal lengths, an unknown reference, a measure of +∞, or fewer than one resample.
    """
    if reference is not None and reference not in measures:
        raise ValueError(f"reference: {reference!r} found, expected one of {', '.join(measures)}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples: {n_resamples} found, expected at least 1")
    real, subjects = np.asarray(dc, np.float64), np.asarray(groups)
    values = {name: np.asarray(v, np.float64) for name, v in measures.items()}
    for name, v in ({"groups": subjects} | values).items():
        if name != "groups" and (v == np.inf).any():
            raise ValueError(f"{name}: +∞ found, expected finite values, or NaN or -∞ where undefined")
        if v.shape != real.shape or real.ndim != 1:
            raise ValueError(f"{name}: shape {v.shape} found, expected ({real.size},), one for each Dice")
    kept = np.isfinite(real)
    draws = _Draws(real[kept], subjects[kept], n_resamples, seed)
    columns = {name: _Column(v[kept]) for name, v in values.items()}
    drawn = {name: draws.figures(column) for name, column in columns.items()}
    table: dict[str, Detection] = {}
    for name, column in columns.items():
        table[name] = {
            "pearson": pearson_interval(draws.dc, column.filled, draws.subjects, n_resamples, seed),
            "spearman": _correlation(draws, column, drawn[name]),
            "aurc": _area(aurc, draws, column, drawn[name].aurc),
            "excess_aurc": _area(excess_aurc, draws, column, drawn[name].aurc - draws.ideal),
            "n": draws.dc.size,
            "n_dropped": real.size - draws.dc.size,
            "n_undefined": column.n_undefined,
            "difference": None,
        }
    if reference is not None:
        for name in table.keys() - {reference}:
            table[name]["difference"] = _differences(
                draws, n_resamples, seed, *((columns[i], table[i], drawn[i]) for i in (reference, name))
            )
    return table


class _Column:
    """One measure, what is undefined put last."""

    def __init__(self, values: np.ndarray) -> None:
        defined = values > -np.inf  # neither NaN nor -∞
        self.n_undefined = int(np.count_nonzero(~defined))
        self.known = bool(defined.any())
        self.filled = np.where(defined, values, values[defined].min() if self.known else np.nan)
        self.ranked = np.where(defined, values, -np.inf)


class _Figures(NamedTuple):
    """The figures of each bootstrap sample."""

    spearman: Float[np.ndarray, " resamples"]
    aurc: Float[np.ndarray, " resamples"]


class _Draws:
    """Bootstrap samples of whole groups of the results that have truth."""

    def __init__(self, dc: np.ndarray, subjects: np.ndarray, n_resamples: int, seed: int) -> None:
        self.dc, self.subjects = dc, subjects
        self.loss = graded_loss(dc)
        names, self.members = np.unique(subjects, return_inverse=True)
        self.weights = (
            bootstrap_weights(names.size, n_resamples, seed) if names.size > 1 else np.ones((0, names.size))
        )
        self.chunk = max(1, _CHUNK // max(dc.size, 1))
        self.ideal = self.figures(_Column(dc)).aurc

    def figures(self, column: _Column) -> _Figures:
        parts = [
            self._figures(column, self.weights[i : i + self.chunk])
            for i in range(0, len(self.weights), self.chunk)
        ]
        if not (parts and column.known):
            return _Figures(np.full(len(self.weights), np.nan), np.full(len(self.weights), np.nan))
        return _Figures(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _figures(self, column: _Column, weights: np.ndarray) -> _Figures:
        of_unit = weights[:, self.members]
        a, b = (_ranks(weights, self.members, v) for v in (self.dc, column.ranked))
        spread = np.sqrt(_dot(of_unit, a, a) * _dot(of_unit, b, b))
        covariance = _dot(of_unit, a, b)
        r = np.divide(covariance, spread, out=np.full(len(weights), np.nan), where=spread > 0)
        return _Figures(r, _areas(weights, self.members, column.ranked, self.loss))


def _dot(weights: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("rn,rn,rn->r", weights, a, b)


def _per_level(
    weights: np.ndarray, members: np.ndarray, level: np.ndarray, values: np.ndarray | None = None
) -> np.ndarray:
    """(resamples, levels): how many units of each level are drawn, or the sum of their values."""
    table = np.zeros((weights.shape[1], level.max() + 1))
    np.add.at(table, (members, level), 1 if values is None else values)
    return weights @ table


def _ranks(weights: np.ndarray, members: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(resamples, n) average rank of each unit in each sample, less the mean of all ranks."""
    level = np.unique(values, return_inverse=True)[1]
    count = _per_level(weights, members, level)
    middle = np.cumsum(count, axis=1) - count / 2
    return (middle - count.sum(axis=1, keepdims=True) / 2)[:, level]


def _areas(weights: np.ndarray, members: np.ndarray, confidence: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """`selective.aurc` of each bootstrap sample, in closed form.

    Let A results with losses that sum up to S be accepted before a tie of m results of mean loss μ. After j of
    the tie the risk is (S + jμ) / (A + j) = μ + (S - Aμ) / (A + j); over j = 1 … m these sum up to
    mμ + (S - Aμ) (H(A + m) - H(A)), H the harmonic numbers.
    """
    level = np.unique(-confidence, return_inverse=True)[1]  # the most confident first
    count = _per_level(weights, members, level)
    cost = _per_level(weights, members, level, loss)
    before, cost_before = np.cumsum(count, axis=1) - count, np.cumsum(cost, axis=1) - cost
    mean = np.divide(cost, count, out=np.zeros_like(cost), where=count > 0)
    n = count.sum(axis=1)
    harmonic = np.concatenate(([0.0], np.cumsum(1 / np.arange(1, int(n.max()) + 1))))
    span = harmonic[(before + count).astype(np.intp)] - harmonic[before.astype(np.intp)]
    return (cost + (cost_before - before * mean) * span).sum(axis=1) / n


def _correlation(draws: _Draws, column: _Column, drawn: _Figures) -> CorrelationInterval:
    order = np.unique(column.ranked, return_inverse=True)[1].astype(np.float64)  # finite, of the same ranks
    found: Correlation = spearman(draws.dc, order)
    low, high = interval_95(drawn.spearman) if found["r"] is not None else (None, None)
    return {**found, "low": low, "high": high}


def _area(
    function: Callable[[np.ndarray, np.ndarray], float], draws: _Draws, column: _Column, drawn: np.ndarray
) -> AreaInterval:
    if not column.known:
        return {"value": None, "low": None, "high": None}
    low, high = interval_95(drawn)
    return {"value": function(column.ranked, draws.loss), "low": low, "high": high}


def _differences(
    draws: _Draws,
    n_resamples: int,
    seed: int,
    a: tuple[_Column, Detection, _Figures],
    b: tuple[_Column, Detection, _Figures],
) -> Differences:
    (column_a, found_a, drawn_a), (column_b, found_b, drawn_b) = a, b
    return {
        "pearson": pearson_difference(
            draws.dc, column_a.filled, column_b.filled, draws.subjects, n_resamples, seed
        ),
        "spearman": _difference(
            found_a["spearman"]["r"], found_b["spearman"]["r"], drawn_b.spearman - drawn_a.spearman, draws
        ),
        "aurc": _difference(
            found_a["aurc"]["value"], found_b["aurc"]["value"], drawn_b.aurc - drawn_a.aurc, draws
        ),
    }


def _difference(a: float | None, b: float | None, drawn: np.ndarray, draws: _Draws) -> PairedDifference:
    """b - a, of two figures over the same results."""
    n = draws.dc.size
    if a is None or b is None:
        return {"mean": None, "low": None, "high": None, "n": n, "n_missing": 0}
    low, high = interval_95(drawn)
    return {"mean": b - a, "low": low, "high": high, "n": n, "n_missing": 0}
