"""A field of segmentation methods of clearly different quality, so that a ranking of them means something.

Two networks at different widths and training lengths, and one method without learning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qcjax.config import AcdcConfig, Mnms2Config, Segmenter
from qcjax.data.cohort import orientation_of, prepare
from qcjax.data.datasets import acdc
from qcjax.data.geometry import Orientation
from qcjax.data.nifti import read_grid, read_image
from qcjax.data.preprocess import median_spacing, restore_labels
from qcjax.data.subject import Case
from qcjax.labels import ACDC_LABELS
from qcjax.models import AcdcUNet, NnUNet
from qcjax.monitoring import classical
from qcjax.runtime import hosts
from qcjax.runtime.devices import Devices
from qcjax.runtime.progress import bar
from qcjax.train.arm import Arm, ViewData
from qcjax.train.journal import Journal
from qcjax.train.networks import Networks
from qcjax.train.segmenter import train_segmenter

VIEW = "SA"
THRESHOLDING = "thresholding"  # the method without learning
CASES_AT_ONCE = 8  # bounds the memory that probabilities take


@dataclass(frozen=True)
class Method:
    """A segmenter of the field: shares of the width and of the epochs that the configuration gives to the best."""

    name: str
    segmenter: Segmenter
    width: float
    epochs: float


FIELD = (
    Method("nnunet", "nnunet", 1, 1),
    Method("acdc_unet", "acdc_unet", 1, 1),
    Method("nnunet-narrow", "nnunet", 1 / 2, 1 / 2),
    Method("acdc_unet-narrow", "acdc_unet", 1 / 2, 1 / 2),
    Method("nnunet-brief", "nnunet", 1 / 2, 1 / 6),
    Method("acdc_unet-brief", "acdc_unet", 1 / 2, 1 / 6),
)
METHODS = (*(m.name for m in FIELD), THRESHOLDING)


def prepare_field(config: AcdcConfig, split: acdc.Split, devices: Devices) -> ViewData:
    """Training, validation and test images, prepared, on the devices."""
    if config.spacing_mm is None:
        spacing = median_spacing(read_grid(c.image_path).spacing_mm for s in split.train for c in s.cases)
    else:
        spacing = (config.spacing_mm, config.spacing_mm)
    parts = ((split.train, True), (split.validation, True), (split.test, False))
    orientation = orientation_of(split.train, VIEW)
    total = sum(len(s.cases) for part, _ in parts for s in part)
    with bar(f"Preparing images at {spacing[0]:.2f} × {spacing[1]:.2f} mm, cases", total) as advance:
        training, validation, test = (
            prepare(
                part,
                VIEW,
                spacing,
                config.size,
                labels,
                config.method.resampling,
                advance,
                ACDC_LABELS,
                orientation,
            )
            for part, labels in parts
        )
    return ViewData.place(VIEW, training, validation, test, devices, config.stream)


def segment_by(
    method: Method, config: AcdcConfig, data: ViewData, run: Path, devices: Devices, folder: Path
) -> None:
    """Train a method, or go on; write its mask of every test case to `folder`, in ACDC's layout."""
    networks = Networks(_config(config, method), method.segmenter, devices, title=method.name)
    arm = Arm(networks, data, run, Journal(run / "metrics.jsonl"))
    checkpoints = train_segmenter(arm)
    variables = arm.load(checkpoints, checkpoints.candidates()[0])
    checkpoints.close()
    cohort = data.unlabelled

    def write(segmented: tuple[int, np.ndarray]) -> None:
        case, probabilities = segmented
        found = cohort.cases[case]
        labels = restore_labels(probabilities, cohort.geometries[case], config.method.resampling)
        acdc.write_prediction(folder, found, labels, read_image(found.image_path, cohort.orientation))
        advance()

    with bar(f"{method.name}: cases segmented", len(cohort.cases)) as advance:
        for first in range(0, len(cohort.cases), CASES_AT_ONCE):
            group = range(first, min(first + CASES_AT_ONCE, len(cohort.cases)))
            rows = [np.arange(len(cohort.owner))[cohort.rows(case)] for case in group]
            where = data.unlabelled_indices[np.concatenate(rows)]
            stack = networks.predictor.probabilities(variables, data.slices, where)
            parts = np.split(stack, np.cumsum([len(r) for r in rows])[:-1])
            hosts.share(write, list(zip(group, parts, strict=True)))


def segment_by_thresholding(
    cases: Sequence[Case], folder: Path, orientation: Orientation | None = None
) -> None:
    """Write the mask of the method without learning of every case."""
    with bar(f"{THRESHOLDING}: cases segmented", len(cases)) as advance:

        def one(case: Case) -> None:
            image = read_image(case.image_path, orientation)
            acdc.write_prediction(folder, case, classical.segment(image), image)
            advance()

        hosts.share(one, cases, threads=1)


def _config(config: AcdcConfig, method: Method) -> Mnms2Config:
    """The refinement experiment's configuration of a segmenter, as small and short as the method says."""
    full = config.supervised
    width = full.width or (NnUNet.width if method.segmenter == "nnunet" else AcdcUNet.width)
    epochs = max(1, round(full.epochs * method.epochs))
    supervised = replace(full, width=max(2, round(width * method.width)), epochs=epochs, m_best=1)
    if method.segmenter == "acdc_unet":  # what is said of the optimiser is said of nnunet
        supervised = replace(supervised, optimiser=None, learning_rate=None)
    return Mnms2Config(
        preset=config.preset,
        segmenter=(method.segmenter,),
        seed=config.seed,
        dtype=config.dtype,
        accumulate=config.accumulate,
        on_nonfinite=config.on_nonfinite,
        size=config.size,
        spacing_mm=config.spacing_mm,
        supervised=supervised,
    )
