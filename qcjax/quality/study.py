"""How well quality is predicted, on cases whose truth is known: each signal, and ways to combine them.

Within structures, then averaged: a signal that tells hard structures from easy ones tells nothing of a case.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from qcjax.metrics.selective import augrc, excess_aurc
from qcjax.metrics.statistics import bootstrap_weights, interval_95
from qcjax.quality.check import Row, expected, rows_of
from qcjax.quality.model import COVERAGE, Estimate, Kind, KnownCase, QualityModel, values_of
from qcjax.quality.ridge import Ridge, best_penalty, subject_weights
from qcjax.quality.scales import logit

# of the signals that are judged by themselves: 1 where more is better
SIGNS = {
    "pdc": 1,
    "phd": -1,
    "suspicion": -1,
    "slice_difference": -1,
    "valley": -1,
    "alone": -1,
    "gaps": -1,
    "confidence": 1,
    "entropy": -1,
    "worst_slice": -1,
}
RESAMPLES = 1000
Fit = Callable[[np.ndarray, np.ndarray, Sequence[Hashable]], Callable[[np.ndarray], np.ndarray]]


class Ranking(NamedTuple):
    """How well a score ranks masks within each structure, averaged over the structures, with 95 % intervals."""

    excess: float  # AURC of the risk 1 − Dice less that of the ideal ranking
    low: float
    high: float
    by_structure: list[float]  # excess
    augrc: float
    difference: float  # of the excess to the reference's; 0 for the reference itself
    difference_low: float
    difference_high: float


def dealt(
    groups: Sequence[Hashable], folds: int | None = None, seed: int = 0
) -> list[Bool[np.ndarray, " n"]]:
    """The rows that each fold holds out, (n,) bool: groups dealt at random, or with None each group by itself."""
    names = sorted(set(groups), key=str)
    order = np.random.default_rng(seed).permutation(len(names))
    count = len(names) if folds is None else min(folds, len(names))
    fold = {names[i]: place % count for place, i in enumerate(order.tolist())}
    of_row = np.array([fold[g] for g in groups])
    return [of_row == f for f in range(count)]


def held_out_estimates(
    cases: Sequence[KnownCase],
    structures: Sequence[str],
    kind: Kind,
    folds: Sequence[Bool[np.ndarray, " n"]],
    coverage: float = COVERAGE,
) -> list[dict[str, Estimate]]:
    """What quality models expect of cases of which they haven't seen the fold; all they choose, they choose within."""
    found: list[dict[str, Estimate]] = [{}] * len(cases)
    for out in folds:
        model = QualityModel.fit([c for c, o in zip(cases, out, strict=True) if not o], structures)
        if model is None:
            raise ValueError("cases: too few subjects found to hold some out, expected at least 10")
        own = np.flatnonzero(out).tolist()
        estimates = expected(model, [cases[i] for i in own], kind, coverage)
        for i, estimate in zip(own, estimates, strict=True):
            found[i] = estimate
    return found


def combined(
    cases: Sequence[KnownCase], names: Sequence[str], folds: Sequence[Bool[np.ndarray, " n"]], fit: Fit
) -> Float[np.ndarray, "n k"]:
    """Logits of Dice that a way to combine signals predicts of cases of which it hasn't seen the fold.

    Args:
      fit: of signals (n, m), logits of Dice (n,) and the subject of each -> what predicts the latter from the former.
    """
    dice = values_of([case.dice for case in cases])
    found = np.full(dice.shape, np.nan)
    for i in range(dice.shape[1]):
        table = np.stack([values_of([case.signals[n] for case in cases])[:, i] for n in names], axis=1)
        usable = np.isfinite(dice[:, i]) & np.isfinite(values_of([case.hd_mm for case in cases])[:, i])
        for out in folds:
            learn, judge = usable & ~out, usable & out
            subjects = [c.subject for c, chosen in zip(cases, learn, strict=True) if chosen]
            predict = fit(table[learn], logit(dice[learn, i]), subjects)
            if judge.any():
                found[judge, i] = predict(table[judge])
    return found


