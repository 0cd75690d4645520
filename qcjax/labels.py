"""Cardiac structures: identifiers, names, colours, and how each data set's labels map onto them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Structure:
    """One segmented structure."""

    id: int  # label value inside qcjax
    key: str  # short name for columns and keys
    name: str  # name for people
    colour: str  # hex, readable for colour-blind readers and on grey images


BACKGROUND = 0
LV = Structure(1, "lv", "left ventricular cavity", "#d55e00")
MYO = Structure(2, "myo", "left ventricular myocardium", "#f0e442")
RV = Structure(3, "rv", "right ventricular cavity", "#0072b2")

CARDIAC = (LV, MYO, RV)  # M&Ms-2's numbering, which is qcjax's own
N_CLASSES = 1 + len(CARDIAC)

# label value in the file -> label value inside qcjax
MNMS2_LABELS = {0: 0, 1: 1, 2: 2, 3: 3}
ACDC_LABELS = {0: 0, 1: 3, 2: 2, 3: 1}


def remap(labels: np.ndarray, mapping: dict[int, int]) -> np.ndarray:
    """Label values of a file -> qcjax's, uint8 of the same shape.

    Raises:
      ValueError: a value that `mapping` does not know.
    """
    unknown = sorted(set(np.unique(labels).tolist()) - set(mapping))
    if unknown:
        raise ValueError(f"label values {unknown} found, expected only {sorted(mapping)}")
    table = np.zeros(max(mapping) + 1, np.uint8)
    for source, target in mapping.items():
        table[source] = target
    return table[labels.astype(np.intp)]
