"""Out-of-distribution cases, and the candidate for each case (refinement paper, Galati & Zuluaga, STACOM 2021).

A literal reading of the paper; the decisions of the authors' code are in `qc.original`. A structure without pseudo
measures (pDC 0, pHD NaN) ranks last, stays out of every quartile (its pDC 0 too), and is out of distribution whatever
the thresholds are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from qcjax.runtime.messages import sendable

Threshold = float | Float[np.ndarray, " n"]  # one for all cases, or one for each


class Thresholds(NamedTuple):
    """The bounds of what is in distribution; NaN where no case defines them, and then nothing is."""

    low: Threshold  # of pDC
    up: Threshold  # of pHD, in its unit


@sendable
class Selection(NamedTuple):
    """The two candidates of each of n cases whose probabilities are averaged; where they are equal it is one."""

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]


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
