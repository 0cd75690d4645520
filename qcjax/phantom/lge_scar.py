"""Infarctions: what of a wall has died, as a continuous shape that any slice cuts, and its no-reflow core.

An infarction spreads from the endocardium outwards within one coronary territory: its depth in the wall is largest
at its centre and falls to nothing at its rim. Where it is large and deep, its core has no flow and stays dark.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from qcjax.labels import BACKGROUND, CAVITY, INFARCTION, NO_REFLOW, NORMAL_MYO
from qcjax.phantom.fields import Points, smoothstep
from qcjax.phantom.heart import HeartFields, HeartShape
from qcjax.phantom.tissue import Grain

NEVER = np.float32(-50)  # mm inside of what isn't there


@dataclass(frozen=True)
class Territory:
    """What a coronary artery supplies. Angles in degrees: 0 lateral, 90 inferior, 180 septal, -90 anterior."""

    angle: float
    spread: float  # sd of the angle
    along: tuple[float, float]  # centre of an infarction along the axis: 0 base, 1 tip of the cavity


TERRITORIES = {
    "LAD": Territory(-120, 18, (0.55, 0.95)),
    "LCx": Territory(10, 20, (0.25, 0.65)),
    "RCA": Territory(110, 18, (0.2, 0.65)),
}
FREQUENCY = (0.5, 0.18, 0.32)  # of the territories


@dataclass(frozen=True)
class Infarct:
    """One infarction; lengths in mm, angles in radians."""

    territory: str
    angle: float  # of its centre
    half_width: float  # angle from its centre to its rim
    centre: float  # along the long axis
    half_length: float
    transmurality: float  # depth at its centre, as a part of the wall
    core: float  # no-reflow, as a part of its half-width and half-length; 0 for none

    @classmethod
    def sample(cls, shape: HeartShape, rng: np.random.Generator) -> "Infarct":
        """An infarction of this heart at random; the larger and deeper, the more likely it has a core."""
        name = str(rng.choice(list(TERRITORIES), p=FREQUENCY))
        territory = TERRITORIES[name]
        length = shape.lv_apex - shape.base
        size = rng.beta(1.7, 1.5)
        transmurality = float(np.clip(rng.uniform(0.3, 1.0) + 0.3 * (size - 0.35), 0.25, 1.0))
        likely = np.clip(1.25 * (size + 0.8 * transmurality) - 0.625, 0, 1)
        core = rng.uniform(0.35, 0.85) if transmurality > 0.45 and rng.random() < likely else 0.0
        return cls(
            territory=name,
            angle=float(np.radians(rng.normal(territory.angle, territory.spread))),
            half_width=float(np.radians(32 + 72 * size + rng.normal(0, 5))),
            centre=float(shape.base + length * rng.uniform(*territory.along)),
            half_length=float(np.clip(18 + 40 * size + rng.normal(0, 3), 12, 70)),
            transmurality=transmurality,
            core=float(core),
        )


@dataclass(frozen=True)
class Extent:
    """How far (mm) points lie inside an infarction and inside its core; negative outside."""

    infarct: np.ndarray
    core: np.ndarray


def extent(
    infarct: Infarct | None,
    shape: HeartShape,
    points: Points,
    fields: HeartFields,
    grain: Grain,
) -> Extent:
    """An infarction at points of the wall; it says nothing about points outside of the wall.

    Args:
      infarct: None for a healthy heart.
      points: (u, v, w) of the heart frame, mm.
      fields: the heart at these points.
      grain: Textures at these points, which make the rim irregular.
    """
    if infarct is None:
        nowhere = np.full_like(fields.lv, NEVER)
        return Extent(nowhere, nowhere)
    i, (u, v, w), (_, medium, coarse) = infarct, points, grain
    turn = np.arctan2(v, u) - np.float32(i.angle)
    turn = np.abs((turn + np.pi) % (2 * np.pi) - np.pi)
    # towards the tip an artery reaches farther around the heart
    around = turn / (i.half_width * (1 + 0.9 * smoothstep(w, shape.lv_apex - 25, shape.lv_apex + 5)))
    rim = np.hypot(around, (w - i.centre) / i.half_length) * (1 + 0.10 * coarse)
    thickness = np.maximum(fields.lv - fields.myo, 1)  # of the wall, at each point
    depth = fields.lv / thickness  # 0 at the endocardium, 1 at the epicardium
    left = 1 - rim * rim
    # a wavefront: half an ellipse; transmural ones are so over most of their width
    reach = 1.3 * i.transmurality * np.sign(left) * np.sqrt(np.abs(left))
    inside = (reach - depth) * thickness + np.float32(0.7) * medium
    inside = np.minimum(inside, (1 - rim) * 25).astype(np.float32)
    if i.core == 0:
        return Extent(inside, np.full_like(inside, NEVER))
    core = np.minimum((0.66 * reach - depth) * thickness, (i.core - rim) * 20) + 0.6 * medium
    return Extent(inside, np.minimum(core, inside - 1.2).astype(np.float32))


def label_tissues(fields: HeartFields, extent: Extent) -> UInt8[np.ndarray, "*at"]:
    """Labels of the points at which `fields` and `extent` were evaluated, uint8; the RV is background."""
    labels = np.full(fields.lv.shape, BACKGROUND, np.uint8)
    labels[fields.myo < 0] = NORMAL_MYO.id
    labels[(fields.myo < 0) & (extent.infarct > 0)] = INFARCTION.id
    labels[(fields.myo < 0) & (extent.core > 0)] = NO_REFLOW.id
    labels[fields.lv < 0] = CAVITY.id
    return labels


def enclose(labels: UInt8[np.ndarray, "x y slices"]) -> UInt8[np.ndarray, "x y slices"]:
    """No-reflow that touches normal myocardium or background in its slice becomes infarction: (x, y, slices)."""
    other = (labels == NORMAL_MYO.id) | (labels == BACKGROUND)
    near = ndimage.binary_dilation(other, np.ones((3, 3, 1), bool))
    return np.where((labels == NO_REFLOW.id) & near, np.uint8(INFARCTION.id), labels)
