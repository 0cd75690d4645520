"""How well a score tells bad results from good ones: risk against coverage, ROC, flags and their limits.

Every function takes one value per result, in the same order. Scores may be infinite (a structure is absent);
NaN is refused, because whether an undefined score is the worst or none at all is the caller's decision.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import stats

FAILURE_DC = 0.7  # a Dice coefficient below it is a failure

Vector = Sequence[Any] | Shaped[np.ndarray, "..."]


class RiskCoverage(NamedTuple):
    """The curve of selective prediction."""

    coverage: Float[np.ndarray, " n"]  # share of the results that are accepted: 1/n … 1
    risk: Float[np.ndarray, " n"]  # mean loss of those


class FlagCounts(NamedTuple):
    """What flags do to results of which some are failures."""

    caught: int  # failures that are flagged
    missed: int  # failures that aren't
    false_alarms: int  # flagged, yet no failures
    correctly_passed: int


class FlagCurve(NamedTuple):
    """The same for each of m limits."""

    caught: Int[np.ndarray, " m"]
    missed: Int[np.ndarray, " m"]
    false_alarms: Int[np.ndarray, " m"]
    correctly_passed: Int[np.ndarray, " m"]


def failure_loss(dc: Vector, limit: float = FAILURE_DC) -> Float[np.ndarray, " n"]:
    """The loss that counts failures: 1 where a Dice coefficient is below the limit, else 0.

    Raises:
      ValueError: a NaN among them.
    """
    return (_scores(dc, "dc") < limit).astype(np.float64)


def graded_loss(dc: Vector) -> Float[np.ndarray, " n"]:
    """The loss that counts how bad a result is: 1 - Dice.

    Raises:
      ValueError: a NaN among them.
    """
    return 1 - _scores(dc, "dc")


def risk_coverage(confidence: Vector, loss: Vector) -> RiskCoverage:
    """Mean loss of the i most confident results, for i = 1 … n (Geifman & El-Yaniv, NeurIPS 2017).

    Results of equal confidence come in any order alike: the risk is its expectation over a random one.

    Args:
      confidence: (n,) higher is better; may be infinite.
      loss: (n,) finite, such as from `failure_loss` or `graded_loss`.

    Returns:
      (n,) coverage i / n and (n,) risk.

    Raises:
      ValueError: no result, unequal lengths, a NaN, or an infinite loss.
    """
    sure, cost = _scores(confidence, "confidence"), _scores(loss, "loss")
    if sure.size != cost.size or not sure.size:
        raise ValueError(
            f"{sure.size} confidences and {cost.size} losses found, expected pairs, at least one"
        )
    if not np.isfinite(cost).all():
        raise ValueError("loss: an infinite value found, expected finite ones")
    levels, tie, sizes = np.unique(sure, return_inverse=True, return_counts=True)
    mean_of_tie = np.bincount(tie, weights=cost, minlength=levels.size) / sizes
    expected = np.repeat(mean_of_tie[::-1], sizes[::-1])  # the most confident first
    accepted = np.arange(1, sure.size + 1)
    return RiskCoverage(accepted / sure.size, np.cumsum(expected) / accepted)


def aurc(confidence: Vector, loss: Vector) -> float:
    """Area under the risk-coverage curve: the mean of the risk over all n coverages; lower is better.

    Raises:
      ValueError: as for `risk_coverage`.
    """
    return float(risk_coverage(confidence, loss).risk.mean())


def excess_aurc(confidence: Vector, loss: Vector) -> float:
    """`aurc` less that of the ideal ranking, which accepts results by rising loss; 0 is perfect.

    Raises:
      ValueError: as for `risk_coverage`.
    """
    return aurc(confidence, loss) - aurc(-_scores(loss, "loss"), loss)


def augrc(confidence: Vector, loss: Vector) -> float:
    """Area under the generalised risk-coverage curve: the mean over all coverages of the loss accepted, of all results.

    The loss of accepted results is divided by the number of all, so that it is the chance that a result is accepted and
    bad (Traub et al., NeurIPS 2024); lower is better.

    Raises:
      ValueError: as for `risk_coverage`.
    """
    found = risk_coverage(confidence, loss)
    return float((found.risk * found.coverage).mean())


def roc_auc(score_damaged: Vector, score_intact: Vector) -> float:
    """Probability that a damaged result scores higher than an intact one, ties counted half (Mann-Whitney).

    Args:
      score_damaged: (m,) higher is worse; may be infinite.
      score_intact: (n,).

    Returns:
      The area under the ROC curve, 0 … 1; 1/2 where the score knows nothing.

    Raises:
      ValueError: no score on either side, or a NaN.
    """
    damaged, intact = _two_sides(score_damaged, score_intact)
    ranks = stats.rankdata(np.concatenate((damaged, intact)))
    wins = ranks[: damaged.size].sum() - damaged.size * (damaged.size + 1) / 2
    return float(wins / (damaged.size * intact.size))


def alarm_threshold(score_intact: Vector, false_alarms: float = 0.02) -> float:
    """The smallest threshold that at most this share of intact results lies strictly above.

    Args:
      score_intact: (n,) higher is worse; may be infinite.
      false_alarms: share in [0, 1).

    Returns:
      One of the scores: the (1 + floor(false_alarms · n))-th largest. Infinite where more intact results
      than allowed score infinite: nothing lies above it then.

    Raises:
      ValueError: no score, a NaN, or a share outside [0, 1).
    """
    intact = _scores(score_intact, "score_intact")
    if not intact.size:
        raise ValueError("score_intact: no score found, expected at least one")
    if not 0 <= false_alarms < 1:
        raise ValueError(f"false_alarms: {false_alarms} found, expected a share in [0, 1)")
    allowed = int(false_alarms * intact.size + 1e-9)  # 0.29 · 100 is a little below 29
    return float(np.sort(intact)[-1 - allowed])


def detection_rate(score_damaged: Vector, score_intact: Vector, false_alarms: float = 0.02) -> float:
    """Share of damaged results found at a given share of false alarms.

    Found is what scores strictly above the `alarm_threshold` of the intact results.

    Args:
      score_damaged: (m,) higher is worse; may be infinite.
      score_intact: (n,).
      false_alarms: share of the intact results that may be above the threshold, in [0, 1).

    Raises:
      ValueError: no score on either side, a NaN, or a share outside [0, 1).
    """
    damaged, intact = _two_sides(score_damaged, score_intact)
    return float(np.mean(damaged > alarm_threshold(intact, false_alarms)))


def flag_counts(flagged: Vector, failed: Vector) -> FlagCounts:
    """Failures that flags catch and miss, and what they flag and pass beside them.

    Args:
      flagged, failed: (n,) truth values.

    Raises:
      ValueError: unequal lengths, or values other than 0 and 1.
    """
    f, bad = _truths(flagged, "flagged"), _truths(failed, "failed")
    if f.size != bad.size:
        raise ValueError(f"flagged, failed: {f.size} and {bad.size} values found, expected pairs")
    return FlagCounts(*(int(np.count_nonzero(x)) for x in (f & bad, ~f & bad, f & ~bad, ~f & ~bad)))


def flag_curve(
    pdc: Vector,
    phd_mm: Vector,
    failed: Vector,
    dc_limits: float | Vector = 0.5,
    hd_limits_mm: float | Vector = 50.0,
) -> FlagCurve:
    """How the flags of the monitoring paper depend on their limits (Galati & Zuluaga, FIMH 2021).

    Flagged is pDC below its limit or pHD above its own, and whatever has no pHD: a structure is absent. To
    vary one limit give several values of it and one of the other.

    Args:
      pdc, phd_mm: (n,) pseudo Dice and pseudo Hausdorff distance in mm. For whole cases: the smallest and
        the largest over their structures, infinite where one is absent.
      failed: (n,) truth values.
      dc_limits, hd_limits_mm: m limits each, or one.

    Returns:
      (m,) counts each.

    Raises:
      ValueError: unequal lengths, a pDC or a limit of NaN, or limits that don't go together.
    """
    dc, bad = _scores(pdc, "pdc"), _truths(failed, "failed")
    hd = np.asarray(phd_mm, np.float64)
    if not dc.shape == hd.shape == bad.shape:
        raise ValueError(
            f"pdc, phd_mm, failed: shapes {dc.shape}, {hd.shape}, {bad.shape} found, expected one"
        )
    low = _scores(np.atleast_1d(dc_limits), "dc_limits")
    up = _scores(np.atleast_1d(hd_limits_mm), "hd_limits_mm")
    if low.size != up.size and 1 not in (low.size, up.size):
        raise ValueError(f"{low.size} and {up.size} limits found, expected as many, or one of either")
    flagged = (dc < low[:, None]) | ~(hd <= up[:, None]) | ~np.isfinite(hd)
    counts = (flagged & bad, ~flagged & bad, flagged & ~bad, ~flagged & ~bad)
    return FlagCurve(*(np.count_nonzero(x, axis=1) for x in counts))


def _two_sides(score_damaged: Vector, score_intact: Vector) -> tuple[np.ndarray, np.ndarray]:
    damaged, intact = _scores(score_damaged, "score_damaged"), _scores(score_intact, "score_intact")
    if not (damaged.size and intact.size):
        raise ValueError(
            f"{damaged.size} damaged and {intact.size} intact scores found, expected at least one of each"
        )
    return damaged, intact


def _scores(values: Vector, name: str) -> np.ndarray:
    vector = np.asarray(values, np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name}: shape {vector.shape} found, expected one axis")
    if np.isnan(vector).any():
        raise ValueError(f"{name}: {np.isnan(vector).sum()} NaN of {vector.size} found, expected none")
    return vector


def _truths(values: Vector, name: str) -> np.ndarray:
    vector = _scores(values, name)
    if not np.isin(vector, (0, 1)).all():
        raise ValueError(f"{name}: values other than 0 and 1 found, expected truth values")
    return vector == 1
