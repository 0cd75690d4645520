"""What predicts Dice and Hausdorff distance of one structure from signals, with bounds; and its calibration anew."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from qcjax.quality.conformal import LEAST_SUBJECTS, upper_quantile
from qcjax.quality.ridge import Ridge, best_penalty, cross_predicted, subject_weights
from qcjax.quality.scales import logit, share_of

NEAR_MM = 1.0  # added to a distance, so that 0 has a logarithm
LEAST_SPREAD = 0.05  # of a residual, in logits or logarithms
SHRINKAGE = 3.0  # subjects by which the offset of a site is drawn to 0


class Quality(NamedTuple):
    """Predicted measures of n masks of one structure; NaN where the mask lacks it."""

    dice: Float[np.ndarray, " n"]
    dice_low: Float[np.ndarray, " n"]  # at least that, with the promised probability
    hd_mm: Float[np.ndarray, " n"]
    hd_high_mm: Float[np.ndarray, " n"]  # at most that


@dataclass(frozen=True)
class Bounded:
    """A prediction of one transformed measure, its spread, and the residuals, in spreads, that a bound is drawn from.

    A residual is how much worse the measure is than predicted.
    """

    mean: Ridge
    spread: Ridge  # of the logarithm of the absolute residual
    residuals: list[float]  # of the calibration's cases
    owners: list[int]  # the subject of each, by number
    offset: float = 0.0  # of a site's measures to the prediction

    @classmethod
    def fit(
        cls,
        signals: Float[np.ndarray, "n m"],
        worse: Float[np.ndarray, " n"],
        subjects: Sequence[Hashable],
    ) -> "Bounded":
        """A predictor fitted to cases whose measure is known, transformed so that larger is worse.

        Predictions of the residuals are of subjects that were held out, and so are those of their spread, so that the
        bound is calibrated on what the regression hasn't seen.
        """
        weights = subject_weights(subjects)
        predicted = cross_predicted(signals, worse, subjects)
        size = np.log(np.maximum(np.abs(worse - predicted), LEAST_SPREAD))
        spread = _spreads(cross_predicted(signals, size, subjects))
        return cls(
            Ridge.fit(signals, worse, weights, best_penalty(signals, worse, subjects)),
            Ridge.fit(signals, size, weights, best_penalty(signals, size, subjects)),
            ((worse - predicted) / spread).tolist(),
            numbered(subjects).tolist(),
        )

    def predict(
        self, signals: Float[np.ndarray, "n m"], coverage: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Prediction and bound, (n,) each; the bound is the worse one, infinite where too few subjects promise it."""
        allowed = upper_quantile(np.array(self.residuals), self.owners, coverage)
        predicted = self.mean.predict(signals) + self.offset
        return predicted, predicted + allowed * _spreads(self.spread.predict(signals))

    def calibrated(
        self,
        signals: Float[np.ndarray, "n m"],
        worse: Float[np.ndarray, " n"],
        subjects: Sequence[Hashable],
    ) -> "Bounded":
        """The same regression, its offset and bound from a site's own cases.

        The offset that judges a subject is that of the others, as it will be of new ones.
        """
        plain = replace(self, offset=0.0)
        residuals = worse - plain.mean.predict(signals)
        spread = _spreads(plain.spread.predict(signals))
        place = numbered(subjects)
        means = np.bincount(place, residuals) / np.bincount(place)
        n = len(means)
        others = (means.sum() - means) / (n - 1 + SHRINKAGE)
        scaled = (residuals - others[place]) / spread
        offset = float(means.sum() / (n + SHRINKAGE))
        return replace(self, offset=offset, residuals=scaled.tolist(), owners=place.tolist())


