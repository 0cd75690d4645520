"""Files of volumes: images and label maps with their geometry, read defensively, written on the input's own grid.

Nothing is allocated on the word of a header alone: the declared size is held against the file's size first.
"""

import gzip
import zlib
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Real

from qcjax.data.files import ENDINGS, is_gzip, other_format
from qcjax.data.findings import InvalidFile
from qcjax.data.geometry import Affine, Axes, Orientation, StoredGrid, nearest_axes
from qcjax.data.header import header_shape, stored_grid
from qcjax.data.itk import itk_grid, read_itk
from qcjax.data.subject import Volume
from qcjax.labels import MNMS2_LABELS, remap

LABEL_TOLERANCE = 1e-2  # a stored label may lie this far from the integer it stands for
MAX_BYTES = 2**31  # of one volume; a cine of the heart has a few tens of megabytes
GRID_TOLERANCE = 0.1  # of the smallest spacing: two grids that lie closer are the same
_DEFLATE_LIMIT = 1032  # deflate can't pack tighter than about 1032 to 1
_quietly = np.errstate(all="ignore")  # what isn't finite is refused, not warned of


@dataclass(frozen=True)
class Grid:
    """A file's geometry, read without its voxels."""

    path: Path
    shape: tuple[int, ...]  # (x, y, slices) or with more axes
    spacing_mm: tuple[float, float, float]  # (x, y, slices)
    affine: np.ndarray  # (4, 4), indices of (x, y, slices) -> mm
    header: nib.Nifti1Header


def read_grid(path: Path) -> Grid:
    """Shape, spacing (mm) and affine of a file, from its header alone, the slices on the third axis.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: no volume, truncated, or a spacing or an affine that is no geometry.
    """
    path = Path(path)
    stored, header = read_stored_grid(path)
    shape = stored.shape if other_format(path) else header_shape(path, header)
    axes, _ = stored.axes(None)
    affine = axes.brought_affine(stored.affine, stored.shape)
    whole = (*axes.reorder(shape), *shape[3:])
    return Grid(path, whole, axes.reorder(stored.spacing_mm), affine, header)


def read_stored_grid(path: Path) -> tuple[StoredGrid, nib.Nifti1Header]:
    """The grid of a file as it is stored, and its header; raises as `read_grid`."""
    if other_format(path):
        return itk_grid(path)
    with _open(path) as file:
        header = _read_header(path, file)
    return stored_grid(path, header), header


@_quietly
def read_image(path: Path, orientation: Orientation | None = None) -> Volume:
    """An image as float32 of shape (x, y, slices), with its spacing in mm and its affine.

    Args:
      orientation: what its axes are brought to; None: as stored, but for the slices, which are the last axis.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: unreadable, not 3-D, or with NaN or infinite intensities.
    """
    path = Path(path)
    grid, header, stored = read_stored(path)
    array = stored.astype(np.float32)
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InvalidFile(path, f"{bad} NaN or infinite voxels of {array.size}", "finite intensities")
    return brought(path, grid, header, array, grid.axes(orientation))


def read_labels(
    path: Path,
    mapping: dict[int, int] = MNMS2_LABELS,
    like: Volume | None = None,
    orientation: Orientation | None = None,
    lengths_of: Path | None = None,
) -> Volume:
    """A label map as uint8 of shape (x, y, slices), in qcjax's label values.

    Args:
      path: the file; float labels within `LABEL_TOLERANCE` of an integer are rounded.
      mapping: label value in the file -> label value inside qcjax.
      like: the image that the labels belong to; where given, both must lie on one grid, though each may be stored along
        other axes: those of `like` are taken.
      orientation: what the axes are brought to without `like`; None: as stored, but for the slices, which are the last.
      lengths_of: without `like`, the file whose millimetres count where this one's header has an affine of unit steps
        alone (`qcjax.data.geometry`), such as the image that the labels belong to.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: unreadable, not 3-D, a label value that `mapping` doesn't know, another grid than `like`.
    """
    return read_labels_checked(path, mapping, like, orientation, lengths_of)[0]


def read_labels_checked(
    path: Path,
    mapping: dict[int, int] = MNMS2_LABELS,
    like: Volume | None = None,
    orientation: Orientation | None = None,
    lengths_of: Path | None = None,
) -> tuple[Volume, float]:
    """As `read_labels`, with the largest distance that a label was rounded by (0 where all were integers)."""
    path = Path(path)
    grid, header, stored = read_stored(path)
    if grid.bare:
        grid = _with_lengths(grid, like or lengths_of)
    axes = grid.axes(orientation) if like is None else (_axes_as(grid, like), ())
    if like is not None:
        shape, affine = axes[0].reorder(grid.shape), axes[0].brought_affine(grid.affine, grid.shape)
        difference = grid_difference(like, shape, affine)
        if difference:
            raise InvalidFile(path, *difference)
    labels, rounded_by = _integers(path, stored, mapping)
    return brought(path, grid, header, labels, axes), rounded_by


