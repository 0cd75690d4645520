"""Options of the trainings: of segmenters, of the autoencoder of masks, and of refinement."""

import math
from dataclasses import dataclass
from typing import Literal

from qcjax.config.checks import at_least, check_dropout, positive, share
from qcjax.config.values import Optimiser


@dataclass(frozen=True)
class SegmenterConfig:
    """Supervised training of the segmenter M."""

    width: int | None = None
    """Channels of the first stage; None: the original's (nnunet 32, acdc_unet 48)."""
    stages: int = 7
    """Resolutions of nnunet; each halves the image."""
    epochs: int = 250
    """Passes over the labelled slices."""
    steps: int | None = None
    """Steps per epoch, going round and round the slices; None: one pass."""
    batch: int = 20
    """Slices per step, over all devices."""
    optimiser: Optimiser | None = None
    """None: the original's (nnunet SGD with Nesterov momentum 0.99, acdc_unet Adam). In experiments.acdc this and the
    learning rate are nnunet's; its acdc_unet has the original's."""
    learning_rate: float | None = None
    """Initial; None: the original's (nnunet 0.01, acdc_unet 0.0005)."""
    m_best: int = 3
    """How many models to keep, by validation loss: the candidates (experiments.acdc keeps the best alone)."""
    mirror: float = 0.5
    """Augmentation: probability of mirroring, for each axis."""
    rotation_deg: float = 30.0
    """Augmentation: rotation within ± this many degrees."""
    scale: tuple[float, float] = (0.7, 1.4)
    """Augmentation: range of the scale of the coordinates (below 1 enlarges)."""
    intensity: bool = False
    """Augmentation of intensities: bias field, noise, blur, brightness, contrast, low resolution, gamma."""
    average: float = 0.0
    """Decay of the exponential mean of the weights over the steps, which is the model; 0: the weights themselves."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        at_least(1, self, "width", "stages", "epochs", "steps", "batch", "m_best")
        at_least(0, self, "learning_rate")
        positive(self, "scale")
        share(self, "mirror", "average")


@dataclass(frozen=True)
class AutoencoderConfig:
    """Training of the autoencoder R on ground-truth masks."""

    width: int = 32
    """Channels of its narrowest layers."""
    latent: int = 100
    """Channels of the latent space."""
    dropout: float = 0.5
    """Dropout rate."""
    epochs: int = 500
    """Passes over the labelled masks."""
    steps: int | None = None
    """Steps per epoch, going round and round the masks; None: one pass."""
    batch: int = 8
    """Masks per step, over all devices."""
    learning_rate: float = 2e-4
    """Learning rate of Adam."""
    final_rate: float = 1.0
    """Share of the learning rate that is left in the last epoch; it falls along half a cosine. 1: constant."""
    early_epochs: int = 10
    """Epochs in which the generalised Dice loss leaves the background out."""
    augment: bool = False
    """Rotate, scale and shift the masks (never mirror them)."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        at_least(1, self, "width", "latent", "epochs", "steps", "batch")
        at_least(0, self, "early_epochs", "learning_rate")
        share(self, "final_rate")
        check_dropout(self)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        passed = (epoch - 1) / max(self.epochs - 1, 1)
        share = self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * passed)) / 2
        return self.learning_rate * share


@dataclass(frozen=True)
class RefinementConfig:
    """Semi-supervised refinement of the segmenter on out-of-distribution (OoD) cases."""

    epochs: int = 50
    """K_semi, the most epochs."""
    steps: int | None = None
    """Steps per epoch; None: one pass over the labelled slices."""
    labelled: int = 10
    """Labelled slices per step (preset paper)."""
    unlabelled: int = 10
    """OoD slices per step (preset paper)."""
    learning_rate_factor: float = 0.1
    """Constant learning rate, as a share of supervised training's initial one (preset paper)."""
    cases: Literal["validation", "all"] = "all"
    """The unlabelled cases that refinement looks at and learns from: those of the data set's validation part (the
    authors' choice, and preset original's: codes 161 to 200), or all. Selection and the report always have all."""
    gate: float | None = None
    """Gated arms (ours): per case the refined mask where its predicted quality is higher by more than this, else the
    baseline's, or the single best model's without one; beside it a gate by chance, and one by the truth. None: no such
    arms."""
    gate_by: Literal["quality", "pdc"] = "quality"
    """What the gate compares: predicted Dice, learnt from D_val's masks, which takes 9 subjects of it; or pDC."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense; no epochs are fine: selection needs none."""
        at_least(0, self, "epochs")
        at_least(1, self, "steps", "labelled", "unlabelled")
        at_least(0, self, "learning_rate_factor", "gate")


@dataclass(frozen=True)
class UncertaintyConfig:
    """Training of a 3-D segmenter on dropout samples, their variance in the loss."""

    width: int = 32
    """Channels of the first stage."""
    max_stages: int = 5
    """Most resolutions (the paper's, as we read it); the shape and spacing of the patch may allow fewer."""
    dropout: float = 0.1
    """Dropout rate, in the deepest stage and those beside it."""
    epochs: int = 1000
    """Passes over the training volumes."""
    steps: int | None = None
    """Steps per epoch, going round and round the volumes; None: one pass."""
    batch: int = 5
    """Volumes per step, over all devices."""
    optimiser: Optimiser = "sgd"
    """SGD with Nesterov momentum 0.99 (the paper), or Adam."""
    learning_rate: float = 0.01
    """Initial; it falls as (1 - epoch / epochs)^0.9."""
    samples: int = 5
    """Dropout samples per step, N (arms control and proposed)."""
    lambda_dice: float = 1.0
    """Weight of the Dice loss, λ_Dice."""
    lambda_ce: float = 1.0
    """Weight of the cross-entropy, λ_CE."""
    alpha: float = 3.0
    """Weight of the variance (arm proposed)."""
    ramp_epochs: int = 0
    """Over so many first epochs the weight of the variance grows from 0."""
    over_classes: Literal["mean", "sum"] = "mean"
    """How the classes' variances make a voxel's; the paper leaves it open."""
    loss_of: Literal["mean", "each"] = "mean"
    """Segmentation loss of the samples' mean (the paper), or mean of the samples' losses."""
    mirror: float = 0.5
    """Augmentation: probability of mirroring, for each axis in plane."""
    rotation_deg: float = 30.0
    """Augmentation: rotation in plane within ± this many degrees."""
    scale: tuple[float, float] = (0.7, 1.4)
    """Augmentation: range of the scale of the coordinates in plane (below 1 enlarges)."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        at_least(1, self, "width", "max_stages", "epochs", "steps", "batch", "samples")
        at_least(0, self, "ramp_epochs", "alpha", "lambda_dice", "lambda_ce")
        at_least(0, self, "learning_rate")
        positive(self, "scale")
        share(self, "mirror")
        check_dropout(self)
