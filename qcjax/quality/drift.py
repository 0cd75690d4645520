"""Whether a cohort parts from the subjects that a model has learnt from: then its bounds need not hold."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import ks_2samp, kstwobign

MEASURES = {  # in words, with the digits of a median
    "predicted_dice": ("predicted Dice", 2),
    "volume_ml": ("volume in ml", 0),
    "pdc": ("pseudo Dice", 2),
}
LEVEL = 0.01  # of all tests together
LEAST_DISTANCE = (
    0.2  # of distribution functions: the mean of networks is a little better than one, and shows in many
)
LEAST_IMAGES = 10  # of a cohort, below which nothing is said
PER_SUBJECT = 2  # images: as if those of a subject were one
Values = Mapping[str, Mapping[str, Sequence[float]]]  # measure -> structure -> a value for each image


class Drift(NamedTuple):
    """How the values of a measure part from those of training."""

    measure: str
    structure: str
    median: float
    median_of_training: float
    distance: float  # the largest between both distribution functions
    p: float  # of a distance at least so large if both were alike
    parts: bool  # at a level of 1 % for all tests together, and by no small distance

    @property
    def sentence(self) -> str:
        """The finding in words."""
        name, digits = MEASURES[self.measure]
        return (
            f"{self.structure.upper()}: the median {name} is {self.median:.{digits}f}, of the subjects of training "
            f"{self.median_of_training:.{digits}f} (p = {self.p:.1g})."
        )


def drifts(reference: Values, found: Values) -> list[Drift]:
    """A Kolmogorov-Smirnov test for each measure and structure that both have; the largest distance first.

    Images of a subject resemble each other: the test counts two as one. Where fewer than 10 images have a measure,
    there is no test of it.

    Args:
      reference: of training.
      found: of a cohort.
    """
    pairs = [
        (measure, key, np.asarray(values, np.float64), np.asarray(found[measure][key], np.float64))
        for measure, of in reference.items()
        for key, values in of.items()
        if key in found.get(measure, {})
    ]
    tested = [pair for pair in pairs if min(len(pair[2]), len(pair[3])) >= LEAST_IMAGES]
    made = []
    for measure, key, there, here in tested:
        distance = float(ks_2samp(here, there).statistic)
        count = len(here) * len(there) / (len(here) + len(there)) / PER_SUBJECT
        p = float(kstwobign.sf(np.sqrt(count) * distance))
        medians = float(np.median(here)), float(np.median(there))
        made.append(
            Drift(measure, key, *medians, distance, p, p < LEVEL / len(tested) and distance >= LEAST_DISTANCE)
        )
    return sorted(made, key=lambda one: -one.distance)


def in_words(found: Sequence[Drift]) -> list[str]:
    """Sentences for a page; empty where nothing was tested."""
    if not found:
        return []
    parting = [one for one in found if one.parts]
    if not parting:
        return [
            "These images look like those that the model has learnt from: neither predicted Dice nor volumes nor "
            "pseudo Dice part from theirs."
        ]
    told = " ".join(one.sentence for one in parting[:3])
    return [
        f"These images part from those that the model has learnt from, and the bounds need not hold: {told} "
        "qcjax calibrate sets them right with nine labelled subjects or more."
    ]
