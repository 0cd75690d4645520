"""Everything a run can be told, as frozen dataclasses. One resolved `config.json` is written beside every result."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qcjax.hosts import Hosts

Segmenter = Literal["nnunet", "acdc_unet"]
View = Literal["SA", "LA"]
Preset = Literal["demo", "small", "paper", "original"]
Arm = Literal["baseline", "control", "proposed"]
Stream = Literal["auto", "always", "never"]
DiceOfMasks = Literal["generalised", "mixed", "soft"]
Centre = Literal["image", "mask"]  # of the square in which an autoencoder sees a mask

ARMS: tuple[Arm, ...] = ("baseline", "control", "proposed")


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
    optimiser: Literal["sgd", "adam"] | None = None
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

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        _at_least(1, self, "width", "stages", "epochs", "steps", "batch", "m_best")
        _at_least(0, self, "learning_rate")
        _positive(self, "scale")
        _share(self, "mirror")


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
    """Of Adam."""
    final_rate: float = 1.0
    """Share of the learning rate that is left in the last epoch; it falls along half a cosine. 1: constant."""
    early_epochs: int = 10
    """Epochs in which the generalised Dice loss leaves the background out."""
    augment: bool = False
    """Rotate, scale and shift the masks (never mirror them)."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        _at_least(1, self, "width", "latent", "epochs", "steps", "batch")
        _at_least(0, self, "early_epochs", "learning_rate")
        _share(self, "final_rate")
        _check_dropout(self)

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

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense; no epochs are fine: selection needs none."""
        _at_least(0, self, "epochs")
        _at_least(1, self, "steps", "labelled", "unlabelled")
        _at_least(0, self, "learning_rate_factor")


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
        _check_size(self)
        _positive(self, "spacing_mm")


@dataclass(frozen=True)
class RunConfig:
    """What every experiment can be told."""

    data: Path | None = None
    """Folder of the data set; none: a synthetic cohort."""
    out: Path | None = None
    """Folder of the results; started again on the same one, a run goes on. Default: runs/<experiment>-<time>."""
    preset: Preset = "paper"
    """demo: synthetic data, minutes. small: real data on a CPU. paper: the paper, literally. original: what the
    authors' public code does. Every other option overrides its preset."""
    seed: int = 0
    """Of the split or the folds, the initial weights, the order, augmentation and dropout."""
    devices: int | None = None
    """How many of its devices each process uses; default all. They share each batch."""
    distributed: bool = False
    """Several processes, such as one on each host, make one run. They find each other by what Slurm, Open MPI or
    Kubernetes say, or by --hosts.*; --data and --out are the same folders for all of them."""
    hosts: Hosts = field(default_factory=Hosts)
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the networks' arithmetic; parameters, losses and monitors are always float32."""
    accumulate: int = 1
    """Parts in which a batch goes through the network, one after the other, where a device can't hold it at once. The
    loss stays that of the whole batch; batch norm normalises each part by itself."""
    stream: Stream = "auto"
    """Whether the prepared data stay on the host and each batch is fetched while the devices work: where they would
    take more than half of a device's free memory, always, or never. The results are the same."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """Where a loss or a gradient isn't finite: stop and name the batch, or leave the batch out and count it."""
    deterministic: bool = False
    """On a GPU, use only operations that give the same bits every time; slower. On a CPU nothing changes."""
    skip_invalid: bool = False
    """Leave subjects out whose files have errors, instead of stopping; they are named and counted."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        _at_least(1, self, "accumulate", "devices")
        _at_least(0, self, "seed")

    @property
    def losses(self) -> Literal["paper", "original"]:
        """Which of the two readings of the method applies; demo and small follow the paper."""
        return "original" if self.preset == "original" else "paper"


@dataclass(frozen=True)
class Config(RunConfig):
    """Segments the right ventricle in cardiac MRI and controls its own quality without ground truth.

    Trains a segmenter and an autoencoder of masks on the labelled subjects, finds the unlabelled cases that the
    segmenter gets wrong (mask and rebuilt mask differ), refines the segmenter on them, selects the best candidate per
    case, and reports all of it. Without --data it makes a synthetic cohort and runs a demonstration.
    """

    data: Path | None = None
    """Folder of an M&Ms-2 data set (public or challenge layout); none: a synthetic cohort."""
    segmenter: tuple[Segmenter, ...] = ("nnunet", "acdc_unet")
    """Networks to run: nnunet is the paper's BN1 (Full et al.), acdc_unet its BN2 (Isensee et al.)."""
    views: tuple[View, ...] = ("SA", "LA")
    """Short-axis stacks, long-axis slices."""
    init_from: Path | None = None
    """A .pth checkpoint of the authors' PyTorch code, {"M": …}, from which supervised training starts; needs torch, one
    --segmenter, and the original's sizes."""
    split: Path | None = None
    """CSV (SUBJECT_CODE, PART) in place of the official split; PART is train, validation or test."""
    size: int = 256
    """Height and width of the prepared slices, a multiple of 64."""
    spacing_mm: float | None = None
    """In-plane spacing of the prepared slices; None: the training set's median."""
    mc_samples: int = 0
    """Dropout samples per case, for measures of uncertainty beside the autoencoder's; 0: none. Segmenters without
    dropout (nnunet) have none."""
    mc_chunk: int | None = None
    """How many of them at once, which bounds the memory; none: all."""
    subjects: tuple[int, int, int] = (24, 4, 16)
    """Synthetic cohort: subjects for training, validation and test parts of the data set."""
    supervised: SegmenterConfig = field(default_factory=SegmenterConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense, and where there is no segmenter or no view."""
        super().__post_init__()
        _at_least(1, self, "mc_chunk")
        _check_size(self)
        _positive(self, "spacing_mm")
        for name in ("segmenter", "views"):
            if not getattr(self, name):
                raise ValueError(f"--{name}: none found, expected at least one")
        if self.mc_samples == 1 or self.mc_samples < 0:
            raise ValueError(f"--mc-samples: {self.mc_samples} found, expected 0 or at least 2")


@dataclass(frozen=True)
class AcdcConfig(RunConfig):
    """Judges segmentations of cardiac MRI without ground truth, and measures how well that works.

    Trains a monitor (an autoencoder of masks) on ground-truth masks, lets it judge the masks of several segmentation
    methods, and compares its verdicts with the ground truth where there is one. Without --predictions it trains
    methods of different quality itself; without --data it makes a synthetic cohort and runs a demonstration.
    """

    data: Path | None = None
    """Folder of the ACDC data set, with training/ and testing/ or one of them; none: a synthetic cohort."""
    predictions: tuple[str, ...] = ()
    """Masks to judge, NAME=DIR for each method, DIR holding patient101_ED.nii.gz and so on in ACDC's label values;
    none: a field of methods is trained here."""
    rca: int = 0
    """Reverse classification accuracy (RCA) beside the monitor: how many reference subjects for each image; 0: none.
    Needs the extra rca (SimpleITK), and seconds per reference."""
    rca_subjects: int | None = None
    """Of how many test subjects RCA judges the masks; None: all."""
    size: int = 256
    """Height and width of the slices that the field's segmenters see, a multiple of 64."""
    spacing_mm: float | None = None
    """In-plane spacing of those slices; None: the training set's median."""
    subjects: tuple[int, int] = (32, 10)
    """Synthetic cohort: subjects for training and for the test."""
    supervised: SegmenterConfig = field(default_factory=SegmenterConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        super().__post_init__()
        _at_least(1, self, "rca_subjects")
        _at_least(0, self, "rca")
        _check_size(self)
        _positive(self, "spacing_mm")


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
    optimiser: Literal["sgd", "adam"] = "sgd"
    """SGD with Nesterov momentum 0.99 (the paper), or Adam."""
    learning_rate: float = 0.01
    """Initial; it falls as (1 - epoch / epochs)^0.9."""
    samples: int = 5
    """Dropout samples per step, N (arms control and proposed)."""
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
        _at_least(1, self, "width", "max_stages", "epochs", "steps", "batch", "samples")
        _at_least(0, self, "ramp_epochs", "alpha")
        _at_least(0, self, "learning_rate")
        _positive(self, "scale")
        _share(self, "mirror")
        _check_dropout(self)


@dataclass(frozen=True)
class EmidecConfig(RunConfig):
    """Learns from its own uncertainty to segment myocardial infarction in late-enhancement cardiac MRI.

    Trains a 3-D segmenter by cross-validation in three ways (baseline: one dropout sample per step; control: the mean
    of several; proposed: that, and their variance in the loss), and reports accuracy, calibration and uncertainty side
    by side, and whether uncertainty finds the failures. Without --data it makes a synthetic cohort and runs a
    demonstration.
    """

    data: Path | None = None
    """Folder of the EMIDEC data set, with Case_N006 and so on; none: a synthetic cohort."""
    preset: Literal["demo", "small", "paper"] = "paper"
    """demo: synthetic data, minutes. small: real data on a CPU. paper: the paper's. Every other option overrides its
    preset."""
    folds: int = 5
    """Folds of the cross-validation, each with normal and pathological cases in equal shares."""
    arms: tuple[Arm, ...] = ARMS
    """What to compare."""
    spacing_mm: tuple[float, float, float] = (10.0, 1.458, 1.458)
    """Of the prepared volumes: across slices, and in plane."""
    size: int = 256
    """Height and width of the prepared slices, about the image's centre."""
    patch: tuple[int, int, int] = (8, 160, 160)
    """What the network sees at once: slices, height, width. Larger volumes are seen in overlapping windows."""
    mc_samples: int = 20
    """Dropout samples per case at inference, for the measures of uncertainty."""
    mc_chunk: int | None = None
    """How many of them at once, which bounds the memory; none: all."""
    subjects: tuple[int, int] = (8, 16)
    """Synthetic cohort: normal and pathological cases."""
    training: UncertaintyConfig = field(default_factory=UncertaintyConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense, and where there is no arm."""
        super().__post_init__()
        _at_least(1, self, "mc_chunk")
        _at_least(2, self, "folds", "mc_samples")
        _positive(self, "spacing_mm", "patch")
        if not self.arms:
            raise ValueError("--arms: none found, expected at least one")
        if self.size < max(self.patch[1:]):
            raise ValueError(f"--size: {self.size} found, expected at least the patch's {self.patch[1:]}")


def _at_least(least: int, options: Any, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{_spelt(name)}: {value} found, expected at least {least}")


def _positive(options: Any, *names: str) -> None:
    for name in names:
        values = getattr(options, name)
        for value in values if isinstance(values, tuple) else (values,):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{_spelt(name)}: {value} found, expected a number above 0")


def _share(options: Any, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise ValueError(f"--{_spelt(name)}: {value} found, expected 0 to 1")


def _check_dropout(options: Any) -> None:
    if not 0 <= options.dropout < 1:
        raise ValueError(f"--dropout: {options.dropout} found, expected at least 0 and below 1")


def _check_size(options: Any) -> None:
    if options.size < 64 or options.size % 64:
        raise ValueError(f"--size: {options.size} found, expected a multiple of 64")


def _spelt(name: str) -> str:
    """On the command line; of a group of options, the parser says which."""
    return name.replace("_", "-")


def to_json(config: Any) -> dict[str, Any]:
    """Plain values, paths as text."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))
