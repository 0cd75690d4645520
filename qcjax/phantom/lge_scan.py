"""Late gadolinium enhancement as a phase-sensitive inversion recovery shows it, with signed signal.

Nulled myocardium and air lie in the middle of the grey scale, fluid below it, blood and infarctions a little above,
fat far above. Each slice is its own breath-hold: the heart lies elsewhere, and the null is not hit as well.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from qcjax.phantom.cohort import PhantomImage
from qcjax.phantom.fields import Points, Wobble, smoothstep
from qcjax.phantom.heart import HeartFields, HeartShape, heart_fields
from qcjax.phantom.lge_scar import Extent, Infarct, enclose, extent, label_tissues
from qcjax.phantom.planes import Pose
from qcjax.phantom.scanner import Grid
from qcjax.phantom.tissue import Contrast, Textures, paint_heart
from qcjax.phantom.torso import TorsoShape, paint_torso

SUB_SLICES = 3  # per slice, for partial volume
FEWEST_SLICES, MOST_SLICES = 5, 10
NEAR_MM = 50  # around the LV, where the heart is painted
NULL = 2048  # stored grey value of no signal
MOST = 4095


@dataclass(frozen=True)
class Protocol:
    """One subject's scan; signals relative to fat."""

    spacing_mm: float  # in plane
    slice_mm: float  # between slices
    thickness_mm: float
    field_mm: tuple[float, float]  # of view
    blood: float
    enhancement: float  # of an infarction above normal myocardium, relative to blood's
    dark_core: float  # of the enhancement, what no-reflow keeps
    null: float  # signal of normal myocardium, relative to blood's
    unsteady: float  # sd of the null from slice to slice, relative to blood
    noise: float  # sd, relative to blood
    blur_mm: float
    bias: float  # log-ratio of the coil's sensitivity over 100 mm
    shift_mm: float  # sd of the heart's place from breath-hold to breath-hold
    border: tuple[float, float, float, float]  # part of each side that the distributed image leaves black
    scale: float  # stored grey values of fat

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Protocol":
        """A scan at random."""
        side = rng.uniform(320, 380)
        return cls(
            spacing_mm=float(rng.choice([1.25, 1.40625, 1.4583334, 1.4583334, 1.5625, 1.875, 2.0])),
            slice_mm=13.0 if rng.random() < 0.15 else 10.0,
            thickness_mm=float(rng.choice([7.0, 8.0])),
            field_mm=(float(side * rng.uniform(0.62, 1.0)), float(side)),
            blood=float(rng.uniform(0.2, 0.38)),
            enhancement=float(np.clip(rng.lognormal(0.15, 0.32), 0.65, 2.6)),
            dark_core=float(rng.uniform(-0.1, 0.55)),
            null=float(rng.normal(0.05, 0.2)),
            unsteady=float(rng.uniform(0.05, 0.22)),
            noise=float(rng.uniform(0.05, 0.16)),
            blur_mm=float(rng.uniform(0.9, 1.5)),
            bias=float(rng.uniform(0.2, 0.7)),
            shift_mm=float(rng.uniform(0.3, 1.6)),
            border=tuple(np.maximum(rng.uniform(-0.08, 0.12, 4), 0).tolist()),
            scale=float(rng.uniform(800, 1300)),
        )

    def contrast(self) -> Contrast:
        """Signals of the tissues."""
        return Contrast(
            blood=self.blood,
            venous_blood=0.97 * self.blood,
            myocardium=self.null * self.blood,
            muscle=0.02,
            fat=1.0,
            liver=0.75 * self.blood,
            spleen=0.5 * self.blood,
            lung=-0.12,
            marrow=0.45,
            cortex=0.0,
            fluid=-0.55,
        )


