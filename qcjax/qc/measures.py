"""Pseudo measures between a mask and its reconstruction, the map of where they differ, and the flags.

They stand in for the measures between the mask and the truth (monitoring paper, Galati & Zuluaga, FIMH 2021).

One policy for absence: a structure absent from the mask, its reconstruction or both has pDC 0 and pHD NaN.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from qcjax.labels import CARDIAC, Structure
from qcjax.metrics.overlap import check_label_maps, dice
from qcjax.metrics.surface import Spacing, hausdorff_distance


class Flag(NamedTuple):
    """What the monitoring finds wrong with one structure of one case."""

    structure: str  # key
    kind: Literal["erroneous", "suspicious"]
    reason: str  # for people


def pseudo_measures(
    mask: Integer[np.ndarray, "*space"],
    reconstruction: Integer[np.ndarray, "*space"],
    spacing_mm: Spacing,
    structures: Sequence[Structure] = CARDIAC,
    optional_structures: Collection[Structure] = (),
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Pseudo Dice and pseudo Hausdorff distance per structure (monitoring paper, ρ1).

    Args:
      mask, reconstruction: label maps of one shape, usually (slices, h, w).
      spacing_mm: in the order of the axes.
      structures: the k structures to measure.
      optional_structures: those whose absence from both is legitimate: pDC 1 and pHD 0 then.

    Returns:
      (k,) pDC and (k,) pHD in mm; 0 and NaN for a structure absent from either or both.

    Raises:
      ValueError: different shapes, values that are not integers, or an unfitting spacing.
    """
    check_label_maps(mask, reconstruction)
    pdc = dice(mask, reconstruction, structures, both_empty=0.0)
    phd = np.empty(len(structures))
    for i, structure in enumerate(structures):
        in_mask, in_reconstruction = mask == structure.id, reconstruction == structure.id
        phd[i] = hausdorff_distance(in_mask, in_reconstruction, spacing_mm)
        if pdc[i] == 0 and phd[i] == 0:  # absent from both; disjoint masks are at a distance
            pdc[i], phd[i] = (1.0, 0.0) if structure in optional_structures else (0.0, np.nan)
    return pdc, phd


def inconsistency_map(
    mask: Integer[np.ndarray, "*space"], reconstruction: Integer[np.ndarray, "*space"]
) -> Bool[np.ndarray, "*space"]:
    """Where a mask and its reconstruction differ (monitoring paper, ρ2).

    Raises:
      ValueError: different shapes, or values that are not integers.
    """
    check_label_maps(mask, reconstruction)
    return mask != reconstruction


def flags(
    pdc: Float[np.ndarray, " k"],
    phd: Float[np.ndarray, " k"],
    structures: Sequence[Structure] = CARDIAC,
    hd_limit: float = 50.0,
    dc_limit: float = 0.5,
    unit: str = "mm",
) -> list[Flag]:
    """The flags of one case (monitoring paper).

    Erroneous: the structure is absent (pDC 0 and pHD undefined; the paper writes both as 0). Suspicious: pHD
    above `hd_limit` or pDC below `dc_limit`.

    Args:
      pdc, phd: (k,) pseudo Dice and pseudo Hausdorff distance of the k structures.
      structures: the k structures.
      hd_limit, dc_limit: the paper's limits by default.
      unit: of pHD and its limit, for the reasons; the authors' code counts voxels.

    Raises:
      ValueError: not one measure for each structure.
    """
    for name, values in (("pdc", pdc), ("phd", phd)):
        if values.shape != (len(structures),):
            raise ValueError(f"{name}: shape {values.shape} found, expected ({len(structures)},)")
    found = []
    for structure, dc, hd in zip(structures, pdc.tolist(), phd.tolist(), strict=True):
        if not np.isfinite(hd):
            reason = f"{structure.name} is absent from the mask or from its reconstruction"
            found.append(Flag(structure.key, "erroneous", reason))
            continue
        reasons = []
        if hd > hd_limit:
            reasons.append(f"pseudo Hausdorff distance {hd:.1f} {unit} is above {hd_limit:g} {unit}")
        if dc < dc_limit:
            reasons.append(f"pseudo Dice {dc:.2f} is below {dc_limit:g}")
        if reasons:
            found.append(Flag(structure.key, "suspicious", f"{structure.name}: {' and '.join(reasons)}"))
    return found
