"""Preparation of a volume for the networks, and the way back, on the host.

Crop to the box of non-zero voxels; resample in plane to a target spacing (images with a cubic spline, masks
by linear interpolation of each label and arg-max); z-score; pad or crop to a square, centred. The slice
spacing stays. Of an image, nothing looks at its mask to learn where the heart is; a mask alone can have its own
foreground in the middle of the square.

Preset ``original`` is what the refinement paper's (Galati & Zuluaga, STACOM 2021) public code does where it differs
in numbers: splines are clipped to the slice's own range; a label wins where it reaches one half, so that a
pixel where none does is background; on the way back, labels are interpolated, not probabilities.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Integer, Real, Shaped, UInt8

from qcjax.config import Centre
from qcjax.data.resample import Resampling, cubic_matrix, linear_matrix, resample
from qcjax.data.subject import Volume
from qcjax.runtime.messages import sendable

_Range = tuple[int, int]


@sendable
@dataclass(frozen=True)
class Geometry:
    """What was done to a volume's grid: everything that it takes to go back."""

    shape: tuple[int, int, int]  # of the volume in its file: (x, y, slices)
    box: tuple[_Range, _Range, _Range]  # the box of non-zero voxels in it
    resampled: tuple[int, int]  # (h, w) of the box, that is (y, x), after resampling
    size: int  # of the padded or cropped square
    spacing_mm: tuple[float, float, float]  # of the prepared stack: (slices, h, w)
    offset: tuple[int, int] = (0, 0)  # of the square from the middle of the resampled box, in pixels (h, w)

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """The shape of the prepared stack: (slices, h, w)."""
        return self.box[2][1] - self.box[2][0], self.size, self.size


def median_spacing(spacings_mm: Iterable[tuple[float, float, float]]) -> tuple[float, float]:
    """The median in-plane spacing (h, w), in mm, of spacings given as in the files: (x, y, slices), in mm.

    Raises:
      ValueError: there is none.
    """
    table = np.array(list(spacings_mm), float)
    if not len(table):
        raise ValueError("no spacings found; expected those of at least one training image")
    return float(np.median(table[:, 1])), float(np.median(table[:, 0]))


