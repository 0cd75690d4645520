"""Masks of many cases, prepared for the autoencoder: one stack of slices, and how to find a case in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from qcjax.config import Centre
from qcjax.data.geometry import Orientation
from qcjax.data.nifti import read_labels, read_stored_grid
from qcjax.data.preprocess import Geometry, prepare_mask, to_square
from qcjax.data.stacked import Stacked
from qcjax.data.subject import Subject
from qcjax.runtime import hosts
from qcjax.runtime.wording import count_of


@dataclass(frozen=True)
class MaskCase:
    """A mask in a file."""

    name: str  # unique
    group: str  # the subject: its masks stay together
    path: Path


@dataclass(frozen=True)
class MaskCohort(Stacked):
    """Prepared masks, those of a group one after another."""

    cases: tuple[MaskCase, ...]
    geometries: tuple[Geometry, ...]
    label: np.ndarray  # (n, h, w) uint8, ids of structures
    orientation: Orientation | None = None  # what the axes of all were brought to; None: as stored

    @property
    def groups(self) -> list[Int[np.ndarray, " _"]]:
        """The slices of each group, in order."""
        of_case = [case.group for case in self.cases]
        of_slice = np.repeat([list(dict.fromkeys(of_case)).index(g) for g in of_case], np.diff(self.first))
        return [np.flatnonzero(of_slice == i) for i in range(int(of_slice.max(initial=-1)) + 1)]


def true_masks(subjects: Sequence[Subject]) -> list[MaskCase]:
    """The ground truth of some subjects, where it is there; the masks of a subject are a group."""
    return [MaskCase(c.name, s.code, c.label_path) for s in subjects for c in s.cases if c.label_path]


def common_orientation(cases: Sequence[MaskCase], tell: Callable[[str], None]) -> Orientation | None:
    """What the axes of masks are brought to: as most of them are stored; None where none says which way they go.

    Args:
      tell: called with a sentence on masks that don't say it.

    Raises:
      InvalidFile: a file that can't be used.
    """
    grids = hosts.share(lambda case: read_stored_grid(case.path)[0], cases)
    silent = sum(not grid.directed for grid in grids)
    if silent:
        tell(
            f"{count_of(silent, 'mask')} of {len(cases)} without a valid sform or qform: axes taken as stored"
        )
    return Orientation.common(grids)


def prepare_masks(
    cases: Sequence[MaskCase],
    mapping: dict[int, int],
    spacing_mm: float,
    size: int,
    centre: Centre = "image",
    on_case: Callable[[], None] = lambda: None,
    orientation: Orientation | None = None,
) -> MaskCohort:
    """Read and prepare masks: in plane to `spacing_mm`, padded or cropped to a square of `size` pixels.

    Of several processes each reads its share.

    Args:
      mapping: label value in the files -> id of the structure.
      centre: what lies in the middle of the square.
      orientation: what the axes are brought to; None: as stored, but for the slices.

    Raises:
      InvalidFile: a file that can't be used.
      ValueError: no case.
    """
    if not cases:
        raise ValueError("no masks found, expected at least one")

    def one(case: MaskCase) -> tuple[Geometry, np.ndarray]:
        geometry, resampled = prepare_mask(
            read_labels(case.path, mapping, orientation=orientation), spacing_mm, size, centre
        )
        on_case()
        return geometry, to_square(resampled, geometry)

    parts = hosts.share(one, cases)
    return MaskCohort(
        tuple(cases),
        tuple(geometry for geometry, _ in parts),
        np.concatenate([stack for _, stack in parts]),
        orientation,
    )
