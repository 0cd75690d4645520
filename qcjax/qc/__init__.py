"""Quality control of masks without ground truth: arrays in, arrays out."""

from qcjax.qc.measures import Flag, flags, inconsistency_map, pseudo_measures
from qcjax.qc.selection import (
    Selection,
    Threshold,
    Thresholds,
    by_phase,
    out_of_distribution,
    select,
    thresholds,
    thresholds_by_phase,
)

__all__ = [
    "Flag",
    "Selection",
    "Threshold",
    "Thresholds",
    "by_phase",
    "flags",
    "inconsistency_map",
    "out_of_distribution",
    "pseudo_measures",
    "select",
    "thresholds",
    "thresholds_by_phase",
]
