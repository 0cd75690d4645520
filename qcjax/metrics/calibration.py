"""Do probabilities mean what they say? Brier score, reliability and expected calibration error, on the host.

A voxel is one forecast. The probability of a region is the sum of those of its classes. Every function takes
an optional mask of the voxels that count; where none counts, a mean is NaN.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy import special

BINS = 15  # as Guo et al. have it
_TOLERANCE = 1e-4  # sums of rounded probabilities may leave [0, 1] by this much


class Reliability(NamedTuple):
    """Sums over the forecasts in each of m equally wide bins of [0, 1]; those of several cases add up."""

    confidence: Float[np.ndarray, " m"]  # sum of the forecast probabilities
    frequency: Float[np.ndarray, " m"]  # number of forecasts that came true
    count: Int[np.ndarray, " m"]  # type: ignore[assignment] # number of forecasts


def region_probability(
    probabilities: Float[np.ndarray, "*space k"], ids: Collection[int]
) -> Float[np.ndarray, "*space"]:
    """Probability that a voxel belongs to a region, the union of classes.

    Args:
      probabilities: of k exclusive classes.
      ids: indices of the region's classes, 0 … k - 1.

    Raises:
      ValueError: no class, or one that comes twice or isn't among the k.
    """
    k = probabilities.shape[-1]
    if not ids or len(set(ids)) != len(ids) or not all(0 <= i < k for i in ids):
        raise ValueError(f"ids: {list(ids)} found, expected distinct classes of 0 to {k - 1}")
    member = np.zeros(k, probabilities.dtype)
    member[list(ids)] = 1
    return probabilities @ member  # one pass, many times as fast as a sum of strided channels


def check_probabilities(p: Float[np.ndarray, "*space"]) -> None:
    """Whether values are probabilities, but for rounding.

    Raises:
      ValueError: NaN, or values outside [0, 1].
    """
    if p.size and not (p.min() >= -_TOLERANCE and p.max() <= 1 + _TOLERANCE):  # false for NaN too
        raise ValueError(f"probabilities: {p.min()} to {p.max()} found, expected values in [0, 1]")


def brier(
    probability: Float[np.ndarray, "*space"],
    truth: Bool[np.ndarray, "*space"],
    mask: Bool[np.ndarray, "*space"] | None = None,
) -> float:
    """Brier score of a binary region: mean squared difference of probability and truth, 0 (best) to 1.

    Half of what Brier's own formula gives, which sums over the region and its complement (Brier, Monthly
    Weather Review 78, 1950).

    Args:
      probability: of the region.
      truth: whether a voxel belongs to it.
      mask: the voxels to average over; None takes all.

    Raises:
      ValueError: shapes differ, or probabilities outside [0, 1] or NaN.
    """
    p, t = _chosen(probability, truth, mask)
    return float(np.square(p - t).mean(dtype=np.float64)) if p.size else np.nan


def multiclass_brier(
    probabilities: Float[np.ndarray, "*space k"],
    truth: Integer[np.ndarray, "*space"],
    mask: Bool[np.ndarray, "*space"] | None = None,
) -> float:
    """Brier score over all classes: mean over voxels of Σ_k (p_k - 1[truth = k])², 0 (best) to 2 (Brier 1950).

    Args:
      probabilities: of k classes.
      truth: the class of every voxel, 0 … k - 1.
      mask: the voxels to average over; None takes all.

    Raises:
      ValueError: shapes differ, probabilities outside [0, 1] or NaN, or labels that aren't classes.
    """
    p, t = _chosen_classes(probabilities, truth, mask)
    if not len(p):
        return np.nan
    of_truth = np.take_along_axis(p, t[:, None], axis=1)[:, 0]
    # Σ (p_k - y_k)² = Σ p_k² - 2 p_truth + 1
    return float(np.einsum("nk,nk->n", p, p).mean(dtype=np.float64) - 2 * of_truth.mean(dtype=np.float64) + 1)


def reliability(
    probability: Float[np.ndarray, "*space"],
    truth: Bool[np.ndarray, "*space"],
    mask: Bool[np.ndarray, "*space"] | None = None,
    bins: int = BINS,
) -> Reliability:
    """The reliability diagram of a binary region: how often it is there, by its forecast probability.

    Bin i of m is ((i - 1) / m, i / m]; a probability of 0 belongs to the first (Guo et al., ICML 2017).

    Args:
      probability: of the region.
      truth: whether a voxel belongs to it.
      mask: the voxels that count; None takes all.
      bins: number of bins m.

    Raises:
      ValueError: shapes differ, probabilities outside [0, 1] or NaN, or no bin.
    """
    return _binned(*_chosen(probability, truth, mask), bins)


def top_label_reliability(
    probabilities: Float[np.ndarray, "*space k"],
    truth: Integer[np.ndarray, "*space"],
    mask: Bool[np.ndarray, "*space"] | None = None,
    bins: int = BINS,
) -> Reliability:
    """Accuracy of the most probable class by its probability, the confidence (Guo et al., ICML 2017).

    Args:
      probabilities: of k classes; of several equally probable ones the first is taken.
      truth: the class of every voxel, 0 … k - 1.
      mask, bins: as for `reliability`.

    Raises:
      ValueError: as for `multiclass_brier`, or no bin.
    """
    p, t = _chosen_classes(probabilities, truth, mask)
    return _binned(p.max(axis=1), p.argmax(axis=1) == t, bins)


def pooled(cases: Iterable[Reliability]) -> Reliability:
    """The reliability of the forecasts of several cases together.

    Raises:
      ValueError: no case, or different numbers of bins.
    """
    every = list(cases)
    sizes = sorted({case.count.size for case in every})
    if len(sizes) != 1:
        raise ValueError(f"{len(every)} cases with {sizes} bins found, expected at least one, of equal bins")
    first, second, third = (np.sum(column, axis=0) for column in zip(*every, strict=True))
    return Reliability(first, second, third)


def expected_calibration_error(found: Reliability) -> float:
    """ECE = Σ_m (n_m / n) |frequency in bin m - mean probability in bin m|, 0 (best) to 1; NaN for no forecast.

    Of a binary region's reliability it is Naeini et al.'s (AAAI 2015), of the top label's Guo et al.'s
    (ICML 2017). Where most voxels are certain background it is small whatever happens at the borders: compare
    it between models on the same voxels only.
    """
    n = int(found.count.sum())
    return float(np.abs(found.frequency - found.confidence).sum() / n) if n else np.nan


def mean_entropy(
    probabilities: Float[np.ndarray, "*space k"], mask: Bool[np.ndarray, "*space"] | None = None
) -> float:
    """Mean predictive entropy -Σ_k p_k ln p_k in nats, 0 (every voxel certain) to ln k (Shannon 1948).

    Raises:
      ValueError: shapes differ, or probabilities outside [0, 1] or NaN.
    """
    p = _chosen_rows(probabilities, mask)
    return float(special.entr(p).sum(axis=1).mean(dtype=np.float64)) if len(p) else np.nan


def _binned(confidence: np.ndarray, came_true: np.ndarray, bins: int) -> Reliability:
    if bins < 1:
        raise ValueError(f"bins: {bins} found, expected at least 1")
    index = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    return Reliability(
        confidence=np.bincount(index, weights=confidence, minlength=bins),
        frequency=np.bincount(index[came_true], minlength=bins).astype(np.float64),
        count=np.bincount(index, minlength=bins),
    )


def _chosen(
    probability: np.ndarray, truth: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and truth of the voxels that count, one axis each."""
    if truth.shape != probability.shape:
        raise ValueError(
            f"probability, truth: shapes {probability.shape} and {truth.shape} found, expected the same"
        )
    if truth.dtype != np.bool_:
        raise ValueError(f"truth: dtype {truth.dtype} found, expected bool")
    p = _chosen_rows(probability[..., None], mask)[:, 0]
    return p, truth.reshape(-1) if mask is None else truth[mask]


def _chosen_classes(
    probabilities: np.ndarray, truth: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) probabilities and (n,) classes of the voxels that count."""
    *space, k = probabilities.shape
    if truth.shape != tuple(space):
        raise ValueError(
            f"probabilities, truth: shapes {probabilities.shape} and {truth.shape} found, expected those of"
            " one grid, classes last"
        )
    p = _chosen_rows(probabilities, mask)
    t = (truth.reshape(-1) if mask is None else truth[mask]).astype(np.intp)
    if t.size and not (t.min() >= 0 and t.max() < k):
        raise ValueError(f"truth: labels {t.min()} to {t.max()} found, expected classes 0 to {k - 1}")
    return p, t


def _chosen_rows(probabilities: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """(n, k) probabilities of the voxels that count, clipped to [0, 1]."""
    *space, k = probabilities.shape
    if mask is not None and (mask.shape != tuple(space) or mask.dtype != np.bool_):
        raise ValueError(
            f"mask: {mask.dtype} of shape {mask.shape} found, expected bool of shape {tuple(space)}"
        )
    p = probabilities.reshape(-1, k) if mask is None else probabilities[mask]
    check_probabilities(p)
    return np.clip(p, 0, 1)
