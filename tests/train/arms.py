"""A synthetic view in memory, and networks so small that a step takes milliseconds."""

from functools import cache
from pathlib import Path

import numpy as np

from qcjax.config import AutoencoderConfig, Mnms2Config, RefinementConfig, SegmenterConfig
from qcjax.data.batches import Slices
from qcjax.data.cohort import Cohort
from qcjax.data.preprocess import Geometry
from qcjax.data.subject import Case
from qcjax.runtime.devices import Devices
from qcjax.train.arm import Arm, ViewData
from qcjax.train.journal import Journal
from qcjax.train.networks import Networks
from tests.seeds import seed

SIZE, SLICES = 64, 2

CONFIG = Mnms2Config(
    preset="demo",
    seed=seed(),
    size=SIZE,
    supervised=SegmenterConfig(width=4, stages=3, epochs=3, steps=2, batch=4, m_best=2),
    autoencoder=AutoencoderConfig(width=2, latent=4, epochs=2, steps=2, batch=4, early_epochs=1),
    refinement=RefinementConfig(epochs=2, steps=2, labelled=4, unlabelled=3),
)
ORIGINAL = Mnms2Config(
    preset="original",
    seed=seed(),
    size=SIZE,
    supervised=CONFIG.supervised,
    autoencoder=CONFIG.autoencoder,
    refinement=CONFIG.refinement,
)


def _cohort(subjects: int, number: int) -> Cohort:
    """Hearts of discs, at a place and of a size that differ by case, in noise."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    cases, images, labels = [], [], []
    for subject in range(subjects):
        for phase in ("ED", "ES"):
            cases.append(Case(f"{number}{subject:02d}", "SA", phase, Path(f"{number}{subject}.nii"), None))
            row, column, radius = rng.uniform(28, 36), rng.uniform(22, 30), rng.uniform(9, 12)
            distance = np.hypot(rows - row, columns - column)
            label = np.where(distance < radius, 2, 0)
            label = np.where(distance < 0.6 * radius, 1, label)
            beside = np.hypot(rows - row, columns - column - 2 * radius) < radius
            label = np.where((label == 0) & beside, 3, label)
            for _ in range(SLICES):
                labels.append(label.astype(np.uint8))
                images.append(np.array([-0.5, 1.5, 0, 1])[label] + rng.normal(0, 0.3, label.shape))
    box = ((0, SIZE), (0, SIZE), (0, SLICES))
    geometry = Geometry((SIZE, SIZE, SLICES), box, (SIZE, SIZE), SIZE, (10.0, 2.0, 2.0))
    slices = Slices(np.stack(images).astype(np.float32), np.stack(labels))
    return Cohort(tuple(cases), (geometry,) * len(cases), slices)


@cache
def networks(name: str, devices: int, original: bool) -> Networks:
    """Compiled once for all tests."""
    return Networks(ORIGINAL if original else CONFIG, name, Devices(devices))


@cache
def _data(devices: int) -> ViewData:
    return ViewData.place("SA", _cohort(3, 1), _cohort(1, 2), _cohort(3, 3), Devices(devices))


def arm(folder: Path, name: str, devices: int, original: bool) -> Arm:
    """One that writes to a folder."""
    return Arm(networks(name, devices, original), _data(devices), folder, Journal(folder / "metrics.jsonl"))
