"""Files with other headers: of the same anatomy stored along other axes, of a spacing that is none."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np


def store_otherwise(
    path: Path, order: tuple[int, ...] = (1, 0, 2), signs: tuple[int, ...] = (1, -1, 1)
) -> None:
    """Rewrite a file with axis order[i] as its i-th, backwards where the i-th sign is -1, and its affine to match."""
    image = nib.load(path)
    array, affine = np.asarray(image.dataobj), np.eye(4)
    for i, axis in enumerate(order):
        affine[:3, i] = image.affine[:3, axis] * signs[i]
        if signs[i] < 0:
            affine[:3, 3] += image.affine[:3, axis] * (array.shape[axis] - 1)
    affine[:3, 3] += image.affine[:3, 3]
    array = array.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    stored = nib.Nifti1Image(array, affine)
    stored.header.set_zooms([image.header.get_zooms()[axis] for axis in order])
    nib.save(stored, path)


def set_pixdim(path: Path, axis: int, value: float) -> None:
    """Write a value into a NIfTI-1 header's spacing of an axis, 0 to 2, whatever nibabel would think of it."""
    packed = path.name.endswith(".gz")
    data = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    struct.pack_into("<f", data, 76 + 4 * (1 + axis), value)
    path.write_bytes(gzip.compress(bytes(data)) if packed else bytes(data))
