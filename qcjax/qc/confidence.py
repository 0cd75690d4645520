"""What a segmenter's probabilities tell of its mask: soft Dice confidence, temperature, entropy, the uncertain band.

Arrays in, arrays out; on the host, for one case at a time, but for `confidence_sums`, which a device can take of each
of several networks while their probabilities are there. Nothing here needs the truth but `fit_temperature`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer
from scipy.ndimage import distance_transform_edt
from scipy.optimize import minimize_scalar

from qcjax.labels import CARDIAC, Structure
from qcjax.metrics.surface import Spacing, positive_spacing

TEMPERATURES = (0.1, 10.0)  # beyond which a temperature would hide that the model knows nothing
BAND = (0.1, 0.9)  # probabilities between which a voxel is uncertain
_TINY = 1e-12


def soft_dice_confidence(
    probabilities: Float[np.ndarray, "*space c"], structures: Sequence[Structure] = CARDIAC
) -> Float[np.ndarray, " k"]:
    """The Dice that a mask would have were its own probabilities true, per structure (Borges et al. 2024).

    2 Σ p ŷ / (Σ p + Σ ŷ) with the structure's probability p and its mask ŷ, the most likely class. No training.

    Args:
      probabilities: of the classes 0 … c − 1 at each voxel.
      structures: the k structures, whose ids are classes.

    Returns:
      (k,) in [0, 1]; 0 where the mask has nothing of the structure: that it is missing is no sign that it should be.
    """
    predicted = probabilities.argmax(-1)
    found = np.zeros(len(structures))
    for i, structure in enumerate(structures):
        p = probabilities[..., structure.id]
        inside = predicted == structure.id
        size = np.count_nonzero(inside)
        if size:
            found[i] = 2 * float(p[inside].sum(dtype=np.float64)) / (float(p.sum(dtype=np.float64)) + size)
    return found


class ConfidenceSums(NamedTuple):
    """Sums over the pixels of slices, for every class but the background; each (..., k) float32."""

    probable: Any  # Σ p
    inside: Any  # Σ ŷ, of the most likely class
    common: Any  # Σ p ŷ
    entropy: Any  # Σ H ŷ, in nats


def confidence_sums(probabilities: Any) -> ConfidenceSums:
    """What a slice's confidence is made of, (..., h, w, 1 + k) -> sums of (..., k); of NumPy's arrays or JAX's alike.

    Sums of slices make those of a stack, and few numbers of each network take no memory.
    """
    p = probabilities.astype(np.float32)
    xp = p.__array_namespace__()
    classes = xp.arange(p.shape[-1]).reshape((1,) * (p.ndim - 1) + (-1,))
    inside = (p.argmax(-1)[..., None] == classes[..., 1:]).astype(np.float32)
    entropy = -(p * xp.log(xp.maximum(p, _TINY))).sum(-1, keepdims=True) * inside
    found = (p[..., 1:], inside, p[..., 1:] * inside, entropy)
    return ConfidenceSums(*(x.sum((-3, -2)) for x in found))


def with_temperature(
    probabilities: Float[np.ndarray, "*space c"], temperature: float
) -> Float[np.ndarray, "*space c"]:
    """The probabilities softmax(log p / T): above 1 less sure of themselves, below 1 surer (Guo et al., ICML 2017).

    Raises:
      ValueError: a temperature that isn't positive.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature: {temperature} found, expected a positive number")
    scaled = np.log(np.maximum(probabilities, _TINY)) / temperature
    scaled = np.exp(scaled - scaled.max(-1, keepdims=True))
    return scaled / scaled.sum(-1, keepdims=True)


