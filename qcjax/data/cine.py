"""Cines: files of several frames (x, y, slices, time), read and written frame by frame."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Integer

from qcjax.data.files import is_gzip
from qcjax.data.findings import InvalidFile
from qcjax.data.geometry import Orientation
from qcjax.data.nifti import brought, read_stored
from qcjax.data.subject import Volume
from qcjax.data.write import encode_labels, write_labels
from qcjax.runtime.files import write_whole


@np.errstate(all="ignore")  # what isn't finite is refused, not warned of
def read_frames(path: Path, orientation: Orientation | None = None) -> list[Volume]:
    """The frames of a cine (x, y, slices, time), or the one of a still image, each as `read_image` gives it.

    Frames follow one another along the one axis beyond the third that is longer than 1.

    Args:
      orientation: what their axes are brought to; None: as stored, but for the slices, which are the last axis.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: unreadable, of more than one such axis, or with NaN or infinite intensities.
    """
    path = Path(path)
    grid, header, stored = read_stored(path, cine=True)
    bad = stored.size - int(np.count_nonzero(np.isfinite(stored)))
    if bad:
        raise InvalidFile(path, f"{bad} NaN or infinite voxels of {stored.size}", "finite intensities")
    frames = np.moveaxis(stored, -1, 0) if stored.ndim == 4 else stored[None]
    axes = grid.axes(orientation)
    return [brought(path, grid, header, frame.astype(np.float32), axes) for frame in frames]


def write_label_frames(
    path: Path, frames: Sequence[Integer[np.ndarray, "x y s"]], like: Volume, level: int = 6
) -> None:
    """Write the label maps of a cine's frames, each (x, y, slices), as one file on the cine's own grid.

    Args:
      frames: one of them is written as a still image.
      like: a frame of the cine, with the header of its file.
      level: of gzip, 1 (fastest) to 9 (smallest).

    Raises:
      ValueError: a shape other than that of `like`, or values that aren't labels 0 to 65535.
    """
    path = Path(path)
    if len(frames) == 1:
        write_labels(path, frames[0], like, level)
        return
    kind = nib.Nifti2Image if isinstance(like.header, nib.Nifti2Header) else nib.Nifti1Image
    volumes = [kind.from_bytes(encode_labels(frame, like)) for frame in frames]
    stack = np.stack([np.asanyarray(volume.dataobj) for volume in volumes], -1)
    header = volumes[0].header.copy()
    header.set_data_shape(stack.shape)
    header.set_data_dtype(stack.dtype)
    if like.header is not None:
        header["pixdim"][4:8] = like.header["pixdim"][4:8]
    data = kind(stack, None, header).to_bytes()
    write_whole(path, gzip.compress(data, level, mtime=0) if is_gzip(path) else data)
