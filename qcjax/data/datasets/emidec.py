"""The EMIDEC data set: find its subjects, read what is known of them, make folds, write predictions in its tree.

A folder per case, ``Case_P001/{Images,Contours}/Case_P001.nii.gz``, compressed or not, P for pathological and N for
normal; beside the folders the clinical texts, ``Case P001.txt``. The test cases (``Case_101``) have no Contours.
Slices run from the apex to the base.
"""

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from qcjax.data.datasets.listing import Scan, aligned, counted, left_out_findings, some
from qcjax.data.files import LeftOut, stem_of, walk
from qcjax.data.findings import Finding, InvalidFile
from qcjax.data.nifti import read_grid
from qcjax.data.splits import image_digests, shares
from qcjax.data.subject import LGE, PARTS, Case, Subject, Volume
from qcjax.data.write import write_labels
from qcjax.labels import CAVITY, EMIDEC_LABELS, EMIDEC_REGIONS, INFARCTION, NO_REFLOW, remap

GROUPS = {"N": "normal", "P": "pathological"}
IMAGES, CONTOURS = "Images", "Contours"
GAP = "gap between slices"  # key of the clinical text

_DEPTH = 4  # folders below the given one
_CASE = re.compile(r"Case_([NP]?)(\d+)")
_TEXT = re.compile(r"Case[ _]([NP]?\d+)\.txt")
_LAYOUT = "folders named like Case_P001, with Images/Case_P001.nii.gz"
_GAP_MM = 0.05  # a clinical text whose gap lies closer to the header's spacing agrees with it


def find(folder: Path) -> list[Subject]:
    """The subjects in a folder, by code; no image is read.

    Args:
      folder: the one with the cases' folders in it, or one above.

    Raises:
      ValueError: no cases of EMIDEC.
    """
    return scan(folder).sound()


def scan(folder: Path) -> Scan:
    """As `find`, but with whatever is wrong as findings instead of exceptions."""
    folder = Path(folder)
    findings: list[Finding] = []
    places: dict[str, Path] = {}
    left_out = LeftOut()
    for place in _cases(folder, left_out):
        other = places.setdefault(place.name, place)
        if other != place:
            findings.append(
                Finding("error", place, f"{place.name} also in {other}", "each subject once", place.name)
            )
    findings += left_out_findings(folder, left_out)
    if not places:
        found = "no such folder" if not folder.is_dir() else "no cases of EMIDEC"
        return Scan([], [Finding("error", folder, found, _LAYOUT)])
    subjects = []
    for code in sorted(places, key=_order):
        subject, found_here = _subject(code, places[code])
        subjects.append(subject)
        findings += found_here
    unknown = [s.code for s in subjects if s.part == "train" and not s.disease]
    if unknown:
        expected = "N (normal) or P (pathological) in the folder's name, as in Case_P001"
        findings.append(Finding("warning", folder, f"no group for {some(unknown)}", expected))
    for parent in sorted({place.parent for place in places.values()}):
        for text in sorted(parent.glob("Case*.txt")):
            match = _TEXT.fullmatch(text.name)
            if match and f"Case_{match[1]}" not in places:
                found = "a clinical text without its case"
                findings.append(Finding("warning", text, found, f"the folder Case_{match[1]} beside it"))
    return Scan(subjects, findings)


def clinical_path(case: Case) -> Path | None:
    """The clinical text of a case, ``Case P001.txt`` beside its folder; None where there is none."""
    images = next((p for p in case.image_path.parents if p.name == IMAGES), None)
    if images is None:
        return None
    beside = images.parent.parent
    names = (case.subject.replace("_", " ", 1), case.subject)
    return next((p for name in names if (p := beside / f"{name}.txt").is_file()), None)


