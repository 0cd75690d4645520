"""Cohorts of masks and of volumes in memory, and configurations so small that a step takes milliseconds."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.presets import EMIDEC_SMALL
from qcjax.config import METHODS, AutoencoderConfig, MonitorConfig
from qcjax.data.mask_cohort import MaskCase, MaskCohort
from qcjax.data.preprocess import Geometry
from qcjax.data.subject import Case
from qcjax.data.volumes import VolumeCohort, VolumeGeometry, Volumes
from qcjax.runtime.devices import Devices
from qcjax.train.monitor import MonitorTraining
from tests.seeds import seed

LABELS = {"rv": 1, "myo": 2, "lv": 3}
MONITOR = MonitorConfig(
    size=64,
    spacing_mm=2.0,
    autoencoder=AutoencoderConfig(
        width=2, latent=4, dropout=0.3, epochs=2, steps=3, batch=5, early_epochs=1, augment=True
    ),
)
SIDE, DEPTH = 24, 4
VOLUMES = replace(
    EMIDEC_SMALL,
    seed=seed(),
    spacing_mm=(10.0, 6.0, 6.0),
    size=SIDE,
    patch=(4, 16, 16),
    training=replace(
        EMIDEC_SMALL.training, width=2, max_stages=2, epochs=2, steps=2, batch=3, samples=2, dropout=0.3
    ),
)


def geometry(side: int, slices: int) -> Geometry:
    box = ((0, side), (0, side), (0, slices))
    return Geometry((side, side, slices), box, (side, side), side, (10.0, 2.0, 2.0))


def masks(subjects: int, number: int) -> MaskCohort:
    rng = np.random.default_rng(number)
    cases = tuple(MaskCase(f"{number}{i}", f"{number}{i}", Path(f"{number}{i}.nii")) for i in range(subjects))
    label = rng.integers(0, 4, (3 * subjects, 8, 8), np.uint8).repeat(8, 1).repeat(8, 2)
    return MaskCohort(cases, (geometry(64, 3),) * subjects, label)


def monitor_training(folder: Path, devices: Devices, reading: str = "paper", **options) -> MonitorTraining:
    folder.mkdir()
    return MonitorTraining(
        MONITOR, LABELS, masks(4, 1), masks(2, 2), folder, seed(), METHODS[reading], devices, **options
    )


def volumes(count: int = 5) -> VolumeCohort:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, (count, DEPTH, SIDE // 8, SIDE // 8), np.uint8).repeat(8, 2).repeat(8, 3)
    image = (label + rng.normal(0, 0.3, label.shape)).astype(np.float32)
    cases = tuple(Case(f"P{i}", "SA", "LGE", Path(f"P{i}.nii"), None) for i in range(count))
    geometries = (VolumeGeometry(geometry(SIDE, DEPTH), DEPTH, DEPTH),) * count
    return VolumeCohort(cases, geometries, Volumes(image, label, np.ones(label.shape, bool)))
