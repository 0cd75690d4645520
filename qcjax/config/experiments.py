"""What each experiment can be told; one resolved `config.json` is written beside every result."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qcjax.config.checks import at_least, check_size, positive
from qcjax.config.hosts import Hosts
from qcjax.config.inference import InferenceConfig
from qcjax.config.method import Method, method_of
from qcjax.config.monitor import MonitorConfig
from qcjax.config.training import AutoencoderConfig, RefinementConfig, SegmenterConfig, UncertaintyConfig
from qcjax.config.values import ARMS, ArmName, Preset, Segmenter, Stream, View


@dataclass(frozen=True)
class RunConfig:
    """What every experiment can be told."""

    data: Path | None = None
    """Folder of the data set; none: a synthetic cohort."""
    out: Path | None = None
    """Folder of the results; started again on the same one, a run goes on. Default: runs/<experiment>-<time>."""
    preset: Preset = "paper"
    """demo: synthetic data, minutes. small: real data on a CPU. paper: the paper, and our choices where it says nothing
    (docs/results). original: what the authors' public code does. ours (M&Ms-2 alone): small, with a baseline without
    QC, and refinement behind a gate. Every other option overrides its preset."""
    seed: int = 0
    """Seed of the split or the folds, the initial weights, the order, augmentation and dropout."""
    devices: int | None = None
    """How many of its devices each process uses; default all. They share each batch."""
    distributed: bool = False
    """Several processes, such as one on each host, make one run. They find each other by what Slurm, Open MPI or
    Kubernetes say, or by --hosts.*; --data and --out are the same folders for all of them."""
    hosts: Hosts = field(default_factory=Hosts)
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the networks' arithmetic; parameters, losses and monitors are always float32."""
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
        at_least(1, self, "accumulate", "devices")
        at_least(0, self, "seed")

    @property
    def method(self) -> Method:
        """How the preset reads the papers."""
        return method_of(self.preset)


@dataclass(frozen=True)
class Mnms2Config(RunConfig):
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
    --segmenter, and the original's sizes. It doesn't say how the images that it learnt from lay or were sampled:
    training goes on with those of the data, along the axes that most training images have."""
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
    inference: InferenceConfig = field(default_factory=InferenceConfig)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense, and where there is no segmenter or no view."""
        super().__post_init__()
        at_least(1, self, "mc_chunk")
        check_size(self)
        positive(self, "spacing_mm")
        for name in ("segmenter", "views"):
            if not getattr(self, name):
                raise ValueError(f"--{name}: none found, expected at least one")
        if self.inference.mirror and not self.supervised.mirror:
            raise ValueError(
                "--inference.mirror: found with --supervised.mirror 0, expected networks that are trained mirrored"
            )
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
    preset: Literal["demo", "small", "paper", "original"] = "paper"
    """demo: synthetic data, minutes. small: real data on a CPU. paper: the paper, and our choices where it says nothing
    (docs/results). original: what the authors' public code does. Every other option overrides its preset."""
    predictions: tuple[str, ...] = ()
    """Masks to judge, NAME=DIR for each method, DIR holding patient101_ED.nii.gz and so on in ACDC's label values;
    none: a field of methods is trained here."""
    rca: int = 0
    """Reverse classification accuracy (RCA) beside the monitor: how many reference subjects for each image; 0: none.
    Seconds per reference."""
    rca_subjects: int | None = None
    """How many test subjects' masks RCA judges; None: all."""
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
        at_least(1, self, "rca_subjects")
        at_least(0, self, "rca")
        check_size(self)
        positive(self, "spacing_mm")


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
    arms: tuple[ArmName, ...] = ARMS
    """What to compare."""
    spacing_mm: tuple[float, float, float] = (10.0, 1.458, 1.458)
    """Spacing of the prepared volumes: across slices, and in plane."""
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
        at_least(1, self, "mc_chunk")
        at_least(2, self, "folds", "mc_samples")
        positive(self, "spacing_mm", "patch")
        if not self.arms:
            raise ValueError("--arms: none found, expected at least one")
        if self.size < max(self.patch[1:]):
            raise ValueError(f"--size: {self.size} found, expected at least the patch's {self.patch[1:]}")
