"""Options of `qcjax train`: a segmenter for new images, with the monitor that judges its masks."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from qcjax.config.checks import at_least, positive, share
from qcjax.config.monitor import MONITORS, MonitorConfig
from qcjax.config.values import Stream

Layout = Literal["auto", "acdc", "mnms2", "emidec", "nnunet", "folders"]
Effort = Literal["fast", "full"]


@dataclass(frozen=True)
class SegmentationConfig:
    """How a model is trained."""

    data: Path | None = None
    """Folder of the data set."""
    out: Path | None = None
    """Folder of the model; started again on the same one, training goes on."""
    images: Path | None = None
    """Layout folders: the folder of images."""
    masks: Path | None = None
    """Layout folders: the folder of masks."""
    layout: Layout = "auto"
    """Layout of the data set; auto: whichever is recognised."""
    labels: str | None = None
    """Layout folders: the structures and their values in the files, lv=1,myo=2,rv=3; none: every value found."""
    preset: Effort = "fast"
    """fast: a CPU, about an hour or two. full: a GPU."""
    seed: int = 0
    """Seed of the folds, the initial weights, the order and the augmentation."""
    devices: int | None = None
    """How many devices share each batch; default all."""
    stream: Stream = "auto"
    """Whether the prepared slices stay on the host."""
    may_be_absent: tuple[str, ...] = ()
    """Structures that a sound mask may lack, such as infarction."""
    in_pieces: tuple[str, ...] = ()
    """Structures that may be in several pieces; of every other one only the largest is kept."""
    licence: str = ""
    """What the model may be used for, in a sentence; it stands in its card, and `qcjax segment` says it."""
    keep: bool = False
    """Keep the masks and probabilities of the held-out subjects."""
    keep_training_slices: bool = False
    """Leave the prepared slices and masks in the model's folder, for `qcjax refine`: they are patients' images."""
    folds: int = 4
    """By patient; a network is trained for each, and judged on its own."""
    size: int = 128
    """Height and width of the prepared slices in pixels."""
    spacing_mm: float = 1.8
    """In-plane spacing of the prepared slices."""
    patch: int = 96
    """Height and width of what the networks train on, drawn from the slices."""
    width: int = 12
    """Channels of the first stage."""
    max_width: int = 160
    """Most channels of a stage."""
    stages: int = 5
    """Resolutions."""
    epochs: int = 14
    """Passes over the training slices."""
    cycles: int = 2
    """How often the learning rate falls to 0 meanwhile; what it has come to at the end of each is a model."""
    batch: int = 8
    """Slices per step, over all devices."""
    learning_rate: float = 3e-3
    """Learning rate of Adam, after the first steps; within a cycle it falls as (1 - step / steps)^0.9."""
    warm_up: int = 50
    """First steps over which the learning rate grows."""
    average: float = 0.99
    """Decay of the exponential mean of the weights, which is the model; 0: the weights themselves."""
    mirror: float = 0.5
    """Augmentation: probability of mirroring, for each axis."""
    rotation_deg: float = 180.0
    """Augmentation: rotation within ± this many degrees."""
    scale: tuple[float, float] = (0.7, 1.4)
    """Augmentation: range of the scale of the coordinates (below 1 enlarges)."""
    intensity: bool = True
    """Augmentation of intensities: bias field, noise, blur, brightness, contrast, low resolution, gamma."""
    monitor: MonitorConfig = field(default_factory=lambda: MONITORS["small"])
    """The autoencoder that judges masks."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        at_least(
            1, self, "devices", "size", "patch", "width", "max_width", "stages", "epochs", "cycles", "batch"
        )
        at_least(2, self, "folds")
        at_least(0, self, "seed", "learning_rate", "warm_up", "rotation_deg")
        positive(self, "spacing_mm", "scale")
        share(self, "mirror", "average")
        for name in ("size", "patch"):
            if getattr(self, name) % self.divisor:
                raise ValueError(
                    f"--{name}: {getattr(self, name)} found, expected a multiple of {self.divisor}, "
                    f"for {self.stages} stages"
                )
        if self.patch > self.size:
            raise ValueError(f"--patch: {self.patch} found, expected at most --size, {self.size}")

    @property
    def divisor(self) -> int:
        """What sides of images are multiples of: the product of the networks' strides."""
        return 2 ** (self.stages - 1)


FAST = SegmentationConfig(
    monitor=replace(MONITORS["small"], autoencoder=replace(MONITORS["small"].autoencoder, epochs=24))
)

FULL = SegmentationConfig(
    preset="full",
    folds=5,
    size=256,
    spacing_mm=1.25,
    patch=192,
    width=32,
    max_width=480,
    stages=7,
    epochs=250,
    cycles=1,
    batch=20,
    average=0.999,
    warm_up=500,
    monitor=replace(MONITORS["paper"], centre="mask", dice="mixed"),
)

EFFORTS: dict[Effort, SegmentationConfig] = {"fast": FAST, "full": FULL}
