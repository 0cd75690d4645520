"""The viewer of a page: cases slice by slice, frame by frame, with masks over them, in a file that needs no network.

A case's slices are tiles of two pictures: the image, grey, and the labels, a value per structure and layer. A browser
draws one tile at a time from them, so that hundreds of cases cost what their pictures weigh.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped
from PIL import Image

from qcjax.labels import CARDIAC, Structure
from qcjax.report import style

MARGIN_MM = 25.0  # around the structures
TILES_ACROSS = 8
MOST_PIXELS = 160  # of a tile's side; a larger one is shown by every second pixel, or third …
BRIGHTEST, DARKEST = 99.5, 1.0  # percentiles of the image that are white and black


@dataclass(frozen=True)
class ViewedCase:
    """A case as the viewer shows it."""

    name: str
    verdict: str  # one word, such as erroneous; "" where nothing is wrong
    text: str  # what was measured, in words
    values: Mapping[str, float | str | None]  # of the table's columns
    tiles: Mapping[str, Any] = field(default_factory=dict)  # of `pack_case`; empty where nothing can be shown


def pack_case(
    image: Shaped[np.ndarray, "x y n"] | None,
    layers: Mapping[str, Integer[np.ndarray, "x y n"]],
    spacing_mm: tuple[float, float],
    start: int,
    frames: int = 1,
    structures: Sequence[Structure] = CARDIAC,
) -> dict[str, Any]:
    """What the viewer draws of a case: pictures as data URIs, cut to the structures with a margin.

    Args:
      image: None where there is none: the masks lie on black then. n is slices times frames, frame by frame.
      layers: name -> label map of the same shape, ids of `structures`; the first two are those whose difference can be
        shown, such as mask and reconstruction.
      spacing_mm: of x and y.
      start: the slice to begin with, counted from 0.
      frames: how many the last axis holds.
      structures: those in the maps.

    Raises:
      ValueError: no layer, shapes that differ, or slices that the frames don't share evenly.
    """
    maps = list(layers.values())
    if not maps:
        raise ValueError("layers: none found, expected at least one")
    shape: tuple[int, ...] = maps[0].shape
    stacks: dict[str, np.ndarray] = dict(layers) if image is None else {**layers, "image": image}
    for name, of_layer in stacks.items():
        if of_layer.shape != shape:
            raise ValueError(f"{name}: shape {of_layer.shape} found, expected {shape}")
    if shape[2] % frames:
        raise ValueError(f"{shape[2]} slices found, expected a multiple of {frames} frames")
    box = _box([np.isin(m, [s.id for s in structures]) for m in maps], spacing_mm)
    step = max(1, -(-max(s.stop - s.start for s in box) // MOST_PIXELS))
    cut = (slice(box[0].start, box[0].stop, step), slice(box[1].start, box[1].stop, step))
    if image is not None:
        low, high = np.percentile(image[box[0], box[1]], (DARKEST, BRIGHTEST))
        shown = np.clip((image[cut] - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)
    labels = np.zeros(maps[0][cut].shape, np.uint32)
    place = {s.id: i + 1 for i, s in enumerate(structures)}
    for layer, m in enumerate(maps):  # a digit for each layer, in the base of how many labels there are
        digits = np.zeros(labels.shape, np.uint32)
        for value, digit in place.items():
            digits[m[cut] == value] = digit
        labels += digits * (len(structures) + 1) ** layer
    if (len(structures) + 1) ** len(maps) > 256:
        raise ValueError(
            f"{len(maps)} layers of {len(structures)} structures found, expected at most 256 combinations"
        )
    return {
        "image": None if image is None else _sheet(shown, "JPEG"),
        "labels": _sheet(labels.astype(np.uint8), "PNG"),
        "layers": list(layers),
        "width": len(labels),
        "height": len(labels[0]),
        "aspect": spacing_mm[1] / spacing_mm[0],
        "across": min(TILES_ACROSS, shape[2]),
        "slices": shape[2] // frames,
        "frames": frames,
        "start": min(max(start, 0), shape[2] // frames - 1),
    }


def viewer_data(
    cases: Sequence[ViewedCase], columns: Sequence[str], structures: Sequence[Structure] = CARDIAC
) -> dict[str, Any]:
    """What the template `viewer.html.j2` needs: the cases in the order in which they are shown at first.

    Args:
      columns: of the table, keys of the cases' `values`; those that are numbers are sorted as such.
    """
    return {
        "columns": list(columns),
        "structures": [{"key": s.key, "name": s.name, "colour": s.colour} for s in structures],
        "differ": style.INCONSISTENT_COLOUR,
        "cases": [
            {
                "name": c.name,
                "verdict": c.verdict,
                "text": c.text,
                "values": [_plain(c.values.get(column)) for column in columns],
                "tiles": dict(c.tiles) or None,
            }
            for c in cases
        ],
    }


def _plain(value: float | str | None) -> float | str | None:
    """For JSON, which has no infinity and no NaN."""
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    if np.isnan(number):
        return None
    return number if np.isfinite(number) else ("∞" if number > 0 else "−∞")


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


def _sheet(stack: np.ndarray, kind: str) -> str:
    """Slices (x, y, n) side by side in rows, as a picture whose rows are y."""
    width, height, n = stack.shape
    across = min(TILES_ACROSS, n)
    sheet = np.zeros((-(-n // across) * height, across * width), np.uint8)
    for i in range(n):
        row, column = divmod(i, across)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = stack[:, :, i].T
    packed = io.BytesIO()
    options: dict[str, Any] = {"quality": 85} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(sheet).save(packed, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(packed.getvalue()).decode("ascii")
