"""Pictures of single cases: before and after refinement, and flagged masks with their inconsistency maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Integer, Real
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb

from qcjax.data.nifti import read_image
from qcjax.labels import CARDIAC, LV, MYO, RV, Structure
from qcjax.report import style

MARGIN_MM = 15.0  # around the heart


@dataclass(frozen=True)
class Slice:
    """One slice as it is shown: image and label maps (rows, columns), pixel size (row, column) in mm."""

    image: np.ndarray
    labels: tuple[np.ndarray, ...]
    pixel_mm: tuple[float, float]
    number: int  # counted from 1
    of: int


@matplotlib.rc_context(style.STYLE)
def draw_inconsistency(
    image: Real[np.ndarray, "x y slices"] | None,
    mask: Integer[np.ndarray, "x y slices"],
    reconstruction: Integer[np.ndarray, "x y slices"],
    spacing_mm: tuple[float, float],
    number: int,
    path: Path,
    structures: Sequence[Structure] = CARDIAC,
    dpi: int = 150,
    truth: Integer[np.ndarray, "x y slices"] | None = None,
) -> Path:
    """Image, mask, reconstruction and inconsistency map in one slice (monitoring paper, measure rho 2).

    Args:
      image: (x, y, slices); None where there is none: the others are drawn on black then.
      mask, reconstruction: label maps of the same shape, ids of `structures`.
      spacing_mm: in plane, (x, y).
      number: the slice, counted from 0.
      truth: label map of the same shape, for a further panel; None where there is none.

    Returns:
      `path`, where the picture is.
    """
    background = np.zeros(mask.shape, np.float32) if image is None else image
    maps = (mask, reconstruction) if truth is None else (truth, mask, reconstruction)
    shown = prepare_slice(background, maps, spacing_mm, number, structures)
    *of_truth, of_mask, of_reconstruction = shown.labels
    panels: list[tuple[str, np.ndarray | None]] = [("image", None)] if image is not None else []
    panels += [("mask", of_mask), ("reconstruction", of_reconstruction), ("where they differ", None)]
    panels += [("ground truth", labels) for labels in of_truth]
    columns = 2 if len(panels) == 4 else 3
    height_in = 5.3 if columns == 2 else 2.1 * -(-len(panels) // columns)
    figure, rows = style.new_figure(height_in, -(-len(panels) // columns), columns)
    axes = [axis for row in rows for axis in row]
    for place, (axis, (title, labels)) in enumerate(zip(axes, panels, strict=False)):
        show_image(axis, shown, title if place else f"{title}, slice {shown.number} of {shown.of}")
        if labels is not None:
            overlay(axis, labels, structures)
        elif title != "image":
            _paint(axis, of_mask != of_reconstruction, style.INCONSISTENT_COLOUR, 0.85)
    for axis in axes[len(panels) :]:
        axis.axis("off")
        axis.legend(handles=style.structure_handles(structures), loc="center")
    return style.save(figure, path, dpi=dpi)


def _load(
    run_dir: Path, image_path: str, label_paths: Sequence[str]
) -> tuple[np.ndarray, tuple[np.ndarray, ...], tuple[float, float]] | None:
    """Image, label maps (x, y, slices) and in-plane spacing; None where one is not named or not there."""
    paths = [run_dir / name for name in (image_path, *label_paths)]
    if not (image_path and all(label_paths)) or not all(path.is_file() for path in paths):
        return None
    files = [read_image(path) for path in paths]
    arrays = [file.array for file in files]
    for path, array in zip(paths[1:], arrays[1:], strict=True):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"{path}: shape {array.shape} found, expected {arrays[0].shape} as in {paths[0]}"
            )
    labels = tuple(np.rint(array).astype(np.uint8) for array in arrays[1:])
    return arrays[0].astype(np.float32), labels, files[0].spacing_mm[:2]


def most_changed(first: Integer[np.ndarray, "x y slices"], second: Integer[np.ndarray, "x y slices"]) -> int:
    """The slice where two label maps differ most; of equal ones the middle of the structures."""
    changed = (first != second).sum(axis=(0, 1))
    if changed.any():
        return int(changed.argmax())
    filled = np.flatnonzero((first > 0).any(axis=(0, 1)))
    return int(filled[len(filled) // 2]) if len(filled) else first.shape[2] // 2


def prepare_slice(
    image: Real[np.ndarray, "x y slices"],
    labels: tuple[Integer[np.ndarray, "x y slices"], ...],
    spacing_mm: tuple[float, float],
    number: int,
    structures: Sequence[Structure] = CARDIAC,
) -> Slice:
    """Cut one slice to a square around the structures, the RV on the picture's left as is the custom."""
    planes = [np.swapaxes(array[:, :, number], 0, 1) for array in (image, *labels)]  # rows are y
    rows, columns = _heart_box(np.any([label > 0 for label in labels], axis=(0, 3)).T, spacing_mm[::-1])
    turns = quarter_turns(labels[-1] if (labels[-1] > 0).any() else labels[0], structures)
    turned = [np.rot90(plane[rows, columns], turns) for plane in planes]
    pixel_mm = spacing_mm[::-1] if turns % 2 == 0 else spacing_mm
    return Slice(turned[0], tuple(turned[1:]), pixel_mm, number + 1, image.shape[2])


