"""Clinical measures: volumes, ejection fraction, mass, and what they are indexed by."""

import math

import numpy as np
from jaxtyping import Bool

from qcjax.metrics.surface import Spacing, positive_spacing

MYOCARDIUM_G_PER_ML = 1.05


def volume_ml(mask: Bool[np.ndarray, "*space"], spacing_mm: Spacing) -> float:
    """Volume of a mask in millilitres: number of voxels times the volume of one.

    Args:
      mask: any number of axes, usually three.
      spacing_mm: distance of neighbouring voxels along each axis; across slices from centre to centre, gaps
        included.

    Raises:
      ValueError: not a mask, or a spacing that doesn't fit the axes or isn't positive.
    """
    if mask.dtype != np.bool_:
        raise ValueError(f"mask: dtype {mask.dtype} found, expected bool")
    voxel_mm3 = float(np.prod(positive_spacing(spacing_mm, mask.ndim)))
    return int(np.count_nonzero(mask)) * voxel_mm3 / 1000


def ejection_fraction(edv_ml: float, esv_ml: float) -> float:
    """Ejection fraction in %: 100 (EDV - ESV) / EDV; NaN where there is no end-diastolic volume.

    Negative where the ventricle is larger at the end of systole, as a failed segmentation may have it.

    Args:
      edv_ml, esv_ml: end-diastolic and end-systolic volume in millilitres.

    Raises:
      ValueError: a negative volume.
    """
    for name, volume in (("edv_ml", edv_ml), ("esv_ml", esv_ml)):
        if volume < 0:
            raise ValueError(f"{name}: {volume} found, expected a volume of at least 0")
    return 100 * (edv_ml - esv_ml) / edv_ml if edv_ml else math.nan


def myocardial_mass_g(volume_ml: float) -> float:
    """Mass in g of so much myocardium, at 1.05 g/ml.

    Raises:
      ValueError: a negative volume.
    """
    if volume_ml < 0:
        raise ValueError(f"volume_ml: {volume_ml} found, expected a volume of at least 0")
    return MYOCARDIUM_G_PER_ML * volume_ml


def body_surface_m2(height_cm: float, weight_kg: float) -> float:
    """Body surface area in m², which indexes volumes and masses: √(height · weight / 3600) (Mosteller, NEJM 1987).

    Raises:
      ValueError: a height outside of 30 to 250 cm, such as one in metres, or a weight outside of 1 to 400 kg.
    """
    if not 30 <= height_cm <= 250:
        raise ValueError(f"height_cm: {height_cm} found, expected 30 to 250 cm")
    if not 1 <= weight_kg <= 400:
        raise ValueError(f"weight_kg: {weight_kg} found, expected 1 to 400 kg")
    return math.sqrt(height_cm * weight_kg / 3600)