def _with_lengths(grid: StoredGrid, of: Volume | Path | None) -> StoredGrid:
    """A bare grid with the lengths of an image's, where those are beside an affine of unit steps, too."""
    if of is None:
        return grid
    if isinstance(of, Volume):
        shape = _three(of.axes.take_back(of.array).shape)
        return grid.measured_as(of.axes.stored_affine(of.affine, shape), of.path.name) if of.nominal else grid
    try:
        other = read_stored_grid(of)[0]
    except (OSError, InvalidFile):  # told where the image itself is read
        return grid
    return grid.measured_as(other.affine, of.name) if other.nominal else grid


def on_grid_of(image: Volume, volume: Volume) -> Volume:
    """An image with the axes of another volume; InvalidFile where it lies on another grid than that one."""
    grid = StoredGrid(
        _three(image.array.shape), image.spacing_mm, image.affine, image.directed
    )  # its array is a stored one to what follows
    axes = _axes_as(grid, volume)
    affine = axes.brought_affine(image.affine, grid.shape)
    difference = grid_difference(volume, axes.reorder(grid.shape), affine)
    if difference:
        raise InvalidFile(image.path, *difference)
    spacing = axes.reorder(image.spacing_mm)
    return replace(image, array=axes.bring(image.array), spacing_mm=spacing, affine=affine)


def _axes_as(grid: StoredGrid, like: Volume) -> Axes:
    """How to bring a file to the axes of another volume: by the affines, or as that one was where they say nothing."""
    if not (grid.directed and like.directed):
        return like.axes
    directions = like.affine[:3, :3] / np.linalg.norm(like.affine[:3, :3], axis=0)
    unit = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    return nearest_axes(unit, directions, range(3), like.axes)[0]


def brought(
    path: Path,
    grid: StoredGrid,
    header: nib.Nifti1Header,
    stored: Real[np.ndarray, "i j k"],
    found: tuple[Axes, tuple[str, ...]],
) -> Volume:
    """A volume of a stored array, its axes brought as `StoredGrid.axes` has found."""
    axes, notes = found
    affine = axes.brought_affine(grid.affine, grid.shape)
    spacing, notes = axes.reorder(grid.spacing_mm), (*grid.notes, *notes)
    return Volume(axes.bring(stored), spacing, affine, path, header, axes, grid.directed, grid.nominal, notes)


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], shape[1], shape[2]


def grid_difference(image: Volume, shape: tuple[int, ...], affine: Affine) -> tuple[str, str] | None:
    """How a grid differs from an image's: (found, expected), or None where they are the same.

    Affines are compared where it counts: by how far apart (mm) they put the corners of the volume.
    """
    if tuple(shape) != image.array.shape:
        return f"shape {tuple(shape)}", f"shape {image.array.shape}, as {image.path.name}"
    corners = np.array(np.meshgrid(*([0, n - 1] for n in shape), [1], indexing="ij")).reshape(4, -1)
    apart_mm = float(np.linalg.norm(((affine - image.affine) @ corners)[:3], axis=0).max())
    if apart_mm > GRID_TOLERANCE * min(image.spacing_mm):
        return f"an affine that lies up to {apart_mm:.3g} mm away", f"the affine of {image.path.name}"
    return None


def _open(path: Path) -> BufferedIOBase:
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise InvalidFile(
            path,
            f"the file name {path.name}",
            f"a name that ends in .nii or .nii.gz (or {', '.join(ENDINGS[2:])})",
        )
    if not is_gzip(path):
        return path.open("rb")
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"\x1f\x8b":
        size = path.stat().st_size
        raise InvalidFile(path, f"no gzip data ({size} bytes, the first are {start!r})", "a gzip file")
    return gzip.open(path, "rb")


def _take(path: Path, file: BufferedIOBase, count: int, what: str) -> bytes:
    """`count` bytes, or an error that says what is wrong with the file."""
    try:
        data = file.read(count)
    except EOFError:
        data = b""
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InvalidFile(path, f"damaged gzip data ({error})", "a sound gzip file") from None
    if len(data) < count:
        found = f"a truncated file ({path.stat().st_size} bytes on disk end within its {what})"
        raise InvalidFile(path, found, f"{count} bytes of {what}")
    return data


