"""Tissues as a balanced steady-state (bSSFP) cine shows them, and the painting of a heart with them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from qcjax.phantom.fields import Points, Texture, paint, smoothstep
from qcjax.phantom.heart import HeartFields

# the fine, the medium and the coarse texture at some points
Grain = tuple[Float[np.ndarray, "*at"], Float[np.ndarray, "*at"], Float[np.ndarray, "*at"]]


@dataclass(frozen=True)
class Contrast:
    """Signal of each tissue, relative to arterial blood's 1: what a sequence and a scanner make of it."""

    blood: float = 1.0
    venous_blood: float = 0.92
    myocardium: float = 0.30
    muscle: float = 0.20
    fat: float = 0.86
    liver: float = 0.33
    spleen: float = 0.44
    lung: float = 0.035
    marrow: float = 0.36
    cortex: float = 0.05
    fluid: float = 0.95


@dataclass(frozen=True)
class Textures:
    """One body's random fields, named by the size of their features."""

    fine: Texture  # 4 mm: trabeculae, lung vessels
    medium: Texture  # 9 mm: vessels in the liver, lobules of fat
    coarse: Texture  # 26 mm: where fat is thick, and where bowel lies

    @classmethod
    def make(cls, rng: np.random.Generator) -> "Textures":
        """Fields of one body."""
        return cls(Texture.make(rng, 4.2), Texture.make(rng, 9.0, 64), Texture.make(rng, 26.0))

    def __call__(self, points: Points) -> Grain:
        """The fine, the medium and the coarse field at these points."""
        return self.fine(points), self.medium(points), self.coarse(points)


def paint_heart(
    image: Float[np.ndarray, "*at"],
    fields: HeartFields,
    grain: Grain,
    contrast: Contrast,
    *,
    fat_mm: float,
    trabeculae: float,
    edge_mm: float,
) -> None:
    """Lay the heart over `image`, in place.

    Args:
      image: signal where the body is painted already.
      fields: the heart at the same points.
      grain: the heart's Textures at these points.
      fat_mm: mean thickness of the epicardial fat.
      trabeculae: how trabeculated the ventricles are, 0 to 1.
      edge_mm: width over which a border is blurred by partial volume.
    """
    f, c = fields, contrast
    fine, medium, coarse = grain
    fat = c.fat * (0.93 + 0.06 * medium)
    thickness = np.maximum(fat_mm * (0.55 + 0.75 * coarse), 0)
    paint(image, f.outside - thickness - 1.0, c.muscle, edge_mm)  # pericardium
    paint(image, f.outside - thickness, fat, edge_mm)

    swirl = 1 + 0.035 * coarse + 0.025 * medium
    venous = c.venous_blood * swirl
    arterial = c.blood * swirl
    for blood, value, wall in (
        (f.right_atrium, venous, 1.2),
        (f.left_atrium, arterial, 1.2),
        (f.pulmonary, venous * 0.97, 1.3),
        (f.aorta, arterial, 1.6),
    ):
        paint(image, blood - wall, c.myocardium, edge_mm)
        paint(image, blood, value, edge_mm)
    paint(image, f.groove, fat, edge_mm)
    paint(image, f.rv_wall, c.myocardium * 1.05, edge_mm)
    near_wall = smoothstep(f.rv, -11.0, 0.0)
    rough = trabeculae * near_wall * smoothstep(fine + 0.9 * near_wall, 0.7, 1.6)
    paint(image, f.rv, venous + 0.8 * rough * (c.myocardium - venous), edge_mm)

    muscle = c.myocardium * (1 + 0.05 * medium + 0.04 * fine)
    paint(image, f.myo, muscle, edge_mm)
    near_wall = smoothstep(f.lv, -7.0, 0.0)
    rough = trabeculae * near_wall * smoothstep(fine + 0.6 * near_wall, 0.6, 1.5)
    paint(image, f.lv, arterial + 0.75 * rough * (c.myocardium - arterial), edge_mm)
    paint(image, f.papillary + 0.8 * fine, muscle, edge_mm)
    paint(image, f.valves, 0.45 * c.blood, 2.5)
