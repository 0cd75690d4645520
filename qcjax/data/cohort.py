"""The cases of one view, prepared for the networks: one stack of slices, and how to find a case in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int, Integer, Shaped

from qcjax.data.batches import Slices
from qcjax.data.geometry import Orientation
from qcjax.data.nifti import read_image, read_labels, read_stored_grid
from qcjax.data.preprocess import Geometry, plan, prepare_image, prepare_labels
from qcjax.data.resample import Resampling
from qcjax.data.stacked import Stacked
from qcjax.data.subject import Case, Subject
from qcjax.labels import MNMS2_LABELS
from qcjax.runtime import hosts


@dataclass(frozen=True)
class Cohort(Stacked):
    """Prepared cases."""

    cases: tuple[Case, ...]
    geometries: tuple[Geometry, ...]
    slices: Slices  # numpy arrays on the host: image (n, h, w) float32, label (n, h, w) uint8
    orientation: Orientation | None = None  # what the axes of all were brought to; None: as stored

    @property
    def owner(self) -> Int[np.ndarray, " n"]:
        """The case of each slice: (n,)."""
        return np.repeat(np.arange(len(self.cases)), np.diff(self.first))

    @property
    def phases(self) -> Shaped[np.ndarray, " cases"]:
        """The phase of each case: (cases,) text."""
        return np.array([case.phase for case in self.cases])

    def rows(self, case: SupportsIndex) -> slice:
        """The slices of a case."""
        first, place = self.first, int(case)
        return slice(int(first[place]), int(first[place + 1]))

    def slices_of(self, cases: Sequence[int] | Integer[np.ndarray, " m"]) -> Int[np.ndarray, " n"]:
        """Indices of all slices of the given cases."""
        return np.flatnonzero(np.isin(self.owner, cases))


def orientation_of(subjects: Sequence[Subject], view: str) -> Orientation | None:
    """What the axes of a view's images are brought to: as most are stored; None where none says which way they go.

    Raises:
      InvalidFile: a file that can't be used.
    """
    paths = [c.image_path for s in subjects for c in s.cases if c.view == view]
    return Orientation.common(hosts.share(lambda path: read_stored_grid(path)[0], paths))


def prepare(
    subjects: Sequence[Subject],
    view: str,
    spacing_mm: tuple[float, float],
    size: int,
    with_labels: bool,
    way: Resampling = "paper",
    on_case: Callable[[], None] = lambda: None,
    mapping: dict[int, int] = MNMS2_LABELS,
    orientation: Orientation | None = None,
) -> Cohort:
    """Read and prepare every case of a view; of several processes each reads its share.

    Args:
      spacing_mm: target in-plane spacing (h, w).
      size: of the square slices.
      with_labels: read the ground truth too; without it, label maps are zeros whatever is on disk, so that what is
        to be predicted can't be learnt from.
      mapping: label value in the files -> label value inside qcjax.
      orientation: what the axes are brought to; None: as stored, but for the slices.

    Raises:
      ValueError: a file that can't be used, or `with_labels` and a case without truth.
    """
    cases = [case for subject in subjects for case in subject.cases if case.view == view]

    def one(case: Case) -> tuple[Geometry, np.ndarray, np.ndarray]:
        image = read_image(case.image_path, orientation)
        geometry = plan(image, spacing_mm, size)
        stack = prepare_image(image, geometry, way)
        labels = np.zeros(stack.shape, np.uint8)
        if with_labels:
            if case.label_path is None:
                raise ValueError(
                    f"{case.image_path}: no ground truth found beside it, expected one for training"
                )
            labels = prepare_labels(read_labels(case.label_path, mapping, like=image), geometry, way)
        on_case()
        return geometry, stack, labels

    parts = hosts.share(one, cases)
    empty = np.zeros((0, size, size))
    return Cohort(
        tuple(cases),
        tuple(geometry for geometry, _, _ in parts),
        Slices(
            np.concatenate([empty.astype(np.float32), *(image for _, image, _ in parts)]),
            np.concatenate([empty.astype(np.uint8), *(label for _, _, label in parts)]),
        ),
        orientation,
    )
