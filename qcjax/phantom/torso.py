"""What surrounds the heart: chest wall, lungs, spine and aorta, and the organs under the diaphragm.

World frame, in mm: x towards the patient's right, y anterior, z superior; the mediastinum is near the origin.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from qcjax.phantom.fields import Points, Wobble, capsule, ellipsoid, paint, smooth_max, smooth_min, smoothstep
from qcjax.phantom.tissue import Contrast, Textures


@dataclass(frozen=True)
class TorsoShape:
    """One patient's build; lengths in mm."""

    half_width: float
    half_depth: float
    fat: float  # subcutaneous
    breast: float  # fat added in front on each side
    right_dome: float  # z of the diaphragm's right dome
    left_dome: float
    mediastinum: float  # half its width
    stomach_fluid: float  # 0 gas to 1 fluid

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "TorsoShape":
        """A patient at random."""
        size = rng.normal(1, 0.06)
        dome = rng.normal(-37, 5)
        return cls(
            half_width=float(158 * size + rng.normal(0, 5)),
            half_depth=float(104 * size + rng.normal(0, 4)),
            fat=float(np.clip(rng.gamma(4, 3.2), 5, 28)),
            breast=float(rng.choice([0.0, rng.uniform(6, 22)])),
            right_dome=float(dome + rng.uniform(4, 16)),
            left_dome=float(dome - rng.uniform(0, 10)),
            mediastinum=float(rng.uniform(18, 27)),
            stomach_fluid=float(rng.uniform(0, 1)),
        )