def plan(volume: Volume, target_spacing_mm: tuple[float, float], size: int) -> Geometry:
    """How an image is to be prepared: its box of non-zero voxels, its size after resampling.

    Args:
      volume: an image, (x, y, slices).
      target_spacing_mm: in plane, (h, w); met up to rounding to whole pixels.
      size: of the square, in pixels.

    Raises:
      ValueError: an image of zeros.
    """
    nonzero = volume.array != 0
    seen = [np.flatnonzero(nonzero.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(seen[0]):
        raise ValueError(f"{volume.path}: found an image of zeros; expected intensities")
    (x0, x1), (y0, y1), (s0, s1) = ((int(i[0]), int(i[-1]) + 1) for i in seen)
    x_mm, y_mm, slice_mm = volume.spacing_mm
    h = max(1, round((y1 - y0) * y_mm / target_spacing_mm[0]))
    w = max(1, round((x1 - x0) * x_mm / target_spacing_mm[1]))
    spacing_mm = (slice_mm, (y1 - y0) * y_mm / h, (x1 - x0) * x_mm / w)
    x, y, slices = volume.array.shape
    return Geometry((x, y, slices), ((x0, x1), (y0, y1), (s0, s1)), (h, w), size, spacing_mm)


def plan_mask(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    target_spacing_mm: tuple[float, float],
    size: int,
) -> Geometry:
    """How a mask without its image is to be prepared: nothing is cropped before resampling.

    Args:
      shape, spacing_mm: of the file's grid, (x, y, slices).
      target_spacing_mm: in plane, (h, w); met up to rounding to whole pixels.
      size: of the square, in pixels.
    """
    (x, y, slices), (x_mm, y_mm, slice_mm) = shape, spacing_mm
    h = max(1, round(y * y_mm / target_spacing_mm[0]))
    w = max(1, round(x * x_mm / target_spacing_mm[1]))
    return Geometry(
        shape, ((0, x), (0, y), (0, slices)), (h, w), size, (slice_mm, y * y_mm / h, x * x_mm / w)
    )


def prepare_mask(
    volume: Volume, spacing_mm: float, size: int, centre: Centre = "image"
) -> tuple[Geometry, UInt8[np.ndarray, "s h w"]]:
    """A mask without its image on the grid of an autoencoder.

    Args:
      volume: label map (x, y, slices).
      spacing_mm: in plane; met up to rounding to whole pixels.
      size: of the square, in pixels.
      centre: what lies in its middle: that of the image, as in both papers, or (ours) the median row and column of the
        foreground of all slices, which a piece far away hardly moves; an empty mask has the image's.

    Returns:
      Its geometry, and the labels before `to_square`: uint8 (slices, h, w).
    """
    x, y, slices = volume.array.shape
    geometry = plan_mask((x, y, slices), volume.spacing_mm, (spacing_mm, spacing_mm), size)
    resampled = resample_labels(volume, geometry)
    if centre == "mask":
        inside = resampled != 0
        of_rows, of_columns = inside.sum(axis=(0, 2)), inside.sum(axis=(0, 1))
        geometry = replace(geometry, offset=(_off_centre(of_rows), _off_centre(of_columns)))
    return geometry, resampled


def _off_centre(counts: np.ndarray) -> int:
    """How far the median of a distribution over pixels lies from their middle; 0 for an empty one."""
    so_far = counts.cumsum()
    return int(np.searchsorted(so_far, so_far[-1] / 2)) - len(counts) // 2 if so_far[-1] else 0


def prepare_image(
    volume: Volume, geometry: Geometry, way: Resampling = "paper"
) -> Float32[np.ndarray, "s size size"]:
    """An image, (x, y, slices), as the networks take it: float32 (slices, size, size), mean 0 and sd 1.

    Mean and sd are those of the resampled box; what is padded is 0, its mean.

    Raises:
      ValueError: another shape than that of `geometry`, or a constant image.
    """
    box = _boxed(volume, geometry).astype(np.float32, copy=False)
    (h, w), (rows, columns) = box.shape[1:], geometry.resampled
    image = cubic_matrix(h, rows) @ box @ cubic_matrix(w, columns).T
    if way == "original":
        image = np.clip(image, box.min(axis=(1, 2), keepdims=True), box.max(axis=(1, 2), keepdims=True))
    if box.min() == box.max():
        raise ValueError(f"{volume.path}: found a constant image; expected intensities that vary")
    mean, sd = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    (from_h, to_h), (from_w, to_w) = _place(geometry)
    stack = np.zeros(geometry.stack_shape, np.float32)
    stack[:, to_h, to_w] = (image[:, from_h, from_w] - np.float32(mean)) / np.float32(sd)
    return stack


def prepare_labels(
    volume: Volume, geometry: Geometry, way: Resampling = "paper"
) -> UInt8[np.ndarray, "s size size"]:
    """A label map, (x, y, slices), on the grid of the prepared image: uint8 (slices, size, size).

    Raises:
      ValueError: another shape than that of `geometry`.
    """
    return to_square(resample_labels(volume, geometry, way), geometry)


def resample_labels(
    volume: Volume, geometry: Geometry, way: Resampling = "paper"
) -> UInt8[np.ndarray, "s h w"]:
    """A label map, (x, y, slices), resampled but neither padded nor cropped: uint8 (slices, h, w).

    Raises:
      ValueError: another shape than that of `geometry`.
    """
    labels = _boxed(volume, geometry)
    (h, w), (rows, columns) = labels.shape[1:], geometry.resampled
    return resample(labels, linear_matrix(h, rows), linear_matrix(w, columns), way, ties="last")


def to_square(
    resampled: Shaped[np.ndarray, "s h w"], geometry: Geometry
) -> Shaped[np.ndarray, "s size size"]:
    """Pad or crop a resampled label map, (slices, h, w), to the square."""
    (from_h, to_h), (from_w, to_w) = _place(geometry)
    stack = np.zeros(geometry.stack_shape, resampled.dtype)
    stack[:, to_h, to_w] = resampled[:, from_h, from_w]
    return stack


def from_square(stack: Shaped[np.ndarray, "s size size"], geometry: Geometry) -> Shaped[np.ndarray, "s h w"]:
    """The inverse of `to_square`; what the crop had cut off is background."""
    (from_h, to_h), (from_w, to_w) = _place(geometry)
    resampled = np.zeros((len(stack), *geometry.resampled), stack.dtype)
    resampled[:, from_h, from_w] = stack[:, to_h, to_w]
    return resampled


def restore_labels(
    stack: Real[np.ndarray, "s size size *classes"], geometry: Geometry, way: Resampling = "paper"
) -> UInt8[np.ndarray, "x y slices"]:
    """A prediction back on the grid of the input file: uint8 labels (x, y, slices).

    What the crop to the square or to the box had cut off is background.

    Args:
      stack: labels (slices, h, w), or class probabilities (slices, h, w, classes), which are interpolated
        before the arg-max (``original`` takes the arg-max first).
      geometry: of the image that the prediction belongs to.

    Raises:
      ValueError: another shape than that of the prepared stack.
    """
    if stack.ndim not in (3, 4) or stack.shape[:3] != geometry.stack_shape:
        raise ValueError(
            f"found a prediction of shape {stack.shape}; expected {geometry.stack_shape} (+ classes)"
        )
    if stack.ndim == 4 and way == "original":
        stack = stack.argmax(axis=-1).astype(np.uint8)
    (x0, x1), (y0, y1), (s0, s1) = geometry.box
    (from_h, to_h), (from_w, to_w) = _place(geometry)
    rows = linear_matrix(geometry.resampled[0], y1 - y0)[:, from_h]
    columns = linear_matrix(geometry.resampled[1], x1 - x0)[:, from_w]
    labels = np.zeros(geometry.shape[::-1], np.uint8)
    labels[s0:s1, y0:y1, x0:x1] = resample(stack[:, to_h, to_w], rows, columns, way, ties="first")
    return labels.T


def restore_labels_cubic(
    stack: Integer[np.ndarray, "s size size"], geometry: Geometry
) -> UInt8[np.ndarray, "x y slices"]:
    """Labels (slices, size, size) back on the file's grid by a cubic spline of each label and arg-max, (x, y, slices).

    As the monitoring paper's public code does.
    """
    resampled = from_square(stack, geometry)
    (x0, x1), (y0, y1), (s0, s1) = geometry.box
    rows, columns = cubic_matrix(geometry.resampled[0], y1 - y0), cubic_matrix(geometry.resampled[1], x1 - x0)
    labels = np.zeros(geometry.shape[::-1], np.uint8)
    in_h, in_w = (np.flatnonzero(resampled.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    if not len(in_h):
        return labels.T
    rows, columns = rows[:, in_h], columns[:, in_w]
    # what the labels' splines sum up to is no more than the product of these; below ½ the background has more
    reach_h, reach_w = np.abs(rows).sum(1), np.abs(columns).sum(1)
    out_h = np.flatnonzero(reach_h * reach_w.max() > 0.4)
    out_w = np.flatnonzero(reach_w * reach_h.max() > 0.4)
    part = resampled[:, in_h][:, :, in_w]
    values = np.union1d(part, np.uint8(0))  # sorted: the background first
    shares = [rows[out_h] @ (part == v).astype(np.float32) @ columns[out_w].T for v in values[1:]]
    maps = np.stack([1 - np.sum(shares, axis=0), *shares])
    target = labels[s0:s1, y0:y1, x0:x1]
    target[:, out_h[:, None], out_w] = values[maps.argmax(0)]
    return labels.T


def _boxed(volume: Volume, geometry: Geometry) -> np.ndarray:
    """The box as (slices, h, w), that is (slices, y, x)."""
    if volume.array.shape != geometry.shape:
        raise ValueError(f"{volume.path}: found shape {volume.array.shape}; expected {geometry.shape}")
    (x0, x1), (y0, y1), (s0, s1) = geometry.box
    return np.ascontiguousarray(volume.array[x0:x1, y0:y1, s0:s1].transpose(2, 1, 0))


def _place(geometry: Geometry) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """For h and for w: which part of the resampled box lies in which part of the square."""

    def axis(n: int, offset: int) -> tuple[slice, slice]:
        size = geometry.size
        first = max(0, n - size) // 2 - max(0, size - n) // 2 + offset  # the square's, in the box
        start, stop = max(0, first), min(n, first + size)
        return slice(start, stop), slice(start - first, stop - first)

    (h, w), (down, right) = geometry.resampled, geometry.offset
    return axis(h, down), axis(w, right)
