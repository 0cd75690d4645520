"""Scanners: the grid of a slice stack in the world, and what turns a signal into stored grey values."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Int16
from scipy import ndimage

from qcjax.phantom.tissue import Contrast


@dataclass(frozen=True)
class Scanner:
    """One vendor's machine and its protocol. The names mean nothing about any real maker."""

    vendor: str
    model: str
    field_t: float
    spacing_mm: float  # in plane
    matrix: int
    contrast: Contrast
    gamma: float  # of the stored grey values
    noise: float  # sd in each of the two channels, relative to blood
    bias: float  # log-ratio of the coil's sensitivity over 100 mm
    blur_mm: float  # sd of the point spread
    scale: float  # stored grey value of blood
    thickness_mm: float
    turn_deg: float  # sd of the heart's rotation and of the planes' tilt
    shift_mm: float  # sd of the field of view's centre
    banding: float = 0.0  # off-resonance bands
    ghosting: float = 0.0  # of motion, along the phase-encoding axis
    variation: float = 0.2  # sd, from subject to subject, of the log of how bad all this is


SCANNERS = (
    Scanner(
        vendor="SIEMENS",
        model="Phantom S1",
        field_t=1.5,
        spacing_mm=1.4,
        matrix=152,
        contrast=Contrast(),
        gamma=1.0,
        noise=0.030,
        bias=0.35,
        blur_mm=0.75,
        scale=620,
        thickness_mm=7,
        turn_deg=6,
        shift_mm=5,
    ),
    Scanner(
        vendor="PHILIPS",
        model="Phantom P1",
        field_t=1.5,
        spacing_mm=1.25,
        matrix=160,
        contrast=Contrast(myocardium=0.36, muscle=0.25, fat=0.78, liver=0.40, lung=0.05),
        gamma=0.9,
        noise=0.042,
        bias=0.55,
        blur_mm=0.95,
        scale=210,
        thickness_mm=8,
        turn_deg=6,
        shift_mm=6,
    ),
    Scanner(
        vendor="GE",
        model="Phantom G1",
        field_t=3.0,
        spacing_mm=1.6,
        matrix=136,
        contrast=Contrast(venous_blood=0.86, myocardium=0.27, fat=1.0, liver=0.28, marrow=0.42),
        gamma=1.12,
        noise=0.035,
        bias=0.7,
        blur_mm=0.6,
        scale=1450,
        thickness_mm=6,
        turn_deg=7,
        shift_mm=6,
        banding=0.12,
    ),
)

UNSEEN_SCANNER = (
    Scanner(  # low contrast between blood and myocardium, fat brighter than both, noise, bias, artefacts
        vendor="UNSEEN",
        model="Phantom X1",
        field_t=3.0,
        spacing_mm=1.75,
        matrix=144,
        contrast=Contrast(
            blood=0.80,
            venous_blood=0.72,
            myocardium=0.36,
            muscle=0.30,
            fat=1.25,
            liver=0.50,
            spleen=0.60,
            lung=0.09,
            marrow=0.55,
        ),
        gamma=0.85,
        noise=0.055,
        bias=0.9,
        blur_mm=1.1,
        scale=95,
        thickness_mm=8,
        turn_deg=14,
        shift_mm=10,
        banding=0.30,
        ghosting=0.08,
        variation=0.35,
    )
)


def worsen(scanner: Scanner, severity: float) -> Scanner:
    """The same scanner on a better (below 1) or worse (above 1) day: its noise, bias, artefacts, low contrast."""
    c = scanner.contrast
    middle = 0.5 * (c.blood + c.myocardium)
    keep = 1 - 0.28 * (severity - 1)
    contrast = replace(
        c,
        blood=middle + keep * (c.blood - middle),
        venous_blood=middle + keep * (c.venous_blood - middle),
        myocardium=middle + keep * (c.myocardium - middle),
    )
    return replace(
        scanner,
        contrast=contrast,
        noise=scanner.noise * severity,
        bias=scanner.bias * severity,
        banding=scanner.banding * severity,
        ghosting=scanner.ghosting * severity,
    )


