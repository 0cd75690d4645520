"""Whole volumes of a cohort as arrays of one shape, and the way back to each file's own grid.

In plane as `preprocess` does it. Across slices, a volume whose slice spacing isn't the target's is resampled too:
linearly, masks by linear interpolation of each label. A cohort has one depth: shallower volumes are padded with
empty slices, the same number before and after. A mask tells what is real from what was padded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from qcjax.data.batches import Batch
from qcjax.data.geometry import Orientation
from qcjax.data.nifti import read_image, read_labels
from qcjax.data.preprocess import (
    Geometry,
    from_square,
    plan,
    prepare_image,
    prepare_labels,
    restore_labels,
    to_square,
)
from qcjax.data.resample import linear_matrix, resample
from qcjax.data.subject import Case, Subject, Volume
from qcjax.labels import EMIDEC_LABELS
from qcjax.runtime import hosts
from qcjax.runtime.messages import sendable
from qcjax.typing import AnyArray, Bool, Float, Float32, Integer, UInt8

SLICE_TOLERANCE = 0.05  # slices that are nearer to the target spacing than this share of it stay as they are


class Volumes(NamedTuple):
    """Volumes of one shape, in the cases' order."""

    image: AnyArray  # (n, s, h, w) float32, 0 where padded
    label: AnyArray  # (n, s, h, w) uint8; zeros where there is no truth
    mask: AnyArray  # (n, s, h, w) bool: True inside of the file's image, False where padded


@sendable
@dataclass(frozen=True)
class VolumeGeometry:
    """What was done to a volume's grid: everything that it takes to go back."""

    plane: Geometry  # of the file's own slices
    slices: int  # after resampling across slices
    depth: int  # of the padded stack

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """The shape of the prepared volume: (slices, h, w)."""
        return self.depth, self.plane.size, self.plane.size

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The spacing of the prepared volume, in mm: (slices, h, w)."""
        slice_mm, h_mm, w_mm = self.plane.spacing_mm
        return slice_mm * self.plane.stack_shape[0] / self.slices, h_mm, w_mm

    @property
    def real(self) -> slice:
        """Where in the padded stack the volume's slices are."""
        before = (self.depth - self.slices) // 2
        return slice(before, before + self.slices)

    @property
    def resampled_plane(self) -> Geometry:
        """As `plane`, of the box with its slices resampled."""
        (x, y, _), (box_x, box_y, _) = self.plane.shape, self.plane.box
        box = (box_x, box_y, (0, self.slices))
        return replace(self.plane, shape=(x, y, self.slices), box=box, spacing_mm=self.spacing_mm)


@dataclass(frozen=True)
class VolumeCohort:
    """Prepared cases: row i of each array is case i."""

    cases: tuple[Case, ...]
    geometries: tuple[VolumeGeometry, ...]
    volumes: Volumes  # numpy arrays on the host
    orientation: Orientation | None = None  # what the axes of all were brought to; None: as stored


def plan_volume(
    volume: Volume, spacing_mm: tuple[float, float, float], size: int, depth: int = 1
) -> VolumeGeometry:
    """How an image is to be prepared.

    Args:
      volume: an image, (x, y, slices).
      spacing_mm: target, (slices, h, w); met up to rounding to whole voxels, across slices only where the file's is
        more than `SLICE_TOLERANCE` away.
      size: of the square slices, in pixels.
      depth: at least so many slices.

    Raises:
      ValueError: an image of zeros.
    """
    plane = plan(volume, spacing_mm[1:], size)
    slices = plane.stack_shape[0]
    relative = plane.spacing_mm[0] / spacing_mm[0]
    if abs(relative - 1) > SLICE_TOLERANCE:
        slices = max(1, round(slices * relative))
    return VolumeGeometry(plane, slices, max(depth, slices))


