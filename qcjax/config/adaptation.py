"""Options of `qcjax refine`: a trained model adapted to unlabelled images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qcjax.config.checks import at_least, positive
from qcjax.config.segmentation import Layout


@dataclass(frozen=True)
class AdaptationConfig:
    """How a model is adapted."""

    images: Path
    """Folder of the unlabelled images."""
    out: Path
    """Folder of the adapted model; started again on the same one, refinement goes on."""
    data: Path | None = None
    """Folder of the labelled data set; none: the slices that the model carries."""
    layout: Layout = "auto"
    """Layout of the labelled data set; auto: whichever is recognised."""
    labelled_images: Path | None = None
    """In place of a data set, the folder of labelled images."""
    labelled_masks: Path | None = None
    """Their masks."""
    cases: Literal["ood", "all"] = "ood"
    """Which images are learnt from: those whose masks the monitor can't rebuild, or all."""
    epochs: int = 4
    """Passes k = 1, 2, ... at the most; what is learnt from unlabelled images counts 1/k."""
    steps: int = 40
    """Steps of a pass."""
    labelled: int = 8
    """Labelled slices in each batch."""
    unlabelled: int = 8
    """Unlabelled slices in each batch."""
    learning_rate_factor: float = 0.02
    """Learning rate, as a share of that of training; five times as much has done harm everywhere."""
    gain: float = 0.02
    """The gate: a refined mask is taken where its predicted Dice is higher by more than this."""
    seed: int = 0
    """Seed of the order and the augmentation."""
    devices: int | None = None
    """How many devices share each batch; default all."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        at_least(1, self, "devices", "epochs", "steps", "labelled", "unlabelled")
        at_least(0, self, "seed", "gain")
        positive(self, "learning_rate_factor")