@dataclass(frozen=True)
class QualityPredictor:
    """What predicts the quality of masks of one structure from signals, in the order of `names`."""

    names: tuple[str, ...]
    dice: Bounded
    hd: Bounded
    subjects: int  # of the calibration

    @classmethod
    def fit(
        cls,
        signals: Mapping[str, Float[np.ndarray, " n"]],
        dice: Float[np.ndarray, " n"],
        hd_mm: Float[np.ndarray, " n"],
        subjects: Sequence[Hashable],
    ) -> "QualityPredictor":
        """A predictor fitted to masks of known quality, of subjects that the segmenter hasn't seen.

        Masks without a distance, where mask or truth lacks the structure, don't count: an absence is a case of its own.

        Args:
          signals: name -> values, NaN where a case has none.

        Raises:
          ValueError: fewer than 9 subjects, Dice outside of [0, 1], or lengths that differ.
        """
        table = _table(signals, tuple(signals))
        rows, kept = _usable(table, dice, hd_mm, subjects)
        of_dice = Bounded.fit(table[rows], -logit(dice[rows]), kept)
        of_hd = Bounded.fit(table[rows], np.log(hd_mm[rows] + NEAR_MM), kept)
        return cls(tuple(signals), of_dice, of_hd, len(set(kept)))

    def predict(
        self,
        signals: Mapping[str, Float[np.ndarray, " n"]],
        absent: Sequence[bool] | Bool[np.ndarray, " n"] = (),
        coverage: float = 0.9,
    ) -> Quality:
        """Predicted measures of n masks.

        Args:
          signals: name -> values; more than are needed are fine.
          absent: which masks lack the structure; none by default.
          coverage: the probability with which each bound holds; where too few subjects can promise it, Dice is bound by
            0 and the distance by infinity.

        Raises:
          ValueError: a signal is missing that it was fitted to.
        """
        lacking = [name for name in self.names if name not in signals]
        if lacking:
            raise ValueError(f"signals: {', '.join(lacking)} not found, expected {', '.join(self.names)}")
        table = _table(signals, self.names)
        gone = np.zeros(len(table), bool) if len(absent) == 0 else np.asarray(absent, bool)
        of_dice, of_hd = self.dice.predict(table, coverage), self.hd.predict(table, coverage)
        found = (*(share_of(-x) for x in of_dice), *(np.maximum(np.exp(x) - NEAR_MM, 0) for x in of_hd))
        return Quality(*(np.where(gone, np.nan, x) for x in found))

    def calibrated(
        self,
        signals: Mapping[str, Float[np.ndarray, " n"]],
        dice: Float[np.ndarray, " n"],
        hd_mm: Float[np.ndarray, " n"],
        subjects: Sequence[Hashable],
    ) -> "QualityPredictor":
        """The same, its offsets and bounds calibrated on a site's own cases of known quality.

        Raises:
          ValueError: as for `fit`.
        """
        table = _table(signals, self.names)
        rows, kept = _usable(table, dice, hd_mm, subjects)
        return replace(
            self,
            dice=self.dice.calibrated(table[rows], -logit(dice[rows]), kept),
            hd=self.hd.calibrated(table[rows], np.log(hd_mm[rows] + NEAR_MM), kept),
            subjects=len(set(kept)),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "QualityPredictor":
        """The inverse of `to_json`."""

        def bounded(v: Mapping[str, Any]) -> Bounded:
            ridges = Ridge(**v["mean"]), Ridge(**v["spread"])
            return Bounded(*ridges, list(v["residuals"]), list(v["owners"]), v["offset"])

        return cls(
            tuple(values["names"]),
            bounded(values["dice"]),
            bounded(values["hd"]),
            values["subjects"],
        )


def numbered(subjects: Sequence[Hashable]) -> Integer[np.ndarray, " n"]:
    """The subject of each case as a number, (n,), counted from 0 in the order of their first cases."""
    of_subject = {s: i for i, s in enumerate(dict.fromkeys(subjects))}
    return np.array([of_subject[s] for s in subjects], np.intp)


def _spreads(log_size: np.ndarray) -> np.ndarray:
    return np.maximum(np.exp(log_size), LEAST_SPREAD)


def _table(signals: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    return np.stack([np.asarray(signals[name], np.float64) for name in names], axis=1)


def _usable(
    table: np.ndarray, dice: np.ndarray, hd_mm: np.ndarray, subjects: Sequence[Hashable]
) -> tuple[np.ndarray, list[Hashable]]:
    """Which masks count, (n,) bool, and the subjects of those."""
    if not len(table) == len(dice) == len(hd_mm) == len(subjects):
        raise ValueError(
            f"signals of {len(table)} masks, {len(dice)} Dice, {len(hd_mm)} distances, {len(subjects)} subjects found, "
            "expected as many of each"
        )
    if ((dice < 0) | (dice > 1)).any():
        raise ValueError(f"dice: {np.nanmin(dice)} to {np.nanmax(dice)} found, expected values in [0, 1]")
    rows = np.isfinite(dice) & np.isfinite(hd_mm)
    kept = [s for s, r in zip(subjects, rows, strict=True) if r]
    if len(set(kept)) < LEAST_SUBJECTS:
        raise ValueError(
            f"{len(set(kept))} subjects with masks of known quality found, expected at least {LEAST_SUBJECTS}"
        )
    return rows, kept