def fit_temperature(probabilities: Float[np.ndarray, "n c"], truth: Integer[np.ndarray, " n"]) -> float:
    """The temperature of least cross-entropy on voxels whose class is known, of cases that training hasn't seen.

    Args:
      probabilities: of the c classes at n voxels, such as those near a structure in every held-out case.
      truth: their classes.

    Returns:
      T in [0.1, 10].

    Raises:
      ValueError: no voxel, or not one class for each.
    """
    if not len(truth) or len(truth) != len(probabilities):
        raise ValueError(
            f"{len(probabilities)} voxels with {len(truth)} classes found, expected at least one, and as many of both"
        )
    logits = np.log(np.maximum(probabilities, _TINY))
    of_truth = logits[np.arange(len(truth)), truth]

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        top = scaled.max(-1)
        log_sum = top + np.log(np.exp(scaled - top[:, None]).sum(-1))
        return float(np.mean(log_sum - of_truth / np.exp(log_temperature)))

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(cross_entropy, bounds=(low, high), method="bounded").x))


def interior_entropy(
    probabilities: Float[np.ndarray, "s h w c"],
    spacing_mm: Spacing,
    structures: Sequence[Structure] = CARDIAC,
    margin_mm: float = 3.0,
) -> Float[np.ndarray, " k"]:
    """Mean predictive entropy in nats inside each structure, away from its border in plane, where any model is unsure.

    Args:
      probabilities: of the classes at each voxel of a stack of slices.
      spacing_mm: (slices, h, w).
      structures: the k structures, whose ids are classes.
      margin_mm: voxels nearer to the structure's border in their slice don't count; where that leaves none, all count.

    Returns:
      (k,); NaN where the mask has nothing of the structure.

    Raises:
      ValueError: an unfitting spacing.
    """
    pixel_mm = positive_spacing(spacing_mm, 3)[1:]
    predicted = probabilities.argmax(-1)
    found = np.full(len(structures), np.nan)
    for i, structure in enumerate(structures):
        inside = predicted == structure.id
        if not inside.any():
            continue
        deep = np.zeros_like(inside)
        for s in np.flatnonzero(inside.any((1, 2))):
            # to the centre of the nearest voxel outside; what lies beyond the image is outside
            distance = distance_transform_edt(np.pad(inside[s], 1), sampling=pixel_mm)[1:-1, 1:-1]
            deep[s] = distance > margin_mm
        p = probabilities[deep if deep.any() else inside].astype(np.float64)
        found[i] = float(-(p * np.log(np.maximum(p, _TINY))).sum(-1).mean())
    return found


def band_width_mm(
    probabilities: Float[np.ndarray, "s h w c"],
    spacing_mm: Spacing,
    structures: Sequence[Structure] = CARDIAC,
    band: tuple[float, float] = BAND,
) -> Float[np.ndarray, " k"]:
    """Width in mm of the band along each structure's border in which its probability is neither low nor high.

    The area of that band in all slices over the length of the structure's border in them, which is the number of pixel
    edges between inside and outside times their length: an upper bound of the true length for slanted borders, so that
    widths compare between cases and not with a ruler.

    Args:
      probabilities: of the classes at each voxel of a stack of slices.
      spacing_mm: (slices, h, w).
      structures: the k structures, whose ids are classes.
      band: the probabilities between which a voxel counts.

    Returns:
      (k,); infinite where voxels are uncertain but no mask is drawn, NaN where neither is.

    Raises:
      ValueError: an unfitting spacing, or a band that isn't one.
    """
    low, high = band
    if not 0 <= low < high <= 1:
        raise ValueError(f"band: {band} found, expected two rising probabilities")
    _, row_mm, column_mm = positive_spacing(spacing_mm, 3)
    predicted = probabilities.argmax(-1)
    found = np.full(len(structures), np.nan)
    for i, structure in enumerate(structures):
        p = probabilities[..., structure.id]
        area = np.count_nonzero((p > low) & (p < high)) * row_mm * column_mm
        inside = np.pad(predicted == structure.id, ((0, 0), (1, 1), (1, 1)))
        # an edge between two rows is as long as a pixel is wide
        length = np.count_nonzero(np.diff(inside, axis=1)) * column_mm
        length += np.count_nonzero(np.diff(inside, axis=2)) * row_mm
        if length:
            found[i] = area / length
        elif area:
            found[i] = np.inf
    return found
