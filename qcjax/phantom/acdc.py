"""Synthetic cohorts on disk in the layout of ACDC: short axis only, ACDC's five groups, its label values."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcjax.data.datasets.acdc import FOLDERS, GROUPS, INFORMATION, LAST_TRAINING_CODE, STORED_LABELS
from qcjax.data.subject import PHASES
from qcjax.labels import remap
from qcjax.phantom.cohort import PhantomSubject, drawn, scan_patient
from qcjax.phantom.patient import DISEASES, Disease, sample_patient
from qcjax.phantom.scanner import SCANNERS, UNSEEN_SCANNER
from qcjax.phantom.write import SubjectFiles, Volumes, write_cohort

ACDC_DISEASES = {
    "NOR": DISEASES["NOR"],
    # contracts badly without being as large as in DCM, the scar thins part of the wall; here all of it
    "MINF": Disease(
        lv_ef=(0.25, 0.40), rv_ef=(0.42, 0.58), factors={"lv_radius": (1.02, 1.2), "wall": (0.82, 0.98)}
    ),
    "DCM": DISEASES["LV"],
    "HCM": DISEASES["HCM"],
    "RV": DISEASES["RV"],
}
MOST_SUBJECTS = {"train": LAST_TRAINING_CODE, "test": 50}
TEST_SCANNERS = (*SCANNERS, SCANNERS[0], UNSEEN_SCANNER)  # the last is harder: segmenters are to fail on some
_FOLDER_OF = {part: name for name, part in FOLDERS.items()}

# streams of random numbers, none that M&Ms-2's cohort has
_PATIENT_STREAM, _GROUP_STREAM, _SCANNER_STREAM = 10, 11, 12


@dataclass(frozen=True)
class AcdcPhantomConfig:
    """A synthetic cohort in ACDC's layout."""

    n_train: int = 24  # subjects, at most 100; groups come round every 5, scanners every 3
    n_test: int = 12  # at most 50; one subject in 5 is from a scanner that training has not
    seed: int = 0
    matrix_scale: float = 1.0  # factor on the pixels along each side of an image; the field of view stays

    def __post_init__(self) -> None:
        """Raises ValueError for a part larger than ACDC's, or a scale that isn't positive."""
        for part, n in self.sizes().items():
            if not 0 <= n <= MOST_SUBJECTS[part]:
                raise ValueError(f"n_{part} = {n} found, expected 0 to {MOST_SUBJECTS[part]}")
        if not self.matrix_scale > 0:
            raise ValueError(f"matrix_scale {self.matrix_scale} found, expected a positive number")

    def sizes(self) -> dict[str, int]:
        """Part -> number of subjects."""
        return {"train": self.n_train, "test": self.n_test}

    def subjects(self) -> Iterator[PhantomSubject]:
        """Each subject, short axis only; a function of its code, the seed and the scale alone."""
        for part, n in self.sizes().items():
            scanners = TEST_SCANNERS if part == "test" else SCANNERS
            for place in range(n):
                code = place + 1 + (LAST_TRAINING_CODE if part == "test" else 0)
                group = GROUPS[drawn(len(GROUPS), place, part, self.seed, _GROUP_STREAM)]
                scanner = scanners[drawn(len(scanners), place, part, self.seed, _SCANNER_STREAM)]
                rng = np.random.default_rng((self.seed, _PATIENT_STREAM, code))
                patient = sample_patient(group, rng, ACDC_DISEASES)
                images = scan_patient(patient, scanner, rng, self.matrix_scale, ("SA",))
                yield PhantomSubject(code, part, patient, scanner, images)


def write_acdc(
    out: Path, config: AcdcPhantomConfig, on_subject: Callable[[PhantomSubject], None] | None = None
) -> Path:
    """Write a cohort: `out`/{training,testing}/patient001/{Info.cfg,patient001_frame01[_gt].nii.gz}.

    The arguments and what comes back are those of `write_cohort`.
    """
    return write_cohort(out, config.subjects(), lambda subject: _files(subject, config.seed), on_subject)


def _files(subject: PhantomSubject, seed: int) -> SubjectFiles:
    """Both phases among invented numbers of frames, and what Info.cfg says of the patient."""
    rng = np.random.default_rng((seed, _PATIENT_STREAM, subject.code, 1))
    n_frames = int(rng.integers(20, 36))
    frames = dict(zip(PHASES, (1, round(n_frames * rng.uniform(0.33, 0.45))), strict=True))
    name = f"patient{subject.code:03d}"
    folder = f"{_FOLDER_OF[subject.part]}/{name}"
    volumes: Volumes = {}
    for phase, frame in frames.items():
        item, stem = subject.images["SA", phase], f"{folder}/{name}_frame{frame:02d}"
        stored = remap(item.label, STORED_LABELS)
        volumes |= {f"{stem}.nii.gz": (item.image, item), f"{stem}_gt.nii.gz": (stored, item)}
    values = {
        **frames,
        "Group": subject.disease,
        "Height": f"{rng.normal(170, 9):.1f}",
        "NbFrame": n_frames,
        "Weight": f"{rng.normal(75, 12):.1f}",
    }
    text = "".join(f"{key}: {value}\n" for key, value in values.items())
    return SubjectFiles(volumes, {f"{folder}/{INFORMATION}": text.encode("utf-8")})
