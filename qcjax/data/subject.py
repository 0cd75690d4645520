"""What a data set holds: subjects, their cases (view and phase), and the volumes in their files."""

from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from qcjax.data.geometry import Axes
from qcjax.runtime.messages import sendable

VIEWS = ("SA", "LA")  # short-axis stack, long-axis (4-chamber) slice
PHASES = ("ED", "ES")  # of a cine: end of diastole, end of systole
LGE = "LGE"  # in a phase's place: late gadolinium enhancement, a still image at about end of diastole
PARTS = ("train", "validation", "test")  # the data set's own, official split


@sendable
@dataclass(frozen=True)
class Case:
    """One subject, view and phase: the unit that is segmented and scored."""

    subject: str  # as in the file names, e.g. "001"
    view: str  # one of VIEWS
    phase: str  # one of PHASES, or LGE
    image_path: Path
    label_path: Path | None  # None where the truth is not public

    @property
    def name(self) -> str:
        """E.g. ``001_SA_ED``."""
        return f"{self.subject}_{self.view}_{self.phase}"


@sendable
@dataclass(frozen=True)
class Subject:
    """One patient or volunteer."""

    code: str
    disease: str  # "" where unknown
    vendor: str  # "" where unknown
    part: str  # one of PARTS
    cases: tuple[Case, ...] = ()
    cine: dict[str, Path] = field(default_factory=dict)  # view -> path, where there is one


@dataclass(frozen=True)
class Volume:
    """An image or a label map with its geometry."""

    array: np.ndarray  # (x, y, slices): float32 image or uint8 labels
    spacing_mm: tuple[float, float, float]  # of the array's axes
    affine: np.ndarray  # (4, 4), the array's voxel indices -> mm
    path: Path
    header: nib.Nifti1Header | None = None  # the file's own, for writing on the same grid
    axes: Axes = field(default_factory=Axes)  # how the array was brought from the stored one
    directed: bool = False  # whether the header says which way the axes go
    nominal: bool = False  # by an affine of unit steps beside another pixdim, which counts
    notes: tuple[str, ...] = ()  # what is unusual about its geometry, in words