def prepare_volume(
    image: Volume, geometry: VolumeGeometry
) -> tuple[Float32[np.ndarray, "s h w"], Bool[np.ndarray, "s h w"]]:
    """An image, (x, y, slices), as the networks take it: float32 and bool, each (depth, size, size).

    The image has mean 0 and sd 1 over its resampled box and is 0 where it was padded; there the mask is False.

    Raises:
      ValueError: another shape than that of `geometry`, or a constant image.
    """
    plane = geometry.resampled_plane
    if geometry.slices == geometry.plane.stack_shape[0]:
        stack = prepare_image(image, geometry.plane)
    else:
        _check_shape(image, geometry)
        across = linear_matrix(geometry.plane.stack_shape[0], geometry.slices)
        s0, s1 = geometry.plane.box[2]
        array = image.array[..., s0:s1].astype(np.float32, copy=False) @ across.T
        stack = prepare_image(replace(image, array=array), plane)
    real = to_square(np.ones((geometry.slices, *plane.resampled), bool), plane)
    return _padded(stack, geometry), _padded(real, geometry)


def prepare_volume_labels(labels: Volume, geometry: VolumeGeometry) -> UInt8[np.ndarray, "s h w"]:
    """A label map, (x, y, slices), on the grid of the prepared image: uint8 (depth, size, size).

    Raises:
      ValueError: another shape than that of `geometry`.
    """
    if geometry.slices == geometry.plane.stack_shape[0]:
        return _padded(prepare_labels(labels, geometry.plane), geometry)
    _check_shape(labels, geometry)
    (x0, x1), (y0, y1), (s0, s1) = geometry.plane.box
    rows, columns = geometry.plane.resampled
    box = labels.array[x0:x1, y0:y1, s0:s1].transpose(2, 1, 0)
    one_hot = np.eye(int(box.max()) + 1, dtype=np.float32)[box]
    resampled = resample(  # along all three axes before the arg-max
        np.tensordot(linear_matrix(s1 - s0, geometry.slices), one_hot, 1),
        linear_matrix(y1 - y0, rows),
        linear_matrix(x1 - x0, columns),
        "paper",
        ties="last",
    )
    return _padded(to_square(resampled, geometry.resampled_plane), geometry)


def prepare_volumes(
    subjects: Sequence[Subject],
    spacing_mm: tuple[float, float, float],
    size: int,
    depth: int = 1,
    with_labels: bool = True,
    on_case: Callable[[], None] = lambda: None,
    mapping: dict[int, int] = EMIDEC_LABELS,
    orientation: Orientation | None = None,
) -> VolumeCohort:
    """Read and prepare every case of some subjects; of several processes each reads its share.

    Args:
      spacing_mm: target, (slices, h, w).
      size: of the square slices, in pixels.
      depth: at least so many slices; more where a case has more.
      with_labels: read the ground truth too; without it, label maps are zeros whatever is on disk, so that what is
        to be predicted can't be learnt from.
      mapping: label value in the files -> label value inside qcjax.
      orientation: what the axes are brought to; None: as stored, but for the slices.

    Raises:
      ValueError: a file that can't be used, or `with_labels` and a case without truth.
    """
    cases = [case for subject in subjects for case in subject.cases]

    def one(case: Case) -> tuple[VolumeGeometry, np.ndarray, np.ndarray, np.ndarray]:
        image = read_image(case.image_path, orientation)
        geometry = plan_volume(image, spacing_mm, size)
        stack, real = prepare_volume(image, geometry)
        labels = np.zeros(stack.shape, np.uint8)
        if with_labels:
            if case.label_path is None:
                raise ValueError(
                    f"{case.image_path}: no ground truth found beside it, expected one for training"
                )
            labels = prepare_volume_labels(read_labels(case.label_path, mapping, like=image), geometry)
        on_case()
        return geometry, stack, labels, real

    parts = hosts.share(one, cases)
    depth = max([depth, *(geometry.slices for geometry, *_ in parts)])
    geometries = tuple(replace(geometry, depth=depth) for geometry, *_ in parts)
    shape = (len(cases), depth, size, size)
    volumes = Volumes(np.zeros(shape, np.float32), np.zeros(shape, np.uint8), np.zeros(shape, bool))
    for i, (geometry, (_, *arrays)) in enumerate(zip(geometries, parts, strict=True)):
        for whole, array in zip(volumes, arrays, strict=True):
            whole[i, geometry.real] = array
    return VolumeCohort(tuple(cases), geometries, volumes, orientation)


