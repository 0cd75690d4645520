"""Whether an image shows what a mask claims: quality control without a network, without truth.

An autoencoder of masks sees no image: a sound mask in the wrong place is sound to it. But in cine MR, as wherever
blood is brighter than muscle, a mask that lies beside the heart mixes the two up. Arrays in, arrays out.

The scale is the ground truth, ED and ES, of every other one of the 100 training subjects of ACDC. None of these masks
reaches `DOUBT_LIMIT`, none of the other half's 100, and none of 50 masks of M&Ms, of one scanner vendor; of all these
moved by 20 mm in plane it is reached by 99 %.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer, Real

from qcjax.labels import CARDIAC, LV, MYO, RV, Structure
from qcjax.qc import Flag

MEDIAN = {LV.key: 2.42, RV.key: 2.16}  # of a ventricle's contrast
LOW = {LV.key: 1.28, RV.key: 0.73}  # 2 % of the masks have less
DOUBT_LIMIT = 1.5


def contrast(
    image: Real[np.ndarray, "*space"], blood: Bool[np.ndarray, "*space"], muscle: Bool[np.ndarray, "*space"]
) -> float:
    """The number of standard deviations by which blood is brighter than muscle; NaN where either is nowhere.

    The difference of the mean intensities, over the root of the mean of both variances.
    """
    bright, dark = image[blood].astype(np.float64), image[muscle].astype(np.float64)
    if not (bright.size and dark.size):
        return float("nan")
    spread = np.sqrt((bright.var() + dark.var()) / 2)
    return float((bright.mean() - dark.mean()) / max(spread, np.finfo(np.float32).tiny))


def doubts(
    image: Real[np.ndarray, "*space"],
    mask: Integer[np.ndarray, "*space"],
    structures: Sequence[Structure] = CARDIAC,
) -> Float[np.ndarray, " k"]:
    """How little an image shows each structure of a mask.

    0 where a ventricle's contrast with the myocardium is that of the median of sound masks, or larger; 1 where it is
    what 2 % of them stay below. The myocardium's doubt is the larger one of the ventricles that are there.

    Args:
      image, mask: of one shape; the mask holds ids of `structures`.
      structures: those with the keys of LV, MYO and RV count.

    Returns:
      (k,): infinite where the structure, or what it is compared with, is absent; NaN for other structures, and for all
      without MYO among them.

    Raises:
      ValueError: an image of another shape than the mask.
    """
    if image.shape != mask.shape:
        raise ValueError(f"image of shape {image.shape} found, expected {mask.shape} as its mask's")
    found = np.full(len(structures), np.nan)
    keys = [s.key for s in structures]
    if MYO.key not in keys:
        return found
    muscle = mask == structures[keys.index(MYO.key)].id
    of_ventricles = []
    for i, structure in enumerate(structures):
        if structure.key in MEDIAN:
            median, low = MEDIAN[structure.key], LOW[structure.key]
            doubt = (median - contrast(image, mask == structure.id, muscle)) / (median - low)
            found[i] = np.inf if np.isnan(doubt) else max(doubt, 0.0)
            of_ventricles.append(found[i])
    if of_ventricles:
        there = [doubt for doubt in of_ventricles if np.isfinite(doubt)]
        found[keys.index(MYO.key)] = max(there, default=np.inf)
    return found


def flags(
    doubts: Float[np.ndarray, " k"], structures: Sequence[Structure], limit: float = DOUBT_LIMIT
) -> list[Flag]:
    """The ventricles that the image doesn't show where the mask has them; absent ones are not its matter."""
    return [
        Flag(
            s.key, "suspicious", f"{s.name}: not where the image shows it (doubt {d:.1f} is above {limit:g})"
        )
        for s, d in zip(structures, doubts.tolist(), strict=True)
        if s.key in MEDIAN and limit < d < np.inf
    ]
