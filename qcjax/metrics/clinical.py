"""Clinical measures: volumes and ejection fraction."""

import math

import numpy as np
from jaxtyping import Bool

from qcjax.metrics.surface import Spacing, positive_spacing


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
