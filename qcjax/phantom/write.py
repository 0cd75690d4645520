"""Synthetic cohorts on disk, in the layout of the public M&Ms-2 release."""

import csv
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from qcjax.phantom.cohort import FIRST_CODES, LAST_CODES, PhantomSubject, make_subject

CSV_COLUMNS = ("SUBJECT_CODE", "DISEASE", "VENDOR", "SCANNER", "FIELD")


@dataclass(frozen=True)
class PhantomConfig:
    """A synthetic cohort."""

    n_train: int = 24  # subjects, at most 160
    n_validation: int = 8  # at most 40
    n_test: int = 20  # at most 160; diseases and scanners come round every 10 and 5
    seed: int = 0
    matrix_scale: float = 1.0  # factor on the pixels along each side of an image; the field of view stays

    def __post_init__(self) -> None:
        """Raises ValueError for a part larger than the official split has codes for."""
        for part, n in self.sizes().items():
            most = LAST_CODES[part] - FIRST_CODES[part] + 1
            if not 0 <= n <= most:
                raise ValueError(f"n_{part} = {n} found, expected 0 to {most}")

    def sizes(self) -> dict[str, int]:
        """Part of the split -> number of subjects."""
        return {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}

    def codes(self) -> Iterator[tuple[int, str]]:
        """Each subject's code and part."""
        for part, n in self.sizes().items():
            for code in range(FIRST_CODES[part], FIRST_CODES[part] + n):
                yield code, part


def write_nifti(
    path: Path, array: np.ndarray, affine: np.ndarray, spacing_mm: tuple[float, float, float]
) -> None:
    """Write a volume as NIfTI-1, gzipped, in millimetres; the same volume always gives the same bytes.

    Args:
      path: ends in .nii.gz.
      array: (x, y, slices), of the type to be stored.
      affine: (4, 4), voxel indices -> mm.
    """
    image = nib.Nifti1Image(array, affine)
    image.header.set_zooms(spacing_mm)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=4, fileobj=raw, mtime=0) as packed:
        packed.write(image.to_bytes())


def write_mnms2(
    out: Path, config: PhantomConfig, on_subject: Callable[[PhantomSubject], None] | None = None
) -> Path:
    """Write a cohort: `out`/dataset_information.csv and `out`/dataset/001/001_{SA,LA}_{ED,ES}[_gt].nii.gz.

    Args:
      out: a folder, made if need be.
      on_subject: called after each subject is written.

    Returns:
      `out`.
    """
    rows = []
    for code, part in config.codes():
        subject = make_subject(code, part, config.seed, config.matrix_scale)
        name = f"{code:03d}"
        folder = out / "dataset" / name
        folder.mkdir(parents=True, exist_ok=True)
        for (view, phase), item in subject.images.items():
            stem = f"{name}_{view}_{phase}"
            write_nifti(folder / f"{stem}.nii.gz", item.image, item.affine, item.spacing_mm)
            write_nifti(folder / f"{stem}_gt.nii.gz", item.label, item.affine, item.spacing_mm)
        scanner = subject.scanner
        rows.append((code, subject.disease, scanner.vendor, scanner.model, scanner.field_t))
        if on_subject is not None:
            on_subject(subject)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "dataset_information.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        writer.writerows(rows)
    return out