def ridge(
    signals: Float[np.ndarray, "n m"], target: Float[np.ndarray, " n"], subjects: Sequence[Hashable]
) -> Any:
    """A `Fit`: ridge regression, its penalty chosen on held-out subjects."""
    penalty = best_penalty(signals, target, subjects)
    return Ridge.fit(signals, target, subject_weights(subjects), penalty).predict


def boosting(
    signals: Float[np.ndarray, "n m"], target: Float[np.ndarray, " n"], subjects: Sequence[Hashable]
) -> Any:
    """A `Fit`: small boosted trees of scikit-learn."""
    from sklearn.ensemble import GradientBoostingRegressor

    trees = GradientBoostingRegressor(
        n_estimators=150, max_depth=2, learning_rate=0.05, subsample=0.7, min_samples_leaf=8, random_state=0
    )
    trees.fit(np.nan_to_num(signals), target, sample_weight=subject_weights(subjects))
    return lambda x: trees.predict(np.nan_to_num(x))


def rankings(
    scores: Mapping[str, Float[np.ndarray, "n k"]],
    dice: Float[np.ndarray, "n k"],
    subjects: Sequence[Hashable],
    reference: str,
    seed: int = 0,
) -> dict[str, Ranking]:
    """How well scores rank masks, each compared with a reference on the same bootstrap samples of subjects.

    Args:
      scores: name -> (n, k), higher is better; NaN is the worst.
      dice: (n, k); NaN where there is no truth.
    """
    names = list(dict.fromkeys(subjects))
    rows = [np.flatnonzero([s == name for s in subjects]) for name in names]
    draws = [np.arange(len(subjects))]
    for weights in bootstrap_weights(len(names), RESAMPLES, seed).astype(int):
        draws.append(np.concatenate([np.tile(r, w) for r, w in zip(rows, weights, strict=True) if w]))
    drawn = {name: np.array([_excess(score, dice, draw) for draw in draws]) for name, score in scores.items()}
    found = {}
    for name, excess in drawn.items():
        difference = excess.mean(1) - drawn[reference].mean(1)
        low, high = interval_95(excess[1:].mean(1))
        below, above = interval_95(difference[1:])
        found[name] = Ranking(
            float(excess[0].mean()),
            _number(low),
            _number(high),
            excess[0].tolist(),
            float(np.mean([_augrc(scores[name][:, i], dice[:, i]) for i in range(dice.shape[1])])),
            float(difference[0]),
            _number(below),
            _number(above),
        )
    return found


def calibration_draws(
    model: QualityModel, cases: Sequence[KnownCase], kind: Kind, subjects: int, draws: int, seed: int = 0
) -> list[list[Row]]:
    """What a model is worth on a site's other cases after calibration on so many subjects, drawn several times."""
    names = np.array(sorted({case.subject for case in cases}))
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        chosen = set(rng.permutation(names)[:subjects].tolist())
        here = model.calibrated([c for c in cases if c.subject in chosen], kind)
        others = [c for c in cases if c.subject not in chosen]
        found.append(rows_of(expected(here, others, kind), others, model.structures, True))
    return found


def _excess(score: np.ndarray, dice: np.ndarray, draw: np.ndarray) -> list[float]:
    found = []
    for i in range(dice.shape[1]):
        s, d = score[draw, i], dice[draw, i]
        known = np.isfinite(d)
        found.append(excess_aurc(_filled(s[known]), 1 - d[known]))
    return found


def _augrc(score: np.ndarray, dice: np.ndarray) -> float:
    known = np.isfinite(dice)
    return augrc(_filled(score[known]), 1 - dice[known])


def _filled(score: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(score), -np.inf, score)


def _number(value: float | None) -> float:
    return np.nan if value is None else value