def _read_header(path: Path, file: BufferedIOBase) -> nib.Nifti1Header:
    size = _take(path, file, 4, "header")
    length = next((n for n in (348, 540) if size in (n.to_bytes(4, "little"), n.to_bytes(4, "big"))), None)
    if length is None:
        raise InvalidFile(path, f"no NIfTI header (it starts with {size!r})", "a NIfTI-1 or NIfTI-2 file")
    block = size + _take(path, file, length - 4, "header")
    # unchecked, since nibabel's own checks replace a spacing of 0 by 1 and a negative one by its opposite
    header = (nib.Nifti1Header if length == 348 else nib.Nifti2Header)(block, check=False)
    magic = bytes(header["magic"])
    if not magic.startswith((b"n+1", b"n+2")):
        raise InvalidFile(path, f"magic {magic!r}", "n+1 or n+2: header and voxels in one file")
    return header


@_quietly
def read_stored(
    path: Path, cine: bool = False
) -> tuple[StoredGrid, nib.Nifti1Header, Real[np.ndarray, "i j k *time"]]:
    """The stored grid, the header, and the scaled voxels as stored, in Fortran order; a cine may have an axis more."""
    if other_format(path):
        return read_itk(path)
    with _open(path) as file:
        header = _read_header(path, file)
        whole = header_shape(path, header)
        further = [n for n in whole[3:] if n > 1]
        if len(further) > cine:
            expected = "a 3-D volume or a cine" if cine else "a 3-D volume"
            raise InvalidFile(path, f"a {len(whole)}-D volume of shape {whole}", expected)
        grid, shape = stored_grid(path, header), (*whole[:3], *further)
        try:
            dtype = header.get_data_dtype()
        except (KeyError, nib.spatialimages.HeaderDataError):
            found = f"voxel type {int(header['datatype'])}"
            raise InvalidFile(path, found, "a numeric voxel type of NIfTI") from None
        if dtype.kind not in "iufb":
            raise InvalidFile(path, f"voxels of type {dtype}", "real numbers")
        count = int(np.prod(shape, dtype=object)) * dtype.itemsize
        offset = float(header["vox_offset"])
        if not np.isfinite(offset):
            raise InvalidFile(path, f"voxels from byte {offset}", "a place within the file")
        start = max(int(offset), int(header["sizeof_hdr"]))
        on_disk = path.stat().st_size
        possible = on_disk * (_DEFLATE_LIMIT if is_gzip(path) else 1)
        if start + count > min(MAX_BYTES, possible):
            found = (
                f"{on_disk} bytes on disk, a header that declares {shape} voxels of {dtype} ({count} bytes)"
            )
            raise InvalidFile(
                path, f"{found}: truncated, or the header is wrong", "a file as long as its header says"
            )
        _take(path, file, start - int(header["sizeof_hdr"]), "header")
        data = _take(path, file, count, "voxels")
        if is_gzip(path):  # a flipped bit may as well have made the data longer
            try:
                left = MAX_BYTES
                while left > 0 and (
                    more := file.read(min(left, 2**20))
                ):  # at the end gzip compares its checksum
                    left -= len(more)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise InvalidFile(path, f"damaged gzip data ({error})", "a sound gzip file") from None
    stored = np.frombuffer(data, dtype).reshape(shape, order="F")
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if np.isfinite(slope) and slope != 0 and np.isfinite(intercept) and (slope, intercept) != (1.0, 0.0):
        stored = stored * slope + intercept
    return grid, header, stored


def _integers(path: Path, stored: np.ndarray, mapping: dict[int, int]) -> tuple[np.ndarray, float]:
    """Stored values -> (labels, uint8; the largest rounding)."""
    expected = f"labels {sorted(mapping)}"
    rounded_by = 0.0
    if stored.dtype.kind == "f":
        if not np.all(np.isfinite(stored)):
            raise InvalidFile(path, "NaN or infinite labels", expected)
        whole = np.rint(stored)
        rounded_by = float(np.abs(stored - whole).max())
        if rounded_by > LABEL_TOLERANCE:
            worst = stored.flat[int(np.abs(stored - whole).argmax())]
            raise InvalidFile(path, f"label value {worst:.6g}", expected)
        stored = whole
    low, high = stored.min(), stored.max()
    if low < min(mapping) or high > max(mapping):
        raise InvalidFile(path, f"label values from {low:g} to {high:g}", expected)
    try:
        return remap(stored.astype(np.uint8 if max(mapping) < 256 else np.int64), mapping), rounded_by
    except ValueError as error:
        raise InvalidFile(path, str(error), expected) from None