@dataclass(frozen=True)
class Grid:
    """A slice stack in the world: `affine` takes voxel indices to mm."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    thickness_mm: float  # of a slice; at most the spacing where there are gaps
    affine: np.ndarray  # (4, 4) float64

    @classmethod
    def centred(
        cls,
        axes: Float[np.ndarray, "3 3"],
        centre: Float[np.ndarray, "3"],
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
        thickness_mm: float,
    ) -> "Grid":
        """The grid whose middle lies at `centre` (mm) and whose index axes run along the columns of `axes`."""
        affine = np.eye(4)
        affine[:3, :3] = axes * np.asarray(spacing_mm)
        affine[:3, 3] = centre - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
        return cls(shape, spacing_mm, thickness_mm, affine)

    def points(self, sub_slices: int) -> Float32[np.ndarray, "3 {sub_slices} x y slices"]:
        """World coordinates in mm, (3, sub_slices, x, y, slices) float32: each slice's thickness in equal parts."""
        along = [np.arange(n, dtype=np.float64) for n in self.shape]
        parts = (
            (np.arange(sub_slices) - (sub_slices - 1) / 2)
            / sub_slices
            * self.thickness_mm
            / self.spacing_mm[2]
        )
        a = self.affine
        out = np.empty((3, sub_slices, *self.shape), np.float32)
        for axis in range(3):
            i, j, k = (a[axis, n] * along[n] for n in range(3))
            part = a[axis, 2] * parts + a[axis, 3]
            out[axis] = part[:, None, None, None] + i[:, None, None] + j[:, None] + k
        return out


def acquire(
    signal: Float[np.ndarray, "x y slices"],
    grid: Grid,
    scanner: Scanner,
    rng: np.random.Generator,
    bias_direction: Float[np.ndarray, "3"],
) -> Int16[np.ndarray, "x y slices"]:
    """Stored grey values, int16, of a noiseless signal.

    Point spread, coil sensitivity, off-resonance bands, ghosts, Rician noise (the magnitude of a complex signal with
    Gaussian noise in both channels), then the vendor's own curve and scale.

    Args:
      signal: (x, y, slices) float32, blood near 1.
      bias_direction: (3,) unit vector of the world towards which the coil's sensitivity grows.
    """
    sigma = scanner.blur_mm / grid.spacing_mm[0]
    image = ndimage.gaussian_filter(signal, (sigma, sigma, 0), truncate=3.0)
    at = grid.points(1)[:, 0] - (grid.affine @ [*((np.asarray(grid.shape) - 1) / 2), 1])[:3, None, None, None]
    at = at.astype(np.float32)
    along = np.tensordot(bias_direction.astype(np.float32), at, 1) / 100
    radius = np.sqrt((at * at).sum(0)) / 100
    image = image * np.exp(scanner.bias * (along - 0.25 * radius))
    if scanner.banding > 0:
        wave, phase = rng.normal(0, 1, 3), rng.uniform(0, 2 * np.pi)
        wave = (wave / np.linalg.norm(wave) * 2 * np.pi / rng.uniform(110, 170)).astype(np.float32)
        band = np.maximum(np.cos(np.tensordot(wave, at, 1) + np.float32(phase)), 0) ** 12
        image = image * (1 - np.minimum(scanner.banding, 0.8) * band)
    if scanner.ghosting > 0:
        step = int(rng.integers(image.shape[1] // 5, image.shape[1] // 3))
        image = image + scanner.ghosting * (np.roll(image, step, 1) + np.roll(image, -step, 1)) / 2
    noise = rng.standard_normal((2, *image.shape), np.float32) * np.float32(scanner.noise)
    magnitude = np.hypot(image + noise[0], noise[1])
    return np.clip(np.round(scanner.scale * magnitude**scanner.gamma), 0, 32767).astype(np.int16)
