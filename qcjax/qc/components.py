"""Connected pieces of structures: a short-axis heart has one LV, one MYO and one RV."""

from collections.abc import Collection

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from qcjax.labels import BACKGROUND, Structure
from qcjax.metrics.overlap import joint_box


def keep_largest(
    labels: UInt8[np.ndarray, "*space"], structures: Collection[Structure]
) -> UInt8[np.ndarray, "*space"]:
    """A label map with the largest piece of each given structure; its smaller ones become background.

    Voxels that touch, be it at a corner, are of one piece. Of pieces of one size the first in the array stays.
    """
    box = joint_box(labels, labels)
    part, changed = labels[box], labels.copy()
    touching = np.ones((3,) * labels.ndim)
    for structure in structures:
        pieces, count = ndimage.label(part == structure.id, touching)
        if count > 1:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            changed[box][(pieces > 0) & (pieces != sizes.argmax())] = BACKGROUND
    return changed
