"""Planning: where the heart lies in the body, and the slices a radiographer lays through it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from qcjax.phantom.heart import HeartShape
from qcjax.phantom.scanner import Grid, Scanner

# heart frame -> world, columns u, v, w: the apex points to the left, forwards and down
HEART_AXES = np.array([[-0.67, 0.42, -0.61], [-0.74, -0.38, 0.56], [0.0, -0.83, -0.56]])


@dataclass(frozen=True)
class Pose:
    """Where the heart lies in the body."""

    axes: np.ndarray  # (3, 3), columns: u, v, w in the world, orthonormal
    origin: np.ndarray  # (3,) mm, of the heart frame

    def to_heart(self, world: Float[np.ndarray, "3 *at"]) -> Float[np.ndarray, "3 *at"]:
        """World -> heart coordinates, (3, ...) mm."""
        shifted = world - self.origin.astype(np.float32).reshape(3, *[1] * (world.ndim - 1))
        return np.tensordot(self.axes.T.astype(np.float32), shifted, 1)

    @classmethod
    def sample(cls, turn_deg: float, rng: np.random.Generator) -> "Pose":
        """A usual pose, turned by about `turn_deg` around each axis."""
        turn = Rotation.from_rotvec(np.radians(rng.normal(0, turn_deg, 3))).as_matrix()
        left, _, right = np.linalg.svd(turn @ HEART_AXES)
        return cls(left @ right, np.array([-18.0, 8.0, 0.0]) + rng.normal(0, 4, 3))


def _in_plane(axes: np.ndarray, degrees: float) -> np.ndarray:
    """The first two columns turned within their plane."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return axes @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _matrix(scanner: Scanner, scale: float) -> tuple[int, float]:
    matrix = max(16, round(scanner.matrix * scale))
    return matrix, scanner.spacing_mm * scanner.matrix / matrix


def short_axis(
    shape: HeartShape, pose: Pose, scanner: Scanner, rng: np.random.Generator, matrix_scale: float
) -> Grid:
    """A stack from above the base to below the apex, at right angles to the long axis but for a planning error."""
    spacing = float(rng.choice([8.0, 8.8, 9.6, 10.0, 10.0, 12.0]))
    above, below = rng.uniform(0.3, 1.6, 2) * spacing
    first, last = shape.base - above, shape.lv_apex + shape.wall * shape.apical_wall + 0.3 * below
    slices = int(np.clip(np.ceil((last - first) / spacing) + 1, 6, 17))
    tilt = Rotation.from_rotvec(np.radians(rng.normal(0, 0.25 * scanner.turn_deg, 3))).as_matrix()
    axes = _in_plane(pose.axes @ tilt, float(rng.normal(0, scanner.turn_deg)))
    middle = np.array([-14, 2, first + (slices - 1) * spacing / 2])
    middle[:2] += rng.normal(0, scanner.shift_mm, 2)
    matrix, pixel = _matrix(scanner, matrix_scale)
    centre = pose.origin + pose.axes @ middle
    return Grid.centred(
        axes, centre, (matrix, matrix, slices), (pixel, pixel, spacing), min(scanner.thickness_mm, spacing)
    )


def four_chamber(
    shape: HeartShape, pose: Pose, scanner: Scanner, rng: np.random.Generator, matrix_scale: float
) -> Grid:
    """The plane through the long axis and the widest part of the RV, seen from the feet: their left on the right."""
    swing = np.radians(rng.normal(6, 0.5 * scanner.turn_deg))  # to the inferior RV, off the outflow tract
    to_lateral = np.array([np.cos(swing), -np.sin(swing), 0.0])
    to_apex = np.array([0.0, 0.0, 1.0])
    tilt = Rotation.from_rotvec(np.radians(rng.normal(0, 0.15 * scanner.turn_deg, 3))).as_matrix()
    plane = pose.axes @ tilt @ np.stack([to_lateral, -to_apex, np.cross(to_lateral, -to_apex)], 1)
    left = plane.T @ np.array([-1.0, 0.0, 0.0])
    angle = float(np.degrees(np.arctan2(left[1], left[0])) + rng.normal(0, scanner.turn_deg))
    axes = _in_plane(plane, angle)
    middle = (
        -12 * to_lateral
        + (0.36 * shape.lv_apex) * to_apex
        + rng.normal(0, 0.8 * scanner.shift_mm, 3) * (1, 0.2, 1)
    )
    matrix, pixel = _matrix(scanner, matrix_scale)
    centre = pose.origin + pose.axes @ middle
    return Grid.centred(
        axes, centre, (matrix, matrix, 1), (pixel, pixel, scanner.thickness_mm), scanner.thickness_mm
    )
