"""Quality control as the authors' public code of the refinement paper decides it: the preset `original`.

What differs from `qcjax.qc`: the best measures are those so far, over all evaluations of all models; a case
is out of distribution where its best pDC **or** its best pHD is beyond its threshold; absent structures have
pHD infinity and take part in the quartiles; and the choice of a prediction is a running record, made with the
threshold of the moment. In an evaluation cases are handled one after another, so the threshold that a case
meets knows the new measures of the cases before it and the old ones of those after it; in the first
evaluation only the cases before it.

One record serves one view, phase and structure (the authors' code: the right ventricle).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from qcjax.labels import CARDIAC, Structure
from qcjax.metrics.overlap import check_label_maps, dice
from qcjax.metrics.surface import hausdorff_distance
from qcjax.qc import Selection, Thresholds


class Record(NamedTuple):
    """What is kept of all evaluations so far; evaluations are counted from 0, -1 says none."""

    n_evaluations: int
    best_pdc: Float[np.ndarray, " n"]
    best_phd: Float[np.ndarray, " n"]  # in voxels
    dc_from: Int[np.ndarray, " n"]  # the evaluation whose prediction is the best by pDC
    hd_from: Int[np.ndarray, " n"]  # the best by pHD
    ensemble_from: Int[np.ndarray, " n"]  # the best by pDC that also met the threshold of its moment


class Update(NamedTuple):
    """A record after one more evaluation, and for which cases its predictions are to be kept."""

    record: Record
    take_dc: Bool[np.ndarray, " n"]
    take_hd: Bool[np.ndarray, " n"]
    take_ensemble: Bool[np.ndarray, " n"]


def pseudo_measures(
    mask: Integer[np.ndarray, "*space"],
    reconstruction: Integer[np.ndarray, "*space"],
    structures: Sequence[Structure] = CARDIAC,
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Pseudo Dice, and pseudo Hausdorff distance in voxels; 0 and infinity where either or both are empty.

    Args:
      mask, reconstruction: label maps of one shape, (slices, h, w).
      structures: the k structures to measure.

    Raises:
      ValueError: different shapes, or values that are not integers.
    """
    check_label_maps(mask, reconstruction)
    voxels = np.ones(mask.ndim)
    phd = [hausdorff_distance(mask == s.id, reconstruction == s.id, voxels, "original") for s in structures]
    return dice(mask, reconstruction, structures, both_empty=0.0), np.array(phd)


def empty_record(n_cases: int) -> Record:
    """The record of `n_cases` cases before the first evaluation."""
    nowhere = np.full(n_cases, -1)
    return Record(0, np.full(n_cases, -np.inf), np.full(n_cases, np.inf), nowhere, nowhere, nowhere)


def update(record: Record, pdc: Float[np.ndarray, " n"], phd: Float[np.ndarray, " n"]) -> Update:
    """One evaluation of all cases, in their order.

    A prediction is kept as the best by a measure if no earlier one was better (a tie goes to the later), and
    as the ensemble's if it is the best by pDC and its pHD is below the threshold of the moment.

    Args:
      record: of the earlier evaluations.
      pdc, phd: (n,) pseudo measures of this one; pHD in voxels, infinity where undefined.

    Raises:
      ValueError: another number of cases, or NaN.
    """
    for name, values in (("pdc", pdc), ("phd", phd)):
        if values.shape != record.best_pdc.shape:
            raise ValueError(f"{name}: shape {values.shape} found, expected {record.best_pdc.shape}")
        if np.isnan(values).any():
            raise ValueError(f"{name}: NaN found, expected numbers (infinity for an undefined pHD)")
    take_dc, take_hd = pdc >= record.best_pdc, phd <= record.best_phd
    best_phd = record.best_phd.copy()
    take_ensemble = np.zeros(len(pdc), bool)
    for case in range(len(pdc)):
        best_phd[case] = min(best_phd[case], phd[case])
        if take_dc[case]:
            known = best_phd if record.n_evaluations else best_phd[: case + 1]
            take_ensemble[case] = phd[case] < _upper(known)
    now = record.n_evaluations
    return Update(
        Record(
            n_evaluations=now + 1,
            best_pdc=np.maximum(record.best_pdc, pdc),
            best_phd=best_phd,
            dc_from=np.where(take_dc, now, record.dc_from),
            hd_from=np.where(take_hd, now, record.hd_from),
            ensemble_from=np.where(take_ensemble, now, record.ensemble_from),
        ),
        take_dc,
        take_hd,
        take_ensemble,
    )


def improves(record: Record, case: int, pdc: float, phd: float) -> bool:
    """Whether `update` will have a case's prediction kept, which no other case's measures decide."""
    return bool(pdc >= record.best_pdc[case] or phd <= record.best_phd[case])


def thresholds(record: Record) -> Thresholds:
    """Thresholds from the quartiles of the best measures so far; infinite pHDs can make them infinite or NaN.

    Raises:
      ValueError: a record without evaluations or cases.
    """
    if not (record.n_evaluations and record.best_pdc.size):
        found = f"{record.n_evaluations} evaluations of {record.best_pdc.size} cases"
        raise ValueError(f"a record of {found} found, expected at least one of each")
    return Thresholds(_lower(record.best_pdc), _upper(record.best_phd))


def out_of_distribution(record: Record) -> Bool[np.ndarray, " n"]:
    """The cases whose best pDC so far is below its threshold or whose best pHD so far is above its own.

    Raises:
      ValueError: a record without evaluations or cases.
    """
    limits = thresholds(record)
    return (record.best_pdc < limits.low) | (record.best_phd > limits.up)


def select(record: Record) -> Selection:
    """The two evaluations whose predictions are averaged for each case; equal where it is one.

    The ensemble's prediction where there is one, otherwise the best by pDC and the best by pHD.
    """
    chosen = record.ensemble_from >= 0
    return Selection(
        np.where(chosen, record.ensemble_from, record.dc_from),
        np.where(chosen, record.ensemble_from, record.hd_from),
    )


def _lower(values: np.ndarray) -> float:
    q1, q3 = np.quantile(values, (0.25, 0.75))
    return float(q1 - 1.5 * (q3 - q1))


def _upper(values: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # infinity minus infinity: NaN, below which nothing lies
        q1, q3 = np.quantile(values, (0.25, 0.75))
        return float(q3 + 1.5 * (q3 - q1))
