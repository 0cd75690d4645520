"""Options of a monitor, and its presets."""

from dataclasses import dataclass, field, replace
from typing import Literal

from qcjax.config.checks import check_size, positive
from qcjax.config.training import AutoencoderConfig
from qcjax.config.values import Preset

DiceOfMasks = Literal["generalised", "mixed", "soft"]


Centre = Literal["image", "mask"]  # of the square in which an autoencoder sees a mask


@dataclass(frozen=True)
class MonitorConfig:
    """The monitor: an autoencoder of masks, and the grid on which it sees them."""

    size: int = 256
    """Height and width of the prepared slices, a multiple of 64."""
    spacing_mm: float = 1.25
    """In-plane spacing of the prepared slices."""
    centre: Centre = "image"
    """What lies in the middle of the prepared slices: that of the image (the paper), or the median of the mask's
    foreground, so that a heart far from where hearts mostly lie is rebuilt as well as others."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    dice: DiceOfMasks = "generalised"
    """Dice loss: Sudre's generalised one over the batch (the paper); mixed: half of it slice by slice, so that a thin
    right ventricle is rebuilt too; or plain soft Dice, where structures differ so much in size that the weights of
    the former leave the large ones unlearnt. Preset original has its own."""
    may_be_absent: tuple[str, ...] = ()
    """Structures that a sound mask may lack, by key, such as infarction: not having them is no error."""

    def __post_init__(self) -> None:
        """Raises ValueError for a size that the autoencoder can't take, or a spacing that isn't positive."""
        check_size(self)
        positive(self, "spacing_mm")


PAPER = MonitorConfig()

SMALL = MonitorConfig(
    size=128,
    spacing_mm=1.8,
    centre="mask",
    dice="mixed",
    autoencoder=AutoencoderConfig(
        width=16,
        latent=64,
        dropout=0.1,
        epochs=60,
        batch=16,
        learning_rate=2e-3,
        final_rate=0.02,
        early_epochs=2,
        augment=True,
    ),
)

# of the same size: in 64 pixels a myocardium is too thin to be rebuilt; of the other loss: in so few steps the mixed
# one rebuilds the right ventricle less well
DEMO = replace(
    SMALL,
    dice="generalised",
    autoencoder=replace(
        SMALL.autoencoder, dropout=0.0, epochs=40, steps=30, learning_rate=4e-3, early_epochs=1
    ),
)

MONITORS: dict[Preset, MonitorConfig] = {"demo": DEMO, "small": SMALL, "paper": PAPER, "original": PAPER}
