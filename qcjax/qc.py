"""Quality control by reconstruction: pseudo measures, flags, out-of-distribution detection, selection.

The measures between a predicted mask and what the autoencoder makes of it stand in for those between the
mask and the truth (monitoring paper, Galati & Zuluaga, FIMH 2021); they find out-of-distribution cases and
choose among candidate segmenters (refinement paper, Galati & Zuluaga, STACOM 2021). Arrays in, arrays out.
A literal reading of the papers; the decisions of the authors' code are in `qcjax.qc_original`.

One policy for absence: a structure absent from the mask, its reconstruction or both has pDC 0 and pHD NaN.
That ranks last, stays out of every quartile (its pDC 0 too), and is out of distribution whatever the
thresholds.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped

from qcjax.labels import CARDIAC, Structure
from qcjax.metrics.overlap import check_label_maps, dice
from qcjax.metrics.surface import Spacing, hausdorff_distance

Threshold = float | Float[np.ndarray, " n"]  # one for all cases, or one for each


class Thresholds(NamedTuple):
    """The bounds of what is in distribution; NaN where no case defines them, and then nothing is."""

    low: Threshold  # of pDC
    up: Threshold  # of pHD, in its unit


class Selection(NamedTuple):
    """For each case the two candidates whose probabilities are averaged; where they are equal it is one."""

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]


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
    phd_mm: Float[np.ndarray, " k"],
    structures: Sequence[Structure] = CARDIAC,
    hd_limit_mm: float = 50.0,
    dc_limit: float = 0.5,
    unit: str = "mm",
) -> list[Flag]:
    """The flags of one case (monitoring paper).

    Erroneous: the structure is absent (pDC 0 and pHD undefined; the paper writes both as 0). Suspicious: pHD
    above `hd_limit_mm` or pDC below `dc_limit`.

    Args:
      pdc, phd_mm: (k,) pseudo Dice and pseudo Hausdorff distance of the k structures.
      structures: the k structures.
      hd_limit_mm, dc_limit: the paper's limits by default.
      unit: of the distances and their limit, for the reasons; the authors' code counts voxels.

    Raises:
      ValueError: not one measure for each structure.
    """
    for name, values in (("pdc", pdc), ("phd_mm", phd_mm)):
        if values.shape != (len(structures),):
            raise ValueError(f"{name}: shape {values.shape} found, expected ({len(structures)},)")
    found = []
    for structure, dc, hd in zip(structures, pdc.tolist(), phd_mm.tolist(), strict=True):
        if not np.isfinite(hd):
            reason = f"{structure.name} is absent from the mask or from its reconstruction"
            found.append(Flag(structure.key, "erroneous", reason))
            continue
        reasons = []
        if hd > hd_limit_mm:
            reasons.append(f"pseudo Hausdorff distance {hd:.1f} {unit} is above {hd_limit_mm:g} {unit}")
        if dc < dc_limit:
            reasons.append(f"pseudo Dice {dc:.2f} is below {dc_limit:g}")
        if reasons:
            found.append(Flag(structure.key, "suspicious", f"{structure.name}: {' and '.join(reasons)}"))
    return found


def thresholds(pdc: Float[np.ndarray, "m n"], phd: Float[np.ndarray, "m n"]) -> Thresholds:
    """Thresholds from the quartiles of the best measures among the candidates (refinement paper).

    low = Q1 - 1.5 (Q3 - Q1) of max_i pDC_i, up = Q3 + 1.5 (Q3 - Q1) of min_i pHD_i, over the n cases of one
    view and phase in which at least one candidate's measures are defined. Quartiles are interpolated
    linearly.

    Args:
      pdc, phd: (m, n) pseudo measures of m candidates in n cases; pHD NaN where the structure is absent.

    Returns:
      Two floats; NaN if the measures of no case are defined: nothing is known of the distribution then, so
      nothing counts as inside it.

    Raises:
      ValueError: shapes differ, no candidate, or a NaN pDC.
    """
    ranked_pdc, ranked_phd = _ranked(pdc, phd)
    best_pdc, best_phd = ranked_pdc.max(axis=0), ranked_phd.min(axis=0)
    defined = np.isfinite(best_phd)
    if not defined.any():
        return Thresholds(np.nan, np.nan)
    low, high = np.quantile(best_pdc[defined], (0.25, 0.75))
    near, far = np.quantile(best_phd[defined], (0.25, 0.75))
    return Thresholds(float(low - 1.5 * (high - low)), float(far + 1.5 * (far - near)))


def thresholds_by_phase(
    pdc: Float[np.ndarray, "m n"],
    phd: Float[np.ndarray, "m n"],
    phases: Sequence[str] | Shaped[np.ndarray, " n"],
) -> dict[str, Thresholds]:
    """`thresholds` for each phase over its own cases.

    Args:
      pdc, phd: (m, n) pseudo measures, as for `thresholds`.
      phases: the phase of each of the n cases.

    Raises:
      ValueError: as for `thresholds`, or not one phase for each case.
    """
    of_case = np.asarray(phases)
    if of_case.shape != pdc.shape[1:]:
        raise ValueError(f"phases: shape {of_case.shape} found, expected {pdc.shape[1:]}, one for each case")
    names = dict.fromkeys(of_case.tolist())
    return {name: thresholds(pdc[:, of_case == name], phd[:, of_case == name]) for name in names}


def by_phase(limits: dict[str, Thresholds], phases: Sequence[str] | Shaped[np.ndarray, " n"]) -> Thresholds:
    """Each case's thresholds, for `out_of_distribution` and `select` over cases of several phases.

    Args:
      limits: from `thresholds_by_phase`.
      phases: the phase of each of the n cases.

    Returns:
      (n,) low and (n,) up.

    Raises:
      ValueError: a phase without thresholds.
    """
    names = np.asarray(phases).tolist()
    unknown = sorted(set(names) - set(limits))
    if unknown:
        raise ValueError(f"phases: {unknown} found, expected only {sorted(limits)}")
    return Thresholds(
        np.array([limits[name].low for name in names], np.float64),
        np.array([limits[name].up for name in names], np.float64),
    )


def out_of_distribution(
    pdc: Float[np.ndarray, "m n"], phd: Float[np.ndarray, "m n"], limits: Thresholds
) -> Bool[np.ndarray, " n"]:
    """The cases in which every candidate i has pDC_i < low or pHD_i > up (refinement paper).

    A candidate that misses the structure (pHD NaN) is outside, and so is any where the thresholds are NaN.

    Args:
      pdc, phd: (m, n) pseudo measures, as for `thresholds`.
      limits: from `thresholds` or `by_phase`.

    Raises:
      ValueError: as for `thresholds`.
    """
    _ranked(pdc, phd)
    inside = (pdc >= limits.low) & (phd <= limits.up)  # False for NaN on either side
    return ~np.any(inside, axis=0)


def select(pdc: Float[np.ndarray, "m n"], phd: Float[np.ndarray, "m n"], up: Threshold) -> Selection:
    """The candidate, or the pair to be averaged, for each case (refinement paper).

    Of the candidates in the order of falling pDC the first with pHD < up; if there is none, the best by pDC
    together with the best by pHD. Ties go to the lower index, so candidates come in the order of their
    validation loss; where every measure is undefined it is candidate 0.

    Args:
      pdc, phd: (m, n) pseudo measures, as for `thresholds`.
      up: upper threshold of pHD, one or (n,).

    Returns:
      (n,) indices `first` and `second`; the prediction is the mean of their probabilities.

    Raises:
      ValueError: as for `thresholds`.
    """
    ranked_pdc, ranked_phd = _ranked(pdc, phd)
    passing = np.where(ranked_phd < up, ranked_pdc, -np.inf)
    best_passing = passing.argmax(axis=0)
    passes = np.isfinite(passing).any(axis=0)
    first = np.where(passes, best_passing, ranked_pdc.argmax(axis=0))
    second = np.where(passes, best_passing, ranked_phd.argmin(axis=0))
    return Selection(first, second)


def _ranked(pdc: np.ndarray, phd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The measures with undefined ones worse than any defined one: pDC -1, pHD infinite."""
    if pdc.shape != phd.shape or pdc.ndim != 2 or len(pdc) == 0:
        raise ValueError(
            f"pDC and pHD of shapes {pdc.shape} and {phd.shape} found, expected both (candidates, cases)"
        )
    if np.isnan(pdc).any():
        raise ValueError("pdc: NaN found, expected 0 where a structure is absent")
    absent = ~np.isfinite(phd)
    return np.where(absent, -1.0, pdc), np.where(absent, np.inf, phd)
