"""Smooth random functions of space and the painting of anti-aliased shapes: what heart and torso are made with."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

# three coordinates in mm, float32, all of one shape
Points = tuple[Float[np.ndarray, "*at"], Float[np.ndarray, "*at"], Float[np.ndarray, "*at"]]


def ellipsoid(
    x: Float[np.ndarray, "*at"], y: Float[np.ndarray, "*at"], z: Float[np.ndarray, "*at"], radii: tuple
) -> Float[np.ndarray, "*at"]:
    """Approximate signed distance (mm, negative inside) to the ellipsoid of these radii at the origin.

    First-order: k0 (k0 - 1) / k1 with k0 = |p / r| and k1 = |p / r^2|, exact for a sphere. A radius may be an array,
    e.g. one value on each side of a plane.
    """
    qx, qy, qz = x / radii[0], y / radii[1], z / radii[2]
    k0 = np.sqrt(qx * qx + qy * qy + qz * qz)
    k1 = np.sqrt((qx / radii[0]) ** 2 + (qy / radii[1]) ** 2 + (qz / radii[2]) ** 2)
    return k0 * (k0 - 1) / np.maximum(k1, 1e-4)


def capsule(
    points: Points, start: tuple[float, ...], end: tuple[float, ...], radius: float
) -> Float[np.ndarray, "*at"]:
    """Signed distance (mm, negative inside) to a rod with round ends."""
    a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
    axis = b - a
    p = [c - o for c, o in zip(points, a, strict=True)]
    along = (p[0] * axis[0] + p[1] * axis[1] + p[2] * axis[2]) / float(axis @ axis)
    along = np.clip(along, 0, 1)
    square = sum((c - along * d) ** 2 for c, d in zip(p, axis, strict=True))
    return np.sqrt(square) - np.float32(radius)


def smooth_max(
    a: Float[np.ndarray, "*at"], b: Float[np.ndarray, "*at"], width_mm: float
) -> Float[np.ndarray, "*at"]:
    """Maximum with its edge rounded over about `width_mm`: the intersection of two shapes without a crease."""
    h = np.maximum(width_mm - np.abs(a - b), 0) / width_mm
    return np.maximum(a, b) + h * h * np.float32(width_mm / 4)


def smooth_min(
    a: Float[np.ndarray, "*at"], b: Float[np.ndarray, "*at"], width_mm: float
) -> Float[np.ndarray, "*at"]:
    """Minimum with its edge rounded over about `width_mm`: the union of two shapes without a crease."""
    return -smooth_max(-a, -b, width_mm)


def smoothstep(x: Float[np.ndarray, "*at"], low: float, high: float) -> Float[np.ndarray, "*at"]:
    """0 up to `low`, 1 from `high`, a cubic between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def paint(
    image: Float[np.ndarray, "*at"],
    distance: Float[np.ndarray, "*at"],
    value: Float[np.ndarray, "*at"] | float,
    edge_mm: float,
) -> None:
    """Lay a tissue over `image`, in place: fully inside the shape, by partial volume within `edge_mm` of its border."""
    alpha = np.clip(0.5 - distance / np.float32(edge_mm), 0, 1)
    image += alpha * (value - image)


@dataclass(frozen=True)
class Texture:
    """A random field in space of zero mean and unit variance, periodic, smooth over `grain_mm`."""

    lattice: np.ndarray  # (n, n, n) float32
    step_mm: float
    interpolate: bool  # between lattice points; not worth its time where the lattice is finer than pixels

    @classmethod
    def make(cls, rng: np.random.Generator, grain_mm: float, size: int = 48) -> "Texture":
        """A field whose features are about `grain_mm` wide."""
        oversampling = 3 if grain_mm > 16 else max(2, round(grain_mm / 1.5))  # lattice steps per feature
        step_mm = grain_mm / oversampling
        frequency = np.fft.fftfreq(size).astype(np.float32)
        square = (
            frequency[:, None, None] ** 2
            + frequency[None, :, None] ** 2
            + frequency[None, None, : size // 2 + 1] ** 2
        )
        sigma = 0.43 * oversampling  # lattice steps
        spectrum = np.fft.rfftn(rng.standard_normal((size,) * 3, np.float32))
        field = np.fft.irfftn(
            spectrum * np.exp(-2 * (np.pi * sigma) ** 2 * square), s=(size,) * 3, axes=(0, 1, 2)
        )
        return cls(((field - field.mean()) / field.std()).astype(np.float32), step_mm, step_mm > 2.0)

    def __call__(self, points: Points) -> np.ndarray:
        """The field at these points."""
        if self.interpolate:
            at = np.stack([c * np.float32(1 / self.step_mm) for c in points])
            return ndimage.map_coordinates(self.lattice, at, order=1, mode="grid-wrap")
        size = self.lattice.shape[0]
        i, j, k = (np.floor(c * np.float32(1 / self.step_mm)).astype(np.int32) % size for c in points)
        return self.lattice.ravel()[(i * size + j) * size + k]


@dataclass(frozen=True)
class Wobble:
    """A smooth random displacement of space, a sum of plane waves: organic shapes out of regular ones."""

    waves: np.ndarray  # (3, n, 3) wave vectors per displaced axis, radians per mm
    phases: np.ndarray  # (3, n) radians
    amplitude_mm: float

    @classmethod
    def make(
        cls, rng: np.random.Generator, amplitude_mm: float, shortest_mm: float, longest_mm: float
    ) -> "Wobble":
        """Displacements of about `amplitude_mm` over wavelengths of `shortest_mm` to `longest_mm`."""
        n = 3
        direction = rng.standard_normal((3, n, 3))
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        wavelength = rng.uniform(shortest_mm, longest_mm, (3, n, 1))
        waves = (2 * np.pi * direction / wavelength).astype(np.float32)
        return cls(waves, rng.uniform(0, 2 * np.pi, (3, n)).astype(np.float32), amplitude_mm)

    def __call__(self, points: Points) -> Points:
        """These points, displaced."""
        x, y, z = points
        scale = np.float32(self.amplitude_mm / np.sqrt(self.phases.shape[1] / 2))
        moved = []
        for coordinate, waves, phases in zip(points, self.waves, self.phases, strict=True):
            shift = sum(
                np.sin(x * k[0] + y * k[1] + z * k[2] + phase) for k, phase in zip(waves, phases, strict=True)
            )
            moved.append(coordinate + scale * shift)
        return moved[0], moved[1], moved[2]
