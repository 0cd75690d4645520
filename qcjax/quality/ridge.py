"""Ridge regression of a few signals on a measure of quality: no signal, row or subject counts for too much."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
CLIP = 5.0  # spreads: a signal farther out than that tells no more
FOLDS = 10


@dataclass(frozen=True)
class Ridge:
    """A linear prediction from signals; plain lists, for a file."""

    centre: list[float]  # median of each signal
    scale: list[float]
    weights: list[float]
    intercept: float
    penalty: float

    @classmethod
    def fit(
        cls,
        signals: Float[np.ndarray, "n m"],
        target: Float[np.ndarray, " n"],
        weights: Float[np.ndarray, " n"],
        penalty: float,
    ) -> "Ridge":
        """The least weighted squares with `penalty` on the standardised signals' weights; a NaN signal is its median.

        Args:
          weights: of the rows; those of a subject share what one counts for.

        Raises:
          ValueError: no row, or a target that isn't finite.
        """
        return _fit(signals, target, weights, (penalty,))[0]

    def predict(self, signals: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
        """The predicted measure of each row; a NaN signal counts as its median.

        Raises:
          ValueError: another number of signals than it was fitted to.
        """
        if signals.shape[1] != len(self.weights):
            raise ValueError(f"signals: {signals.shape[1]} found, expected {len(self.weights)}")
        x = _standardised(signals, np.array(self.centre), np.array(self.scale))
        return x @ np.array(self.weights) + self.intercept


def by_subject(subjects: Sequence[Hashable], folds: int = FOLDS) -> Iterator[Bool[np.ndarray, " n"]]:
    """The rows that each fold holds out, (n,) bool: all of a subject's together, subjects dealt in their order."""
    names = list(dict.fromkeys(subjects))
    places = {name: i % min(folds, len(names)) for i, name in enumerate(names)}
    of_row = np.array([places[s] for s in subjects], np.intp)
    for fold in range(min(folds, len(names))):
        yield of_row == fold


def subject_weights(subjects: Sequence[Hashable]) -> Float[np.ndarray, " n"]:
    """Weights of rows, (n,): those of every subject sum to 1."""
    counts: dict[Hashable, int] = {}
    for subject in subjects:
        counts[subject] = counts.get(subject, 0) + 1
    return np.array([1 / counts[s] for s in subjects])


def cross_predicted(
    signals: Float[np.ndarray, "n m"],
    target: Float[np.ndarray, " n"],
    subjects: Sequence[Hashable],
    penalty: float | None = None,
) -> Float[np.ndarray, " n"]:
    """Each row predicted by a ridge that hasn't seen its subject; without a penalty each chooses its own, within.

    Raises:
      ValueError: fewer than two subjects.
    """
    if len(set(subjects)) < 2:
        raise ValueError(f"{len(set(subjects))} subjects found, expected at least two to hold one out")
    found = np.empty(len(target))
    for out in by_subject(subjects):
        kept = [s for s, o in zip(subjects, out, strict=True) if not o]
        chosen = best_penalty(signals[~out], target[~out], kept) if penalty is None else penalty
        ridge = Ridge.fit(signals[~out], target[~out], subject_weights(kept), chosen)
        found[out] = ridge.predict(signals[out])
    return found


def best_penalty(
    signals: Float[np.ndarray, "n m"], target: Float[np.ndarray, " n"], subjects: Sequence[Hashable]
) -> float:
    """The penalty of the least squared error on subjects that were held out; the largest where there is but one."""
    if len(set(subjects)) < 2:
        return PENALTIES[-1]
    errors = np.zeros(len(PENALTIES))
    weights = subject_weights(subjects)
    for out in by_subject(subjects):
        kept = [s for s, o in zip(subjects, out, strict=True) if not o]
        ridges = _fit(signals[~out], target[~out], subject_weights(kept), PENALTIES)
        missed = np.stack([ridge.predict(signals[out]) for ridge in ridges]) - target[out]
        errors += np.square(missed) @ weights[out]
    return PENALTIES[int(np.argmin(errors))]


def _fit(
    signals: np.ndarray, target: np.ndarray, weights: np.ndarray, penalties: Sequence[float]
) -> list[Ridge]:
    """A ridge for each penalty, from one decomposition of what they share."""
    if not len(target) or not np.isfinite(target).all():
        raise ValueError(f"{len(target)} targets found, expected at least one, all finite")
    told = np.isfinite(signals).any(axis=0)
    filled = np.where(told, signals, 0.0)
    centre, spread = np.nanmedian(filled, axis=0), np.nanstd(filled, axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    x = _standardised(signals, centre, scale)
    w = weights / weights.sum()
    x_mean, y_mean = w @ x, float(w @ target)
    x0 = x - x_mean
    values, vectors = np.linalg.eigh((x0 * w[:, None]).T @ x0)
    along = vectors.T @ ((x0 * w[:, None]).T @ (target - y_mean))
    found = []
    for penalty in penalties:
        damped = np.maximum(values, 0) + penalty / len(target)
        beta = vectors @ np.divide(along, damped, out=np.zeros_like(along), where=damped > 1e-12)
        intercept = y_mean - float(x_mean @ beta)
        found.append(Ridge(centre.tolist(), scale.tolist(), beta.tolist(), intercept, float(penalty)))
    return found


def _standardised(signals: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    x = np.nan_to_num((signals - centre) / scale, nan=0.0, posinf=CLIP, neginf=-CLIP)
    return np.clip(x, -CLIP, CLIP)