def plan(
    shape: HeartShape, pose: Pose, protocol: Protocol, rng: np.random.Generator, matrix_scale: float
) -> Grid:
    """A stack from just inside the apex to just below the mitral valve, at right angles to the long axis."""
    first = shape.lv_apex - rng.uniform(4, 10)
    last = shape.base + rng.uniform(5, 11)
    slices = int((first - last) // protocol.slice_mm) + 1
    slices = min(max(slices, FEWEST_SLICES), MOST_SLICES)
    tilt = Rotation.from_rotvec(np.radians(rng.normal(0, 1.5, 3))).as_matrix()
    u, v, w = (pose.axes @ tilt).T
    swing = np.radians(rng.normal(0, 8))
    across = np.cos(swing) * u + np.sin(swing) * v
    down = np.cross(-w, across)  # right-handed, the slices from apex to base
    axes = np.stack([across, down, -w], 1)
    middle = np.array([-14, 2, first - (slices - 1) * protocol.slice_mm / 2])
    middle[:2] += rng.normal(0, 8, 2)
    shape_px = [max(16, round(side / protocol.spacing_mm * matrix_scale)) for side in protocol.field_mm]
    pixel = protocol.spacing_mm / matrix_scale
    return Grid.centred(
        axes,
        pose.origin + pose.axes @ middle,
        (shape_px[0], shape_px[1], slices),
        (pixel, pixel, protocol.slice_mm),
        min(protocol.thickness_mm, protocol.slice_mm),
    )


def scan_lge(
    shape: HeartShape,
    infarct: Infarct | None,
    trabeculae: float,
    protocol: Protocol,
    rng: np.random.Generator,
    matrix_scale: float,
) -> PhantomImage:
    """A heart, with its infarction where it has one, in a chest: image and labels.

    Args:
      trabeculae: how trabeculated the ventricles are, 0 to 1.
      matrix_scale: factor on the number of pixels along each side; the field of view stays.
    """
    contrast = protocol.contrast()
    torso, pose = TorsoShape.sample(rng), Pose.sample(6, rng)
    grid = plan(shape, pose, protocol, rng, matrix_scale)
    body_wobble, heart_wobble = Wobble.make(rng, 3.0, 90, 180), Wobble.make(rng, 1.3, 34, 80)
    textures = Textures.make(rng)
    slices, edge_mm = grid.shape[2], protocol.spacing_mm
    hold = rng.normal(0, protocol.shift_mm, (2, slices))  # mm, where each breath-hold has the heart
    shift = (grid.affine[:3, :2] / grid.spacing_mm[0] @ hold).astype(np.float32)
    world = grid.points(SUB_SLICES) + shift[:, None, None, None, :]
    middle = world[:, SUB_SLICES // 2]
    body = paint_torso(torso, body_wobble, (middle[0], middle[1], middle[2]), textures, contrast, edge_mm)
    u, v, _ = pose.to_heart(middle)
    # the same pixels of all the parts of a slice, so that they can be averaged
    near = np.nonzero(np.hypot(u + 18, v) < shape.lv_radius + shape.wall + NEAR_MM)
    heart = pose.to_heart(world[:, :, near[0], near[1], near[2]])
    inside: Points = (heart[0], heart[1], heart[2])
    fields = heart_fields(shape, heart_wobble, inside)
    grain = textures(inside)
    painted = np.repeat(body[near][None], SUB_SLICES, 0)
    paint_heart(
        painted, fields, grain, contrast, fat_mm=0.6 * shape.fat, trabeculae=trabeculae, edge_mm=edge_mm
    )
    dead = extent(infarct, shape, inside, fields, grain)
    null = rng.normal(0, protocol.unsteady, slices).astype(np.float32)[near[2]]
    painted += _wall(fields, dead, grain, protocol, null, edge_mm)
    body[near] = painted.mean(0)
    label = np.zeros(grid.shape, np.uint8)
    label[near] = label_tissues(fields, dead)[SUB_SLICES // 2]
    image = _acquire(body, grid, protocol, rng)
    return PhantomImage(image, enclose(label), grid.spacing_mm, grid.affine)


def _wall(
    fields: HeartFields,
    dead: Extent,
    grain: tuple[np.ndarray, np.ndarray, np.ndarray],
    protocol: Protocol,
    null: np.ndarray,
    edge_mm: float,
) -> np.ndarray:
    """What the LV's wall has more signal than the nulled myocardium that is painted there."""
    fine, medium, coarse = grain
    wall = np.clip(0.5 - fields.myo / edge_mm, 0, 1) * np.clip(0.5 + fields.lv / edge_mm, 0, 1)
    uneven = null + 0.14 * coarse + 0.10 * medium
    enhanced = protocol.enhancement * (1 + 0.16 * medium + 0.08 * fine)
    enhanced *= smoothstep(dead.infarct + 0.5 * fine, -2.0, 2.4)  # a border zone of both tissues
    enhanced *= 1 - (1 - protocol.dark_core) * smoothstep(dead.core, -1.2, 1.2)
    return protocol.blood * wall * (uneven + enhanced)


def _acquire(signal: np.ndarray, grid: Grid, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Stored grey values, int16, 0 to 4095, of a noiseless signed signal (x, y, slices)."""
    sigma = protocol.blur_mm / grid.spacing_mm[0]
    image = ndimage.gaussian_filter(signal, (sigma, sigma, 0), truncate=3.0)
    n_x, n_y, slices = grid.shape
    x = np.linspace(-0.5, 0.5, n_x, dtype=np.float32)[:, None, None] * n_x * grid.spacing_mm[0] / 100
    y = np.linspace(-0.5, 0.5, n_y, dtype=np.float32)[:, None] * n_y * grid.spacing_mm[1] / 100
    towards = rng.uniform(0, 2 * np.pi)
    along = np.float32(np.cos(towards)) * x + np.float32(np.sin(towards)) * y
    gain = rng.normal(1, 0.04, slices).astype(np.float32)
    image = image * gain * np.exp(protocol.bias * (along - 0.25 * np.hypot(x, y)))
    noise = rng.standard_normal(grid.shape, np.float32)
    noise = ndimage.gaussian_filter(noise, (0.5, 0.5, 0))  # images are stored finer than they are acquired
    image += noise * np.float32(protocol.noise * protocol.blood / noise.std())
    stored = np.clip(np.round(NULL + protocol.scale * image), 1, MOST).astype(np.int16)
    for k in range(slices):
        left, right, top, bottom = np.maximum(np.array(protocol.border) + rng.normal(0, 0.008, 4), 0)
        black = np.ones((n_x, n_y), bool)
        black[round(left * n_x) : n_x - round(right * n_x), round(top * n_y) : n_y - round(bottom * n_y)] = (
            False
        )
        stored[black, k] = 0
    return stored
