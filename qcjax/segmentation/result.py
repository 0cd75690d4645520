"""What a model makes of one image: on its way to the networks, their predictions, the mask and what is known of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from qcjax.data.preprocess import Geometry
from qcjax.data.subject import Volume
from qcjax.inference.monitor import Score
from qcjax.qc import Flag
from qcjax.qc.confidence import ConfidenceSums
from qcjax.quality.model import Estimate
from qcjax.typing import Float


@dataclass(frozen=True)
class Prepared:
    """An image on its way to the networks."""

    volume: Volume
    geometry: Geometry
    stack: np.ndarray  # (slices, size, size) float32
    spacing_mm: tuple[float, float, float]  # of the volume, or what it seems to have been where it was lost


class Prediction(NamedTuple):
    """What the networks make of an image."""

    probabilities: np.ndarray  # (slices, size, size, 1 + k) float16, their mean
    sums: ConfidenceSums  # of each network by itself: (networks, slices, k)
    refined: "Prediction | None" = None  # what those that were refined make of it, where a model has some


@dataclass(frozen=True)
class Measures:
    """What is known of one structure of one mask without ground truth."""

    volume_ml: float
    pdc: float  # pseudo Dice, of mask and reconstruction
    phd_mm: float  # pseudo Hausdorff distance; NaN where either lacks the structure
    worst_slice: int | None  # counted from 0; None where no slice has the structure
    flag: str  # "", "suspicious" or "erroneous"
    reason: str  # of the flag, in words
    predicted: Estimate  # what quality is to be expected, with bounds
    volumes_ml: tuple[float, ...] = ()  # in each network's own mask


@dataclass(frozen=True)
class Result:
    """A segmented image."""

    labels: np.ndarray  # (x, y, slices), the values of the files that the model was trained with
    measures: Mapping[str, Measures]  # by the structures' keys
    flags: Sequence[Flag]
    score: Score  # all that the monitor says
    volume: Volume  # the image, its axes as `labels` has them
    _probabilities: Callable[[], np.ndarray]
    networks: str = ""  # of a refined model, whose mask this is: "source" or "refined"

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "slices size size k"]:
        """Probabilities of background and structures: (slices, size, size, 1 + k) float16, on the networks' grid."""
        return self._probabilities()

    @property
    def verdict(self) -> str:
        """The worst of the flags: "erroneous", "suspicious" or ""."""
        return self.score.verdict
