"""How much is measured, and the same inputs for both sides. NumPy alone, so that neither side carries the other."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcjax.labels import LV, MYO, N_CLASSES, RV

NETWORKS = ("nnunet", "acdc_unet", "autoencoder")
NETWORK_3D = "nnunet, 3-D"
NETWORKS_3D = (NETWORK_3D,)
STRIDES_3D = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))
MAX_WIDTH_3D = 320
SCALES = {"nnunet": 6, "acdc_unet": 1}  # outputs of the segmenters


@dataclass(frozen=True)
class Sizes:
    """Sizes of the inputs; the networks' own sizes are the originals' wherever `width` is None."""

    size: int = 256
    batch: int = 20
    autoencoder_batch: int = 8
    volume: tuple[int, int, int, int] = (1, 16, 96, 96)  # of the 3-D network: batch, slices, h, w
    width: int | None = None
    stages: int = 7  # of nnunet
    repeats: int = 5
    training: int = 2  # subjects
    validation: int = 1
    unlabelled: int = 1
    slices: int = (
        10  # of each synthetic stack, so that a subject fills a batch as most are filled in a large cohort
    )
    matrix_scale: float = 1.0  # of the synthetic cohort's images
    warm_up_steps: tuple[int, int] = (40, 150)  # of M and R, so that there are masks like hearts to measure


FULL = Sizes()
QUICK = Sizes(
    size=64, batch=16, autoencoder_batch=2, volume=(1, 8, 32, 32), repeats=2,
    training=1, validation=1, unlabelled=2, slices=8,
    matrix_scale=0.25, warm_up_steps=(2, 2),
)  # fmt: skip


def sizes(quick: bool, compare: bool) -> Sizes:
    """Full or quick; quick without the originals has narrow networks too."""
    if not quick:
        return FULL
    return QUICK if compare else replace(QUICK, width=4)


def threads() -> int:
    """How many processors this process may use; both sides are given as many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shape_of(name: str, s: Sizes) -> tuple[int, ...]:
    """The shape of a network's batch: (b, *space)."""
    if name == NETWORK_3D:
        return s.volume
    return s.autoencoder_batch if name == "autoencoder" else s.batch, s.size, s.size


def images(name: str, s: Sizes) -> np.ndarray:
    """Noise: (b, *space, 1) float32."""
    return np.random.default_rng(0).normal(size=(*shape_of(name, s), 1)).astype(np.float32)


def labels(name: str, s: Sizes) -> np.ndarray:
    """Every structure in every slice, as squares: (b, *space) int32."""
    shape = shape_of(name, s)
    h, w = shape[-2:]
    label = np.zeros(shape, np.int32)
    label[..., h // 4 : 3 * h // 4, w // 4 : w // 2] = RV.id
    label[..., h // 4 : 3 * h // 4, w // 2 : 3 * w // 4] = MYO.id
    label[..., 3 * h // 8 : 5 * h // 8, 9 * w // 16 : 11 * w // 16] = LV.id
    return label


def one_hot(label: np.ndarray) -> np.ndarray:
    """(...) -> (..., k) float32."""
    return np.eye(N_CLASSES, dtype=np.float32)[np.asarray(label)]


def network_input(name: str, s: Sizes) -> np.ndarray:
    """(b, *space, c) float32."""
    return one_hot(labels(name, s)) if name == "autoencoder" else images(name, s)


def targets(name: str, s: Sizes) -> list[np.ndarray]:
    """One-hot targets of every output, the finest first; none for the autoencoder, whose target is its input."""
    if name == "autoencoder":
        return []
    strides: Sequence[Sequence[int]] = (
        STRIDES_3D[:-1] if name == NETWORK_3D else ((1, 1), *((2, 2),) * (SCALES[name] - 1))
    )
    label, scales = labels(name, s), []
    for stride in strides:
        label = label[(slice(None), *(slice(None, None, f) for f in stride))]
        scales.append(one_hot(label))
    return scales
