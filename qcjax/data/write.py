"""Label maps and maps written on the grid of the file that they belong to."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped

from qcjax.data.files import is_gzip
from qcjax.data.subject import Volume
from qcjax.runtime.files import write_whole


def encode_labels(array: Shaped[np.ndarray, "x y s"], like: Volume) -> bytes:
    """A label map (x, y, slices) as a .nii file's bytes, on the grid of `like`: affine, codes, zooms, units.

    Raises:
      ValueError: a shape other than that of `like`, or values that aren't labels 0 to 65535.
    """
    if array.shape != like.array.shape:
        raise ValueError(
            f"labels of shape {array.shape}; expected {like.array.shape}, the grid of {like.path}"
        )
    labels = array.astype(np.uint8 if array.max(initial=0) < 256 else np.uint16)
    if not np.array_equal(labels, array):
        raise ValueError(
            f"labels for {like.path} between {array.min()} and {array.max()}; expected integers 0-65535"
        )
    return _encode(labels, like)


def write_map(path: Path, array: Float[np.ndarray, "x y s"], like: Volume) -> None:
    """Write a map (x, y, slices), such as a variance, as float32 on the grid of `like`.

    Raises:
      ValueError: a shape other than that of `like`.
    """
    if array.shape != like.array.shape:
        raise ValueError(
            f"a map of shape {array.shape}; expected {like.array.shape}, the grid of {like.path}"
        )
    path, data = Path(path), _encode(array.astype(np.float32), like)
    write_whole(path, gzip.compress(data, 1, mtime=0) if is_gzip(path) else data)


def _encode(array: np.ndarray, like: Volume) -> bytes:
    array = like.axes.take_back(array)
    if like.header is None:
        image = nib.Nifti1Image(array, like.affine)
        image.header.set_zooms(like.spacing_mm)
        return image.to_bytes()
    header = like.header.copy()
    if header["dim"][0] == 2:  # one slice that was stored without a third axis
        array = array.reshape(array.shape[:2])
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(None, None)
    header["cal_min"] = header["cal_max"] = 0  # the image's grey window would hide the labels
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return kind(array, None, header).to_bytes()


def write_labels(path: Path, array: Shaped[np.ndarray, "x y s"], like: Volume, level: int = 6) -> None:
    """Write a label map (x, y, slices) on the grid of `like`, as uint8, or uint16 where a label is above 255; the same
    labels give the same bytes.

    Args:
      level: of gzip, 1 (fastest) to 9 (smallest).

    Raises:
      ValueError: a shape other than that of `like`, or values that aren't labels 0 to 65535.
    """
    path = Path(path)
    data = encode_labels(array, like)
    write_whole(path, gzip.compress(data, level, mtime=0) if is_gzip(path) else data)
