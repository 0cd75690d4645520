"""Unlabelled images as refinement sees them: on the networks' grid, where the monitor's autoencoder expects a heart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

from qcjax.labels import Structure
from qcjax.qc.components import keep_largest
from qcjax.runtime.progress import bar, say
from qcjax.runtime.wording import printable
from qcjax.segmentation.inputs import Image, read_image_frames
from qcjax.segmentation.model import Model
from qcjax.segmentation.result import Prepared
from qcjax.segmentation.turns import quarter_turns, rv_direction


@dataclass(frozen=True)
class Unlabelled:
    """The slices of some images, one after the other; a case is one image or one frame of a cine."""

    names: tuple[str, ...]  # of the cases
    images: tuple[str, ...]  # whose they are
    spacing_mm: tuple[tuple[float, float, float], ...]  # of each, (slices, rows, columns)
    lengths: tuple[int, ...]  # how many slices each has
    slices: np.ndarray  # (n, size, size) float32
    refused: dict[str, str]  # image -> why it can't be used

    @property
    def first(self) -> Int[np.ndarray, " bounds"]:
        """Where each case's slices begin, and where the last one's end: (cases + 1,)."""
        return np.cumsum([0, *self.lengths])

    def slices_of(self, cases: Sequence[int] | Integer[np.ndarray, " m"]) -> Int[np.ndarray, " n"]:
        """Indices of all slices of the given cases."""
        return np.flatnonzero(np.isin(np.repeat(np.arange(len(self.lengths)), self.lengths), cases))

    def split(self, values: Shaped[np.ndarray, "n *rest"]) -> list[Shaped[np.ndarray, "_ *rest"]]:
        """Values of all slices, (n, ...), case by case."""
        return np.split(values, self.first[1:-1])


def looked_at(frames: int) -> list[int]:
    """The frames of a cine that are learnt from, counted from 0: the first and that at a third, near ED and ES."""
    return sorted({0, frames // 3})


def read_unlabelled(model: Model, images: Sequence[Image]) -> Unlabelled:
    """All images that can be read, prepared, centred and turned by the masks that the model makes of them.

    Raises:
      ValueError: none of them can be used; the message has the first one's reason.
    """
    names, owners, spacings, stacks, refused = [], [], [], [], {}
    with bar("Unlabelled images read and segmented", len(images)) as advance:
        for image in images:
            try:
                volumes = read_image_frames(image, model.orientation)
                chosen = looked_at(len(volumes))
                prepared = model.prepare_frames([volumes[i] for i in chosen])
                for i, one in zip(chosen, prepared, strict=True):
                    names.append(image.name if len(volumes) == 1 else f"{image.name}, frame {i + 1}")
                    stacks.append(_framed(model, one))
                    owners.append(image.name)
                    x_mm, y_mm, slice_mm = one.spacing_mm
                    spacings.append((slice_mm, model.spacing_mm, model.spacing_mm))
            except (OSError, ValueError) as error:
                refused[image.name] = str(error)
                say(printable(f"{image.name}: left out: {error}"))
            advance()
    if not names:
        raise ValueError(f"found no image that can be used; the first: {next(iter(refused.values()))}")
    lengths = tuple(len(stack) for stack in stacks)
    return Unlabelled(tuple(names), tuple(owners), tuple(spacings), lengths, np.concatenate(stacks), refused)


def _framed(model: Model, prepared: Prepared) -> np.ndarray:
    (found,) = model.predict([prepared])
    mask = keep_largest(found.probabilities.argmax(-1).astype(np.uint8), model.single)
    return framed(prepared.stack, mask, model.structures, model.direction, model.monitor.centre == "mask")


def framed(
    stack: Float[np.ndarray, "s h h"],
    mask: Integer[np.ndarray, "s h h"],
    structures: Sequence[Structure],
    direction: complex | None,
    centred: bool,
) -> Float[np.ndarray, "s h h"]:
    """A stack turned and moved as the monitor turns and moves its mask, so that its autoencoder knows such hearts.

    Args:
      mask: of the stack, ids of structures.
      direction: of the RV as seen from the LV in the masks that the monitor learnt from (`turns`); None: not turned.
      centred: whether the median of the mask goes to the middle; what is moved in is 0, the mean of an image.
    """
    turns = quarter_turns(rv_direction(mask.T, structures), direction)
    stack, mask = (np.rot90(x.T, turns, (0, 1)).T for x in (stack, mask))
    if not centred or not mask.any():
        return np.ascontiguousarray(stack)
    inside = mask != 0
    for axis in (1, 2):
        so_far = inside.sum(axis=(0, 3 - axis)).cumsum()
        off = int(np.searchsorted(so_far, so_far[-1] / 2)) - len(so_far) // 2
        stack = _moved(stack, -off, axis)
    return np.ascontiguousarray(stack)


def _moved(stack: np.ndarray, by: int, axis: int) -> np.ndarray:
    """Along an axis, 0 where nothing is moved in."""
    moved, edge = np.roll(stack, by, axis), [slice(None)] * stack.ndim
    edge[axis] = slice(0, by) if by > 0 else slice(by or stack.shape[axis], None)
    moved[tuple(edge)] = 0
    return moved


def same_images(images: Sequence[Image]) -> list[list[str | int]]:
    """What tells whether images are those of an earlier start: name, size in bytes and time of each."""
    found: list[list[str | int]] = []
    for image in images:
        status = Path(image.path).stat()
        found.append([image.name, status.st_size, status.st_mtime_ns])
    return found
