"""A case as pictures that a browser cuts into slices: the image, grey, and the labels, a colour channel per layer."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped
from PIL import Image

from qcjax.labels import CARDIAC, Structure
from qcjax.report.pictures import quarter_turns

MARGIN_MM = 25.0  # around the structures
TILES_ACROSS = 8
MOST_PIXELS = 160  # of a tile's side; a larger one is shown by every second pixel, or third …
MOST_LAYERS = 3  # as many as a picture has channels
BRIGHTEST, DARKEST = 99.5, 1.0  # percentiles of the image that are white and black
MANY_TILES = 60  # of more, such as a cine's, the image is packed tighter
QUALITY, QUALITY_OF_MANY = 85, 65  # of JPEG


def pack_case(
    image: Shaped[np.ndarray, "x y n"] | None,
    layers: Mapping[str, Integer[np.ndarray, "x y n"]],
    spacing_mm: tuple[float, float],
    start: int,
    frames: int = 1,
    structures: Sequence[Structure] = CARDIAC,
    start_frame: int = 0,
) -> dict[str, Any]:
    """What the viewer draws of a case: pictures as data URIs, cut to the structures with a margin, RV on the left.

    Args:
      image: None where there is none: the masks lie on black then. n is slices times frames, frame by frame.
      layers: name -> label map of the same shape, ids of `structures`; at most three, and the first two are those whose
        difference can be shown, such as mask and reconstruction.
      spacing_mm: of x and y.
      start, start_frame: the slice and the frame to begin with, counted from 0.
      frames: how many the last axis holds.
      structures: those in the maps.

    Raises:
      ValueError: no layer or too many, shapes that differ, or slices that the frames don't share evenly.
    """
    maps = list(layers.values())
    if not 0 < len(maps) <= MOST_LAYERS:
        raise ValueError(f"layers: {len(maps) or 'none'} found, expected 1 to {MOST_LAYERS}")
    shape: tuple[int, ...] = maps[0].shape
    stacks: dict[str, np.ndarray] = dict(layers) if image is None else {**layers, "image": image}
    for name, of_layer in stacks.items():
        if of_layer.shape != shape:
            raise ValueError(f"{name}: shape {of_layer.shape} found, expected {shape}")
    if shape[2] % frames:
        raise ValueError(f"{shape[2]} slices found, expected a multiple of {frames} frames")
    turns = quarter_turns(maps[0], structures)
    if turns % 2:
        spacing_mm = spacing_mm[::-1]
    maps = [_turned(m, turns) for m in maps]
    box = _box([np.isin(m, [s.id for s in structures]) for m in maps], spacing_mm)
    step = max(1, -(-max(s.stop - s.start for s in box) // MOST_PIXELS))
    cut = (slice(box[0].start, box[0].stop, step), slice(box[1].start, box[1].stop, step))
    labels = np.zeros((*maps[0][cut].shape, MOST_LAYERS), np.uint8)
    for layer, m in enumerate(maps):
        for place, structure in enumerate(structures, start=1):
            labels[m[cut] == structure.id, layer] = place
    slices = shape[2] // frames
    return {
        "image": None if image is None else _grey(_turned(image, turns), box, cut),
        "labels": _packed(_sheet(labels), "PNG", optimize=True),
        "layers": list(layers),
        "width": len(labels),
        "height": len(labels[0]),
        "aspect": spacing_mm[1] / spacing_mm[0],
        "across": min(TILES_ACROSS, shape[2]),
        "slices": slices,
        "frames": frames,
        "start": min(max(start, 0), slices - 1),
        "start_frame": min(max(start_frame, 0), frames - 1),
    }


def _turned(stack: np.ndarray, turns: int) -> np.ndarray:
    """(x, y, n), turned as `numpy.rot90` turns a picture, whose rows are y."""
    return np.rot90(stack, -turns, (0, 1))


def _grey(image: np.ndarray, box: tuple[slice, slice], cut: tuple[slice, slice]) -> str:
    low, high = np.percentile(image[box], (DARKEST, BRIGHTEST))
    shown = np.clip((image[cut] - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)
    quality = QUALITY if image.shape[2] <= MANY_TILES else QUALITY_OF_MANY
    return _packed(_sheet(shown), "JPEG", quality=quality)


def _box(inside: Sequence[np.ndarray], spacing_mm: tuple[float, float]) -> tuple[slice, slice]:
    """What holds all structures and a margin, in plane; all of it where there are none."""
    anywhere = np.any([m.any(axis=2) for m in inside], axis=0)
    if not anywhere.any():
        return slice(0, anywhere.shape[0]), slice(0, anywhere.shape[1])
    box = []
    for axis in (0, 1):
        filled = np.flatnonzero(anywhere.any(axis=1 - axis))
        margin = int(np.ceil(MARGIN_MM / spacing_mm[axis]))
        box.append(
            slice(max(0, int(filled[0]) - margin), min(anywhere.shape[axis], int(filled[-1]) + margin + 1))
        )
    return box[0], box[1]


def _sheet(stack: np.ndarray) -> np.ndarray:
    """Slices (x, y, n), or with channels (x, y, n, 3), side by side in rows, as a picture whose rows are y."""
    width, height, n = stack.shape[:3]
    across = min(TILES_ACROSS, n)
    sheet = np.zeros((-(-n // across) * height, across * width, *stack.shape[3:]), np.uint8)
    for i in range(n):
        row, column = divmod(i, across)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = np.swapaxes(
            stack[:, :, i], 0, 1
        )
    return sheet


def _packed(sheet: np.ndarray, kind: str, **options: Any) -> str:
    packed = io.BytesIO()
    Image.fromarray(sheet).save(packed, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(packed.getvalue()).decode("ascii")
