"""Synthetic cohorts in the layout of the public M&Ms-2 release."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qcjax.data.datasets.mnms2 import INFORMATION
from qcjax.phantom.cohort import FIRST_CODES, LAST_CODES, PhantomSubject, make_subject
from qcjax.phantom.write import SubjectFiles, Volumes, write_cohort

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

    def subjects(self) -> Iterator[PhantomSubject]:
        """Each subject, a function of its code, the seed and the scale alone."""
        for part, n in self.sizes().items():
            for code in range(FIRST_CODES[part], FIRST_CODES[part] + n):
                yield make_subject(code, part, self.seed, self.matrix_scale)


def write_mnms2(
    out: Path, config: PhantomConfig, on_subject: Callable[[PhantomSubject], None] | None = None
) -> Path:
    """Write a cohort: `out`/dataset_information.csv and `out`/dataset/001/001_{SA,LA}_{ED,ES}[_gt].nii.gz.

    The arguments and what comes back are those of `write_cohort`.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)

    def files_of(subject: PhantomSubject) -> SubjectFiles:
        scanner = subject.scanner
        writer.writerow((subject.code, subject.disease, scanner.vendor, scanner.model, scanner.field_t))
        name = f"{subject.code:03d}"
        volumes: Volumes = {}
        for (view, phase), item in subject.images.items():
            stem = f"dataset/{name}/{name}_{view}_{phase}"
            volumes |= {f"{stem}.nii.gz": (item.image, item), f"{stem}_gt.nii.gz": (item.label, item)}
        return SubjectFiles(volumes)

    write_cohort(out, config.subjects(), files_of, on_subject)
    (out / INFORMATION).write_text(table.getvalue(), encoding="utf-8")
    return out
