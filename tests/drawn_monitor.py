"""Monitors of drawn masks: trained for seconds, or with a network that is given and rebuilds known shapes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import nibabel as nib
import numpy as np

from qcjax.config import METHODS, AutoencoderConfig, Centre, MonitorConfig
from qcjax.data.mask_cohort import MaskCase, MaskCohort, prepare_masks
from qcjax.data.preprocess import prepare_mask, to_square
from qcjax.data.subject import Volume
from qcjax.inference.monitor import Monitor
from qcjax.runtime.devices import Devices
from qcjax.train.monitor import MonitorTraining
from qcjax.typing import Array, Variables
from tests.seeds import seed

LABELS = {"rv": 1, "myo": 2, "lv": 3}  # as ACDC's files have them
SPACING_MM = (2.0, 2.0, 8.0)
SHAPE = (60, 56, 4)
SMALL = MonitorConfig(
    size=64,
    spacing_mm=2.0,
    autoencoder=AutoencoderConfig(
        width=4, latent=16, dropout=0.0, epochs=3, steps=6, batch=8, learning_rate=1e-2, early_epochs=1
    ),
)


def heart(dx: float, dy: float) -> np.ndarray:
    """A ring with its pool, and a crescent beside it, moved by so many voxels: (x, y, slices), numbered as LABELS."""
    x, y = np.meshgrid(*(np.arange(float(n)) for n in SHAPE[:2]), indexing="ij")
    mask = np.zeros(SHAPE, np.uint8)
    for s, scale in enumerate((1.0, 0.95, 0.85, 0.7)):
        r = np.hypot(x - 34 - dx, y - 28 - dy)
        mask[np.hypot(x - 20 - dx, y - 28 - dy) < 11 * scale, s] = 1
        mask[r < 11 * scale, s] = 2
        mask[r < 7 * scale, s] = 3
    return mask


def draw(rng: np.random.Generator) -> np.ndarray:
    """A heart moved by up to 3 voxels."""
    return heart(*rng.uniform(-3, 3, 2))


def save_cases(folder: Path) -> list[MaskCase]:
    """Two masks of each of six subjects."""
    rng, found = np.random.default_rng(0), []
    for i in range(6):
        for phase in ("ED", "ES"):
            path = folder / f"p{i}_{phase}.nii.gz"
            nib.save(nib.Nifti1Image(draw(rng), np.diag((*SPACING_MM, 1))), path)
            found.append(MaskCase(f"p{i}_{phase}", f"p{i}", path))
    return found


def _cohort(cases: list[MaskCase]) -> MaskCohort:
    return prepare_masks(cases, {0: 0, 1: 1, 2: 2, 3: 3}, SMALL.spacing_mm, SMALL.size)


COMPILED: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # trainings of one kind share what they compile


def training(
    cases: list[MaskCase], folder: Path, epochs: int = 3, reading: str = "paper", count: int = 1, **more: Any
) -> MonitorTraining:
    """On the first four subjects, with the other two for validation; on so many devices."""
    autoencoder = replace(SMALL.autoencoder, epochs=epochs, **more)
    dice = "generalised" if reading == "original" else SMALL.dice
    config, devices = replace(SMALL, autoencoder=autoencoder, dice=dice), Devices(count)
    parts = _cohort(cases[:8]), _cohort(cases[8:])
    run = MonitorTraining(config, LABELS, *parts, folder, seed(), METHODS[reading], devices)  # type: ignore[arg-type]
    program = (*run.sizes.values(), autoencoder.augment, dice, reading, count)
    run._step, run._rebuild, run._take = COMPILED.setdefault(program, (run._step, run._rebuild, run._take))
    return run


class NearestShape(nn.Module):
    """In place of the autoencoder: of given one-hot slices (n, h, w, k) the one that most pixels agree with."""

    classes: int = 4
    axis_name: str | None = None

    @nn.compact
    def logits(self, x: Array) -> tuple[Array, ...]:
        """(b, h, w, k) -> the same; sums of zeros and ones, so no CPU rounds them."""
        shapes: Array = self.get_variable("params", "shapes")
        return (shapes[jnp.einsum("bhwk,nhwk->bn", x, shapes).argmax(-1)],)


def _shapes(spacing_mm: float, size: int) -> Variables:
    """The slices of hearts moved by whole voxels, in the middle of the image or of the square, and an empty one."""
    slices, moves = [np.zeros((1, size, size), np.uint8)], range(-3, 4)
    centres: tuple[Centre, ...] = ("image", "mask")
    for mask in (heart(dx, dy) for dx in moves for dy in moves):
        for centre in centres:
            volume = Volume(mask, SPACING_MM, np.eye(4), Path("mask"))
            geometry, resampled = prepare_mask(volume, spacing_mm, size, centre)
            slices.append(to_square(resampled, geometry))
    labels = np.unique(np.concatenate(slices), axis=0)
    return {"params": {"shapes": np.eye(4, dtype=np.float32)[labels]}}


def nearest_shape_monitor(cases: list[MaskCase], folder: Path, reading: str = "paper") -> Monitor:
    """What a training exports whose network rebuilds the nearest heart, with its scale from the validation masks."""
    run = training(cases, folder, reading=reading)
    run.network = NearestShape()  # type: ignore[assignment]
    folder.mkdir(exist_ok=True)
    return run.export(_shapes(SMALL.spacing_mm, SMALL.size), 1, 0.0)
