"""Synthetic cohorts on disk in the layout of EMIDEC: late gadolinium enhancement, normal and infarcted hearts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qcjax.data.datasets.emidec import CONTOURS, GROUPS, IMAGES
from qcjax.phantom.cohort import PhantomImage, drawn
from qcjax.phantom.lge_scan import Protocol, scan_lge
from qcjax.phantom.lge_scar import Infarct
from qcjax.phantom.patient import Disease, sample_patient
from qcjax.phantom.write import SubjectFiles, Volumes, write_cohort

MOST_TRAINING, MOST_TEST = 100, 50
LGE_DISEASES = {
    # the wall as drawn in such images, a little into the bright borders on both sides
    "normal": Disease(factors={"wall": (1.08, 1.3), "septum": (1.08, 1.3)}),
    "pathological": Disease(
        lv_ef=(0.25, 0.55), factors={"lv_radius": (0.96, 1.16), "wall": (1.08, 1.35), "septum": (1.08, 1.35)}
    ),
}

# streams of random numbers, none that the cine cohorts have
_PATIENT_STREAM, _GROUP_STREAM, _TEXT_STREAM = 20, 21, 22


@dataclass(frozen=True)
class LgeSubject:
    """One synthetic subject."""

    code: str  # e.g. Case_P001; Case_101 in the test part
    part: str
    disease: str  # "normal" or "pathological"
    infarct: Infarct | None
    image: PhantomImage
    clinical: Mapping[str, str] = field(repr=False)  # key -> value of the clinical text, in its order


@dataclass(frozen=True)
class LgePhantomConfig:
    """A synthetic cohort in EMIDEC's layout."""

    n_normal: int = 8  # training subjects; normal and pathological together at most 100
    n_pathological: int = 16
    n_test: int = 0  # at most 50, without contours; one in 3 is normal
    seed: int = 0
    matrix_scale: float = 1.0  # factor on the pixels along each side of an image; the field of view stays

    def __post_init__(self) -> None:
        """Raises ValueError for a part larger than EMIDEC's, or a scale that isn't positive."""
        sizes = {"n_normal": self.n_normal, "n_pathological": self.n_pathological, "n_test": self.n_test}
        for name, n in sizes.items():
            most = MOST_TEST if name == "n_test" else MOST_TRAINING
            if not 0 <= n <= most:
                raise ValueError(f"{name} = {n} found, expected 0 to {most}")
        if self.n_normal + self.n_pathological > MOST_TRAINING:
            found = f"n_normal + n_pathological = {self.n_normal + self.n_pathological}"
            raise ValueError(f"{found} found, expected at most {MOST_TRAINING}")
        if not self.matrix_scale > 0:
            raise ValueError(f"matrix_scale {self.matrix_scale} found, expected a positive number")

    def subjects(self) -> Iterator[LgeSubject]:
        """Each subject, a function of its code, group, the seed and the scale alone."""
        n = self.n_normal + self.n_pathological
        for place in range(n):  # the normal ones evenly among the others
            normal = (place + 1) * self.n_normal // n > place * self.n_normal // n
            letter = "N" if normal else "P"
            yield make_lge_subject(
                f"Case_{letter}{place + 1:03d}", GROUPS[letter], self.seed, self.matrix_scale
            )
        for place in range(self.n_test):
            letter = "N" if drawn(3, place, "test", self.seed, _GROUP_STREAM) == 0 else "P"
            code = f"Case_{MOST_TRAINING + place + 1}"
            yield make_lge_subject(code, GROUPS[letter], self.seed, self.matrix_scale)


def make_lge_subject(code: str, disease: str, seed: int, matrix_scale: float = 1.0) -> LgeSubject:
    """A synthetic subject, a function of these arguments alone.

    Args:
      code: Case_N006, Case_P001, or Case_101 for one of the test part.
      disease: "normal" or "pathological".
      matrix_scale: factor on the number of pixels along each side; the field of view stays.
    """
    number = int(code[-3:])
    rng = np.random.default_rng((seed, _PATIENT_STREAM, number, disease == "normal"))
    patient = sample_patient(disease, rng, LGE_DISEASES)
    shape = patient.shapes["ED"]
    infarct = Infarct.sample(shape, rng) if disease == "pathological" else None
    image = scan_lge(shape, infarct, patient.trabeculae, Protocol.sample(rng), rng, matrix_scale)
    rng = np.random.default_rng((seed, _TEXT_STREAM, number, disease == "normal"))
    clinical = _clinical(infarct, patient.lv_ef, image.spacing_mm[2], rng)
    part = "train" if code[5:6] in GROUPS else "test"
    return LgeSubject(code, part, disease, infarct, image, clinical)


def write_emidec(
    out: Path, config: LgePhantomConfig, on_subject: Callable[[LgeSubject], None] | None = None
) -> Path:
    """Write a cohort: `out`/Case_P001/{Images,Contours}/Case_P001.nii.gz and `out`/Case P001.txt.

    The arguments and what comes back are those of `write_cohort`.
    """
    return write_cohort(out, config.subjects(), _files, on_subject)


def _files(subject: LgeSubject) -> SubjectFiles:
    item, code = subject.image, subject.code
    volumes: Volumes = {f"{code}/{IMAGES}/{code}.nii.gz": (item.image, item)}
    if subject.part == "train":
        volumes[f"{code}/{CONTOURS}/{code}.nii.gz"] = item.label, item
    title = code.replace("_", " ")
    return SubjectFiles(volumes, {f"{title}.txt": _text(title, subject.clinical)})


def _clinical(
    infarct: Infarct | None, lv_ef: float, slice_mm: float, rng: np.random.Generator
) -> dict[str, str]:
    """What is known of a patient; an infarction raises the markers in the blood."""

    def yes(probability: float) -> str:
        return "Y" if rng.random() < probability else "N"

    damage = 0.0 if infarct is None else infarct.half_width * infarct.transmurality
    return {
        "Gap between slices": f"{slice_mm:g} mm",
        "Sex": "F" if rng.random() < 0.25 else "M",
        "Age": str(int(np.clip(rng.normal(60, 12), 25, 95))),
        "Tobacco": str(int(rng.integers(1, 4))),
        "Overweight": yes(0.4),
        "Arterial hypertension": yes(0.45),
        "Diabetes": yes(0.15),
        "Familial history of coronary artery disease": yes(0.3),
        "ECG (ST +)": yes(0.2 if infarct is None else 0.7),
        "Troponin": f"{rng.lognormal(0.5 + 3 * min(damage, 1.2), 0.7):.2g}",
        "Killip Max": str(1 + int(rng.random() < 0.3 * damage) + int(rng.random() < 0.1)),
        "FEVG": str(round(100 * lv_ef)),
        "NTProBNP": str(round(rng.lognormal(5 + 1.2 * damage, 0.8))),
    }


def _text(title: str, clinical: Mapping[str, str]) -> bytes:
    """A clinical text as EMIDEC has them: a no-break space (0xA0) after the first two keys, lines end in CRLF."""
    lines = [title, ""]
    for place, (key, value) in enumerate(clinical.items()):
        lines.append(f"{key}{chr(0xA0) if place < 2 else ' '}: {value}")
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")
