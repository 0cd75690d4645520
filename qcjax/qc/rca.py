"""Reverse classification accuracy: the quality of a mask from how well it serves as an atlas.

Valindria et al., IEEE TMI 36(8), 2017; the comparison of the monitoring paper (Galati & Zuluaga, FIMH 2021).
The mask predicted for a test image is the only atlas: the image is registered to reference images whose
truth is known, the mask is carried over, and its best Dice there is the estimate of its Dice here.
Registration looks at images alone (and at the references' truth, for where their hearts lie), never at the
mask: one registration serves the masks of every method.

Needs SimpleITK (the extra ``rca``).
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from qcjax.data.nifti import Grid
from qcjax.data.subject import Volume
from qcjax.labels import CARDIAC, Structure
from qcjax.metrics.overlap import dice
from qcjax.metrics.surface import hausdorff_distance
from qcjax.qc.registration import Reference, Registration, carry, register, simpleitk

__all__ = ["Estimate", "Reference", "Registration", "carry", "estimate", "nearest_in_size", "register"]


class Estimate(NamedTuple):
    """Estimated quality of one mask."""

    dc: np.ndarray  # (k,) the best Dice against the references' truth; 0 for an absent structure
    hd_mm: (
        np.ndarray
    )  # (k,) the smallest Hausdorff distance, in voxels where asked for; NaN for an absent structure


def estimate(
    masks: Mapping[str, Shaped[np.ndarray, "..."]],
    test: Volume,
    references: Sequence[Reference],
    structures: Sequence[Structure] = CARDIAC,
    registration: Registration | None = None,
    workers: int | None = None,
    unit: str = "mm",
) -> dict[str, Estimate]:
    """Quality of several masks of one test image, without its truth.

    The same for any number of workers: every registration runs in one thread, over all voxels, without random
    samples.

    Args:
      masks: one label map (x, y, slices) on the test image's grid per method.
      test: the image that was segmented.
      references: N images with truth; one registration each.
      structures: the k structures to score.
      workers: registrations at a time; the number of cores where None.
      unit: of distances: "mm", or "voxels" of the reference.

    Raises:
      ValueError: no reference, a mask that isn't on the test image's grid, fewer than 2 slices.
      ImportError: SimpleITK is missing.
    """
    sitk = simpleitk()
    if not references:
        raise ValueError("references: none found, expected at least one image with truth")
    for name, mask in masks.items():
        if mask.shape != test.array.shape:
            raise ValueError(
                f"mask of {name}: shape {mask.shape} found, expected {test.array.shape} as {test.path}"
            )

    def against(reference: Reference) -> dict[str, Estimate]:
        transform = register(test, reference, registration)
        return {
            name: _score(carry(mask, test, reference, transform), reference, structures, unit)
            for name, mask in masks.items()
        }

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()  # a step that fails is made up for, nobody need read of it
    try:
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:  # SimpleITK lets go of Python's lock
            found = list(pool.map(against, references))
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    return {
        name: Estimate(
            dc=np.max([scores[name].dc for scores in found], axis=0),
            hd_mm=np.fmin.reduce([scores[name].hd_mm for scores in found]),
        )
        for name in masks
    }


def nearest_in_size(test: Volume | Grid, candidates: Sequence[Volume | Grid], n: int) -> list[int]:
    """Indices of the n candidates nearest in size to a test image, the nearest first.

    Size is the physical extent along x, y and through the slices, in mm, and the number of slices; the distance
    of two sizes is the Euclidean one of their logarithms, so that a factor counts alike in each. Candidates at
    one distance come in their order. No intensity and no mask is looked at.

    Args:
      test, candidates: volumes, or grids of files, which `qcjax.data.nifti.read_grid` gets from headers.
        Candidates are the training subjects' images of the same phase.

    Raises:
      ValueError: fewer than n candidates.
    """
    if not 1 <= n <= len(candidates):
        raise ValueError(f"{n} references asked for, expected 1 to {len(candidates)}, the candidates found")
    apart = np.linalg.norm(np.array([_log_size(c) for c in candidates]) - _log_size(test), axis=1)
    return np.argsort(apart.round(9), kind="stable")[:n].tolist()


def _log_size(volume: Volume | Grid) -> np.ndarray:
    shape = volume.array.shape if isinstance(volume, Volume) else volume.shape
    return np.log([*(n * s for n, s in zip(shape[:3], volume.spacing_mm, strict=True)), shape[2]])


def _score(carried: np.ndarray, reference: Reference, structures: Sequence[Structure], unit: str) -> Estimate:
    spacing = reference.image.spacing_mm if unit == "mm" else (1.0, 1.0, 1.0)
    hd_mm = np.full(len(structures), np.nan)
    for i, structure in enumerate(structures):
        mine, true = carried == structure.id, reference.truth == structure.id
        if mine.any():  # NaN where the reference has none
            hd_mm[i] = hausdorff_distance(mine, true, spacing)
    return Estimate(dice(carried, reference.truth.astype(np.uint8), structures, both_empty=0.0), hd_mm)
