"""A heart drawn with compass and ruler, for tests that need to know where everything is."""

import numpy as np

SPACING_MM = (8.0, 1.25, 2.0)  # (slices, h, w)
CENTRE_MM = (90.0, 110.0)  # (h, w) of the left ventricle
RV_CENTRE_MM = (90.0, 70.0)


def drawn_heart(spacing_mm=SPACING_MM, shape=(9, 160, 110)):
    """A short-axis mask (slices, h, w): LV radius 20 mm, MYO to 30 mm, RV a disc of 25 mm beside it.

    The first and the last slice are empty; the slice before the last has no RV.
    """
    h, w = (np.arange(n) * mm for n, mm in zip(shape[1:], spacing_mm[1:], strict=True))
    from_lv = np.hypot(h[:, None] - CENTRE_MM[0], w[None] - CENTRE_MM[1])
    from_rv = np.hypot(h[:, None] - RV_CENTRE_MM[0], w[None] - RV_CENTRE_MM[1])
    of_slice = np.where(from_rv < 25, 3, 0)
    of_slice[from_lv < 30] = 2
    of_slice[from_lv < 20] = 1
    mask = np.zeros(shape, np.uint8)
    mask[1:-1] = of_slice
    mask[-2][mask[-2] == 3] = 0
    return mask


def in_mm(mask, label, axis_spacing=SPACING_MM):
    """Positions (n, 3) in mm of the voxels with a label."""
    return np.argwhere(mask == label) * np.array(axis_spacing)