def restore_volume(
    probabilities: Float[np.ndarray, "s h w k"], geometry: VolumeGeometry
) -> UInt8[np.ndarray, "x y slices"]:
    """A prediction back on the grid of the input file: uint8 labels (x, y, slices).

    Probabilities are interpolated, linearly along all three axes, before the arg-max. What the crop to the square or
    to the box had cut off is background.

    Args:
      probabilities: (slices, h, w, classes), of the prepared volume.

    Raises:
      ValueError: another shape than that of the prepared volume.
    """
    if probabilities.ndim != 4:
        raise ValueError(f"found probabilities of shape {probabilities.shape}; expected 4 axes")
    return restore_labels(_own_slices(probabilities, geometry), geometry.plane)


def restore_map(
    values: Float[np.ndarray, "s h w"], geometry: VolumeGeometry
) -> Float32[np.ndarray, "x y slices"]:
    """A map over the prepared volume, (slices, h, w), back on the grid of the input file: float32 (x, y, slices).

    Linearly along all three axes; 0 where the crop to the square or to the box had cut off.

    Raises:
      ValueError: another shape than that of the prepared volume.
    """
    if values.ndim != 3:
        raise ValueError(f"found a map of shape {values.shape}; expected 3 axes")
    resampled = from_square(_own_slices(values, geometry), geometry.plane)
    (x0, x1), (y0, y1), (s0, s1) = geometry.plane.box
    rows, columns = geometry.plane.resampled
    restored = np.zeros(geometry.plane.shape[::-1], np.float32)
    restored[s0:s1, y0:y1, x0:x1] = (
        linear_matrix(rows, y1 - y0) @ resampled @ linear_matrix(columns, x1 - x0).T
    )
    return restored.T


def take_volumes(volumes: Volumes, indices: Integer[AnyArray, " b"], weight: Float[AnyArray, " b"]) -> Batch:
    """Gather a batch on the device: indices (b,) -> images (b, s, h, w, 1), labels and masks (b, s, h, w)."""
    return volume_batch(Volumes(*(x[indices] for x in volumes)), weight)


def volume_batch(volumes: Volumes, weight: Float[AnyArray, " b"]) -> Batch:
    """All of some volumes as a batch: images (b, s, h, w, 1), labels and masks (b, s, h, w)."""
    return Batch(volumes.image[..., None], volumes.label.astype(jnp.int32), weight, volumes.mask)


def _padded(stack: np.ndarray, geometry: VolumeGeometry) -> np.ndarray:
    whole = np.zeros(geometry.stack_shape, stack.dtype)
    whole[geometry.real] = stack
    return whole


def _own_slices(stack: np.ndarray, geometry: VolumeGeometry) -> np.ndarray:
    """Without padding, and resampled to the slices of the file's box: float32."""
    if stack.shape[:3] != geometry.stack_shape:
        raise ValueError(f"found a prediction of shape {stack.shape}; expected {geometry.stack_shape}")
    stack = stack[geometry.real].astype(np.float32, copy=False)
    slices = geometry.plane.stack_shape[0]
    return (
        stack if slices == geometry.slices else np.tensordot(linear_matrix(geometry.slices, slices), stack, 1)
    )


def _check_shape(volume: Volume, geometry: VolumeGeometry) -> None:
    if volume.array.shape != geometry.plane.shape:
        raise ValueError(f"{volume.path}: found shape {volume.array.shape}; expected {geometry.plane.shape}")