def paint_torso(
    shape: TorsoShape, wobble: Wobble, points: Points, textures: Textures, contrast: Contrast, edge_mm: float
) -> Float[np.ndarray, "*at"]:
    """Signal of the body without the heart at these points of the world frame; air is 0."""
    s, c = shape, contrast
    x, y, z = p = wobble(points)
    fine, medium, coarse = textures(points)
    fat = c.fat * (0.95 + 0.05 * medium)
    image = np.zeros_like(x)

    k = ((np.abs(x) / s.half_width) ** 2.5 + (np.abs(y + 6) / s.half_depth) ** 2.5) ** np.float32(0.4)
    inner = np.hypot(x, y) * (1 - 1 / np.maximum(k, 0.05))  # distance to the inside of the subcutaneous fat
    front = smoothstep(y, 10, 80)
    thickness = s.fat * (1.1 - 0.35 * front) + s.breast * front * np.exp(-(((np.abs(x) - 72) / 40) ** 2))
    paint(image, inner - thickness - 2.0, c.muscle * 1.6, edge_mm)  # skin
    paint(image, inner - thickness, fat, edge_mm)
    pectoral = 5 * front * np.exp(-(((np.abs(x) - 80) / 45) ** 2))
    muscle = c.muscle * (1 + 0.10 * medium)
    paint(image, inner - pectoral, muscle, edge_mm)
    rib_phase = (z + 0.42 * y + 0.0009 * x * x) * np.float32(2 * np.pi / 27)
    rib = np.hypot(np.cos(rib_phase / 2) * 10.0, (inner + 9) * 1.25) - 5.4
    rib = np.maximum(rib, 26 - np.abs(x))
    paint(image, np.abs(inner + 4) - 0.9 - 0.5 * medium, fat, edge_mm)  # between the layers of muscle
    paint(image, rib, c.cortex * 2, edge_mm)
    paint(image, rib + 2.0, c.marrow * 1.1, edge_mm)
    sternum = np.hypot(np.maximum(np.abs(x) - 11, 0), inner + 8) - 5.5
    paint(image, sternum, c.cortex * 2, edge_mm)
    paint(image, sternum + 1.8, c.marrow * 1.2, edge_mm)

    # the cavity: mediastinal fat, then lungs, then whatever lies under the diaphragm
    cavity = inner + 15.5
    paint(image, cavity, fat * 0.9, edge_mm)
    right = s.right_dome - z - ((x - 72) / 98) ** 2 * 34 - (y / 85) ** 2 * 26
    left = s.left_dome - z - ((x + 74) / 92) ** 2 * 34 - (y / 85) ** 2 * 26
    abdomen = -smooth_min(-np.minimum(right, 60), -np.minimum(left, 60), 14.0)  # positive below the diaphragm
    middle = s.mediastinum * (1 + 0.35 * smoothstep(-y, 0, 60) - 0.65 * smoothstep(y, 10, 60)) + 3 * coarse
    lung = smooth_max(smooth_max(cavity + 1, abdomen + 2.5, 8.0), middle - np.abs(x + 4), 8.0)
    vessels = smoothstep(fine + 0.25 * coarse, 2.0, 2.7) * smoothstep(-lung, 3, 12)
    paint(image, lung - 1.2, muscle, edge_mm)  # pleura and diaphragm
    paint(image, lung, c.lung * (1.0 + 0.15 * fine) + (0.75 * c.venous_blood) * vessels, edge_mm)

    below = np.maximum(-abdomen, cavity)
    bowel = smoothstep(coarse, 0.2, 0.7) * (0.6 * c.muscle + 0.35 * np.clip(medium, 0, 1))
    paint(
        image,
        below,
        np.where(coarse > 0.2, 0.8 * c.fat * (1 - smoothstep(coarse, 0.2, 0.7)) + bowel, fat),
        edge_mm,
    )
    liver = ellipsoid(x - 58, y - 4, z - s.right_dome + 62, (104, 92, 66))
    lobe = ellipsoid(x + 12, y - 48, z - s.left_dome + 36, (66, 40, 34))
    liver = np.maximum(smooth_min(liver, lobe, 18.0), below + 3)
    branches = smoothstep(medium, 1.5, 2.1) * smoothstep(-liver, 4, 14)
    paint(image, liver, c.liver * (1 + 0.04 * fine) + (0.9 * c.venous_blood - c.liver) * branches, edge_mm)
    stomach = np.maximum(ellipsoid(x + 66, y - 12, z - s.left_dome + 40, (42, 50, 36)), below + 3.5)
    paint(image, stomach, c.muscle * 1.3, edge_mm)
    paint(image, stomach + 4.5, s.stomach_fluid * 0.7 * c.fluid * (1 + 0.12 * medium) + 0.03, edge_mm)
    spleen = np.maximum(ellipsoid(x + 100, y + 38, z - s.left_dome + 50, (30, 46, 52)), below + 3.5)
    paint(image, spleen, c.spleen * (1 + 0.03 * fine), edge_mm)
    cava = capsule(p, (24, -14, 10), (22, -26, -200), 10.5)
    paint(image, cava, c.venous_blood * 0.9, edge_mm)

    # spine and what runs along it
    erector = np.hypot((np.abs(x) - 30) / 1.25, y + s.half_depth - 22) - 19
    paint(image, np.maximum(erector, inner + 1), muscle, edge_mm)
    back = 0.55 * s.half_depth
    vertebra = np.hypot(x, (y + back) * 1.12) - 18
    disc = smoothstep(np.cos(z * np.float32(2 * np.pi / 26)), 0.72, 0.88)
    paint(image, vertebra, c.cortex, edge_mm)
    paint(image, vertebra + 2, c.marrow * (1 + 0.08 * fine) * (1 - 0.6 * disc), edge_mm)
    canal = np.hypot(x, y + back + 27) - 8
    paint(image, canal - 3, c.cortex * 2, edge_mm)
    paint(image, canal, c.fluid, edge_mm)
    paint(image, canal + 4, 0.5 * c.fluid, edge_mm)
    aorta = np.hypot(x + 25, y + back - 12) - 11.0
    paint(image, aorta - 1.6, c.muscle, edge_mm)
    paint(image, aorta, c.blood * (1 + 0.03 * coarse), edge_mm)
    oesophagus = np.hypot(x + 8, (y + back - 26) * 1.4) - 6.5
    paint(image, oesophagus, c.muscle * 1.4, edge_mm)
    return image