def _heart_box(mask: np.ndarray, pixel_mm: tuple[float, float]) -> tuple[slice, slice]:
    """A square in mm around all labels, cut at the image's borders; the whole image without any."""
    if not mask.any():
        return slice(None), slice(None)
    limits_mm = []
    for axis in (0, 1):
        filled = np.flatnonzero(mask.any(axis=1 - axis))
        limits_mm.append((filled[0] * pixel_mm[axis], (filled[-1] + 1) * pixel_mm[axis]))
    half_mm = max(high - low for low, high in limits_mm) / 2 + MARGIN_MM
    box = []
    for axis, (low, high) in enumerate(limits_mm):
        centre = (low + high) / 2
        start, stop = (centre - half_mm) / pixel_mm[axis], (centre + half_mm) / pixel_mm[axis]
        box.append(slice(max(0, round(start)), min(mask.shape[axis], round(stop))))
    return box[0], box[1]


def quarter_turns(labels: Integer[np.ndarray, "x y slices"], structures: Sequence[Structure]) -> int:
    """Turns of 90 degrees (as `numpy.rot90`) that bring the RV to the left of the LV; 0 where one is absent.

    The files' affines are no guide: the same subject's views can follow different conventions.
    """
    voxels = {s.key: np.argwhere(labels == s.id) for s in structures if s.key in (LV.key, RV.key)}
    if len(voxels) < 2 or not all(map(len, voxels.values())):
        return 0
    x, y = (voxels[RV.key].mean(axis=0) - voxels[LV.key].mean(axis=0))[:2]  # in the picture y is down
    if abs(x) >= abs(y):
        return 0 if x <= 0 else 2
    return 1 if y < 0 else 3


def show_image(axis: Axes, shown: Slice, title: str) -> None:
    """The image of a slice in grey, its brightest and darkest voxels cut off."""
    low, high = np.percentile(shown.image, (1, 99.5))
    axis.imshow(
        shown.image,
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        aspect=shown.pixel_mm[0] / shown.pixel_mm[1],
        interpolation="bilinear",
    )
    axis.set_title(title, fontweight="normal", fontsize=10)
    axis.axis("off")


def overlay(
    axis: Axes, labels: Integer[np.ndarray, "rows columns"], structures: Sequence[Structure] = CARDIAC
) -> None:
    """Structures as a light fill with a firm outline."""
    for structure in structures:
        _paint(axis, labels == structure.id, structure.colour, 0.35)
    # where outlines meet, the myocardium's lies below
    for structure in sorted(reversed(structures), key=lambda s: s.key != MYO.key):
        mask = labels == structure.id
        if mask.any() and not mask.all():
            axis.contour(mask.astype(float), levels=[0.5], colors=[structure.colour], linewidths=1.4)


def _paint(axis: Axes, mask: np.ndarray, colour: str, alpha: float) -> None:
    axis.imshow(
        np.ma.masked_where(~mask, mask.astype(np.uint8)),
        cmap=ListedColormap([to_rgb(colour)]),
        alpha=alpha,
        aspect=axis.get_aspect(),
        interpolation="nearest",
    )
