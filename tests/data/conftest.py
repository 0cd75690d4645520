"""Small M&Ms-2 and ACDC data sets, written by nibabel, for the tests of readers and checks."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SPACING_MM = {"SA": (1.5, 1.25, 10.0), "LA": (1.5, 1.25, 1.0)}
SHAPE = {"SA": (24, 20, 6), "LA": (24, 20, 1)}


def _heart(view: str) -> np.ndarray:
    """A label map with all three structures: nested squares and one beside them."""
    labels = np.zeros(SHAPE[view], np.uint8)
    labels[7:17, 5:15] = 2
    labels[9:15, 7:13] = 1
    labels[17:21, 5:15] = 3
    return labels


def _image(code: int, view: str, phase: str) -> np.ndarray:
    """Intensities of the whole field of view, different for each case."""
    rng = np.random.default_rng([code, view == "LA", phase == "ES"])
    return (rng.integers(1, 100, SHAPE[view]) + 200 * _heart(view)).astype(np.int16)


def _save(
    path: Path, array: np.ndarray, spacing_mm: tuple[float, ...], affine: np.ndarray | None = None
) -> None:
    """Write an array as NIfTI, its affine oblique unless given."""
    if affine is None:
        turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
        affine = np.eye(4)
        affine[:3, :3] = turn * spacing_mm[:3]
        affine[:3, 3] = -20, 15, 40
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def heart() -> Callable[[str], np.ndarray]:
    """The truth of every case of a view."""
    return _heart


@pytest.fixture
def save_nifti() -> Callable[..., None]:
    """(path, array, spacing_mm, affine=None) -> a file."""
    return _save


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a data set and returns its folder."""

    def make(
        codes: tuple[int, ...] = (1, 2, 161, 201),
        layout: str = "nested",
        suffix: str = ".nii.gz",
        views: tuple[str, ...] = ("SA", "LA"),
        without_truth: tuple[int, ...] = (),
        table: str | None = None,
    ) -> Path:
        root = tmp_path / "MnM2"
        for code in codes:
            folder = root / "dataset" / f"{code:03d}" if layout == "nested" else root
            for view in views:
                for phase in ("ED", "ES"):
                    name = f"{code:03d}_{view}_{phase}"
                    _save(folder / f"{name}{suffix}", _image(code, view, phase), SPACING_MM[view])
                    if code not in without_truth:
                        _save(folder / f"{name}_gt{suffix}", _heart(view), SPACING_MM[view])
        if table is None:
            rows = "".join(f"{code},NOR,SIEMENS,Symphony,1.5\n" for code in codes)
            table = f"SUBJECT_CODE,DISEASE,VENDOR,SCANNER,FIELD\n{rows},,,,\n\n"
        if layout == "nested":
            (root / "dataset_information.csv").write_text(table)
        return root

    return make


@pytest.fixture
def make_acdc(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a data set in ACDC's layout and returns its folder; ES is frame 5."""

    def make(
        codes: tuple[int, ...] = (1, 2, 101),
        suffix: str = ".nii.gz",
        without_truth: tuple[int, ...] = (),
        groups: tuple[str, ...] = ("NOR",),
        parts: dict[int, str] | None = None,
    ) -> Path:
        root = tmp_path / "ACDC"
        for i, code in enumerate(codes):
            part = (parts or {}).get(code, "training" if code <= 100 else "testing")
            folder = root / part / f"patient{code:03d}"
            for phase, frame in (("ED", 1), ("ES", 5)):
                name = f"{folder.name}_frame{frame:02d}"
                _save(folder / f"{name}{suffix}", _image(code, "SA", phase), SPACING_MM["SA"])
                if code not in without_truth:
                    stored = np.array([0, 3, 2, 1], np.uint8)[_heart("SA")]
                    _save(folder / f"{name}_gt{suffix}", stored, SPACING_MM["SA"])
            text = (
                f"ED: 1\nES: 5\nGroup: {groups[i % len(groups)]}\nHeight: 170.0\nNbFrame: 30\nWeight: 70.0\n"
            )
            (folder / "Info.cfg").write_text(text)
        return root

    return make