def read_clinical(path: Path) -> dict[str, str]:
    """What a clinical text says, by key in small letters: sex, age, troponin, killip max, fevg, ntprobnp, ...

    Raises:
      InvalidFile: unreadable, or without any line of key: value.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidFile(path, f"no readable file ({error.strerror})", "lines of key: value") from None
    try:
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:  # as published: a lone byte 0xA0, the no-break space, before some colons
        text = data.decode("latin-1")
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    # str.split takes the no-break space for a space
    values = {" ".join(key.split()).lower(): " ".join(value.split()) for key, _, value in pairs}
    if not values:
        raise InvalidFile(path, f"no key among {len(data)} bytes", "lines of key: value")
    return values


def describe(subjects: Sequence[Subject]) -> str:
    """What was found, as a table for people: per part the subjects, those with truth, and the groups."""
    rows = [("part", "subjects", "with truth", "clinical text", "groups")]
    for part in PARTS:
        group = [s for s in subjects if s.part == part]
        if group:
            cases = [c for s in group for c in s.cases]
            truth = sum(c.label_path is not None for c in cases)
            texts = sum(clinical_path(c) is not None for c in cases)
            rows.append((part, str(len(group)), str(truth), str(texts), counted(s.disease for s in group)))
    lines = aligned(rows)
    lines += [f"There is no {part} part." for part in ("train", "test") if part not in {r[0] for r in rows}]
    return "\n".join(lines)


def folds(subjects: Sequence[Subject], k: int, seed: int) -> list[tuple[Subject, ...]]:
    """The subjects with truth in k disjoint parts of about equal size, by patient and evenly by group.

    The same images under two codes stay together. Subjects without truth are in no part.

    Args:
      seed: the same seed and subjects give the same folds.

    Raises:
      ValueError: k below 2, or more than there are patients.
      InvalidFile: an image that can't be read.
    """
    if k < 2:
        raise ValueError(f"--folds: {k} found, expected at least 2")
    labelled = [s for s in subjects if s.cases and all(c.label_path is not None for c in s.cases)]
    images = dict(zip((s.code for s in labelled), image_digests(labelled), strict=True))
    return list(shares(labelled, images, (1 / k,) * k, seed))


def write_prediction(folder: Path, case: Case, labels: Integer[np.ndarray, "x y s"], like: Volume) -> Path:
    """Write a mask as ``<folder>/Case_P001/Contours/Case_P001.nii.gz``, on the image's own grid.

    Args:
      labels: (x, y, slices), label values 0 to 4.
      like: the case's image.

    Raises:
      ValueError: another shape than the image's, or a label value that isn't EMIDEC's.
    """
    path = Path(folder) / case.subject / CONTOURS / f"{case.subject}.nii.gz"
    write_labels(path, remap(labels, EMIDEC_LABELS), like)
    return path


def check_tissues(mask: Volume, subject: Subject) -> list[Finding]:
    """Warnings about a mask whose tissues don't go together, or contradict the subject's group."""
    present = {r.key for r in EMIDEC_REGIONS if bool(r.inside(mask.array).any())}
    infarcted = bool((mask.array == INFARCTION.id).any())
    found = []
    if "cavity" not in present or "myocardium" not in present:
        lacking = [r.name for r in EMIDEC_REGIONS if r.key in {"cavity", "myocardium"} - present]
        found.append((f"no {' and no '.join(sorted(lacking))}", "cavity and myocardium"))
    if "no_reflow" in present and not infarcted:
        found.append((f"{NO_REFLOW.name} without {INFARCTION.name}", "no-reflow inside an infarction"))
    if subject.disease == "normal" and "infarction" in present:
        found.append(("an infarction in a case named normal (N)", "cavity and normal myocardium alone"))
    if subject.disease == "pathological" and "infarction" not in present:
        found.append(("no infarction in a case named pathological (P)", "an infarction"))
    areas = np.array([(mask.array[..., k] == CAVITY.id).sum() for k in (0, -1)])
    if mask.array.shape[2] > 1 and areas[0] > 2 * areas[1]:
        text = f"a cavity of {areas[0]} voxels in the first slice and of {areas[1]} in the last"
        found.append((text, "the slices from the apex to the base"))
    return [Finding("warning", mask.path, what, expected, subject.code) for what, expected in found]


def check_clinical(case: Case) -> list[Finding]:
    """Warnings about the clinical text of a case: unreadable, or another spacing of slices than the image's."""
    path = clinical_path(case)
    if path is None:
        return []
    try:
        text = read_clinical(path).get(GAP, "")
    except InvalidFile as error:
        return [Finding("warning", path, error.found, f"{error.expected} (it isn't used)", case.subject)]
    match = re.match(r"\d+(\.\d+)?", text.replace(",", "."))
    try:
        slice_mm = read_grid(case.image_path).spacing_mm[2]
    except (InvalidFile, OSError):  # told of where the image is checked
        return []
    if match is None or abs(float(match[0]) - slice_mm) <= _GAP_MM:
        return []
    found = f"slices {match[0]} mm apart, {slice_mm:.4g} mm in {case.image_path.name}"
    return [Finding("warning", path, found, "the same (the image's header counts)", case.subject)]


def _cases(folder: Path, left_out: LeftOut) -> list[Path]:
    """The folders of cases in and below a folder, sorted."""
    found = []
    for place, folders, _ in walk(folder, left_out, _DEPTH):
        if IMAGES in folders or _CASE.fullmatch(place.name):
            found.append(place)
            folders.clear()
    return found


def _order(code: str) -> tuple[str, int, str]:
    match = _CASE.fullmatch(code)
    return (match[1], int(match[2]), code) if match else ("~", 0, code)


def _subject(code: str, folder: Path) -> tuple[Subject, list[Finding]]:
    """A subject from its folder, with its case where there is an image."""
    findings: list[Finding] = []
    image = _volume(code, folder / IMAGES, findings)
    label = _volume(code, folder / CONTOURS, findings)
    match = _CASE.fullmatch(code)
    group = GROUPS.get(match[1], "") if match else ""
    if image is None:
        found = f"no image{f' beside {label.name}' if label else ''}"
        findings.append(Finding("error", folder, found, f"{IMAGES}/{code}.nii.gz", code))
    if label is None and group:
        found = f"no mask of {code}: taken for a test case"
        findings.append(Finding("warning", folder, found, f"{CONTOURS}/{code}.nii.gz, as N and P have", code))
    part = "test" if label is None else "train"
    cases = () if image is None else (Case(code, "SA", LGE, image, label),)
    return Subject(code, group, "", part, cases), findings


def _volume(code: str, folder: Path, findings: list[Finding]) -> Path | None:
    """The one NIfTI file in a folder, or in a folder that some unpackers make of it, ``Case_P001.nii/``."""
    files = [
        place / name
        for place, _, names in walk(folder, LeftOut())
        for name in names
        if stem_of(name) is not None
    ]
    named = [p for p in files if stem_of(p.name) == code]
    if len(named) != 1 and len(files) > 1:
        names = ", ".join(p.name for p in files[:4])
        findings.append(Finding("error", folder, f"{len(files)} volumes: {names}", "one volume", code))
    elif files and not named:
        found = f"the file name {files[0].name}"
        findings.append(Finding("warning", files[0], found, f"{code}.nii.gz (it is used)", code))
    return next(iter(named or files), None)
