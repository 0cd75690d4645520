"""Cardiac structures: identifiers, names, colours, and how each data set's labels map onto them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Integer, Real, UInt8


@dataclass(frozen=True)
class Structure:
    """One segmented structure."""

    id: int  # label value inside qcjax
    key: str  # short name for columns and keys
    name: str  # name for people
    colour: str  # hex, readable for colour-blind readers and on grey images


BACKGROUND = 0
MOST_VALUE = 65535  # of a label in a file: what 16 bits hold
LV = Structure(1, "lv", "left ventricular cavity", "#d55e00")
MYO = Structure(2, "myo", "left ventricular myocardium", "#f0e442")
RV = Structure(3, "rv", "right ventricular cavity", "#0072b2")

CARDIAC = (LV, MYO, RV)  # M&Ms-2's numbering, which is qcjax's own
N_CLASSES = 1 + len(CARDIAC)

CAVITY = Structure(1, "cavity", "left ventricular cavity", "#d55e00")
NORMAL_MYO = Structure(2, "myo", "normal myocardium", "#f0e442")
INFARCTION = Structure(3, "infarction", "infarction", "#0072b2")
NO_REFLOW = Structure(4, "no_reflow", "no-reflow", "#cc79a7")

EMIDEC = (
    CAVITY,
    NORMAL_MYO,
    INFARCTION,
    NO_REFLOW,
)  # tissues of late gadolinium enhancement, EMIDEC's numbering

OTHER_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999")  # of structures that aren't cardiac

# label value in the file -> label value inside qcjax
MNMS2_LABELS = {0: 0, 1: 1, 2: 2, 3: 3}
ACDC_LABELS = {0: 0, 1: 3, 2: 2, 3: 1}
EMIDEC_LABELS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}


@dataclass(frozen=True)
class Region:
    """What is scored as one: the union of some structures."""

    key: str
    name: str  # for people
    ids: frozenset[int]  # label values of its structures
    colour: str  # hex

    def inside(self, labels: Integer[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """Where a label map lies in the region: bool, of the same shape."""
        return np.isin(labels, list(self.ids))


# as EMIDEC scores: the myocardium is the whole wall, an infarction includes its no-reflow
EMIDEC_REGIONS = (
    Region("myocardium", "myocardium", frozenset({2, 3, 4}), NORMAL_MYO.colour),
    Region("infarction", "infarction", frozenset({3, 4}), INFARCTION.colour),
    Region("no_reflow", "no-reflow", frozenset({4}), NO_REFLOW.colour),
    Region("cavity", "left ventricular cavity", frozenset({1}), CAVITY.colour),
)


def remap(labels: Real[np.ndarray, "*shape"], mapping: dict[int, int]) -> UInt8[np.ndarray, "*shape"]:
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


def structures_named(keys: Sequence[str]) -> tuple[Structure, ...]:
    """Structures numbered 1, 2, ... in the order of their keys; lv, myo and rv keep their names and colours.

    Raises:
      ValueError: no key, or one that comes twice or isn't letters, digits and underscores.
    """
    if not keys:
        raise ValueError("structures: none found, expected at least one key such as lv")
    known = {s.key: s for s in CARDIAC}
    colours = iter(OTHER_COLOURS * (1 + len(keys) // len(OTHER_COLOURS)))
    found: list[Structure] = []
    for number, key in enumerate(keys, start=1):
        if not re.fullmatch(r"\w+", key) or key in keys[: number - 1]:
            raise ValueError(f"structures: key {key!r} found, expected distinct words such as lv, myo, rv")
        found.append(
            replace(known[key], id=number) if key in known else Structure(number, key, key, next(colours))
        )
    return tuple(found)


def parse_labels(text: str) -> dict[str, int]:
    """``lv=1,myo=2,rv=3`` -> the value of each structure's key in a file.

    Raises:
      ValueError: anything else, or a value that isn't 1 to 65535 or stands for two structures.
    """
    values: dict[str, int] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\w+)\s*=\s*(\d{1,5})\s*", part)
        if found is None or not 1 <= int(found[2]) <= MOST_VALUE:
            raise ValueError(
                f"labels: {part!r} found, expected name=value such as lv=1, the value 1 to {MOST_VALUE}"
            )
        if found[1] in values or int(found[2]) in values.values():
            raise ValueError(f"labels: {part.strip()!r} found, expected each name and each value once")
        values[found[1]] = int(found[2])
    return values


def label_mapping(structures: Sequence[Structure], values: Mapping[str, int]) -> dict[int, int]:
    """Label value in a file -> id of the structure, for `remap`; background stays 0.

    Raises:
      ValueError: keys other than those of `structures`.
    """
    ids = {s.key: s.id for s in structures}
    if set(values) != set(ids):
        raise ValueError(f"labels: {', '.join(sorted(values))} found, expected {', '.join(ids)}")
    return {BACKGROUND: BACKGROUND} | {value: ids[key] for key, value in values.items()}
