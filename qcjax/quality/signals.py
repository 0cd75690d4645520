"""Signals of a mask's quality, each of which means the same on the masks that quality is learnt from and on new ones.

Quality is learnt from held-out subjects, each of which only its own fold's network hasn't seen; a new image is
segmented by the mean of all networks. How those agree on a new image has no counterpart that is honest on held-out
subjects, and the mean's probabilities are softer than one network's. So confidence is that of each network by itself,
averaged over those that haven't seen the subject: one of them in training, all for a new image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from qcjax.labels import Structure
from qcjax.metrics.surface import Spacing
from qcjax.qc.confidence import ConfidenceSums
from qcjax.qc.sizes import measure_sizes
from qcjax.quality.scales import logit

Signals = dict[str, Float[np.ndarray, " k"]]  # by name, of the k structures; NaN where unknown
OF_SUSPICION = (
    "pdc",
    "phd",
    "slice_difference",
    "valley",
    "alone",
    "gaps",
)  # as `suspicion.features` has them


def mask_signals(
    mask: Integer[np.ndarray, "s h w"],
    spacing_mm: Spacing,
    measured: Float[np.ndarray, "6 k"],
    structures: Sequence[Structure],
) -> Signals:
    """What mask and monitor tell: its measures of suspicion, on even scales, and the mask's sizes and their ratios.

    Args:
      mask: label map of a stack of slices.
      spacing_mm: (slices, h, w).
      measured: `suspicion.features` of the mask and its reconstruction.
      structures: the k structures.
    """
    found = dict(zip(OF_SUSPICION, np.where(np.isfinite(measured), measured, np.nan), strict=True))
    found["pdc"] = logit(1 - found["pdc"])
    found["phd"] = np.log1p(found["phd"])
    for name in ("slice_difference", "valley"):
        found[name] = np.log1p(found[name])
    k = len(structures)
    sizes = measure_sizes(mask, spacing_mm, structures)
    # volumes follow from areas and ratios, but for how far the slices lie apart, which some files have lost
    found["area"] = sizes[k : 2 * k]
    for i, ratio in enumerate(sizes[2 * k :]):
        found[f"ratio_{i + 1}"] = np.full(k, ratio)
    return found


def confidence_signals(sums: ConfidenceSums | Sequence[Any]) -> Signals:
    """What each network's confidence in its own mask tells, averaged over the networks.

    Args:
      sums: `confidence_sums` of each of n networks on each of s slices: (n, s, k).

    Returns:
      The soft Dice confidence, as a logit; the mean entropy within the structure, as a logarithm; the share of the soft
      Dice that the worst slice loses, as a logarithm. NaN of a network without the structure doesn't count.
    """
    probable, inside, common, entropy = (np.asarray(x, np.float64) for x in sums)
    size, both = inside.sum(1), (probable + inside).sum(1)
    there = size > 0
    dice = np.where(there, 2 * common.sum(1) / np.maximum(both, 1e-9), np.nan)
    mean_entropy = np.where(there, entropy.sum(1) / np.maximum(size, 1), np.nan)
    lost = (probable + inside - 2 * common).max(1) / np.maximum(both, 1e-9)
    worst = np.where(there, lost, np.nan)
    return {
        "confidence": _mean(logit(dice)),
        "entropy": _mean(np.log(mean_entropy + 1e-3)),
        "worst_slice": _mean(np.log(worst + 1e-3)),
    }


def of_case(signals: Mapping[str, Float[np.ndarray, " k"]]) -> Signals:
    """The same, and for each structure the mean of the others' pDC and confidence: a bad neighbour is a bad sign."""
    found = dict(signals)
    for name in ("pdc", "confidence"):
        if name in signals:
            values = signals[name]
            others = ~np.eye(len(values), dtype=bool) & np.isfinite(values)
            total = np.where(others, values, 0).sum(1)
            count = others.sum(1)
            found[f"{name}_of_others"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
