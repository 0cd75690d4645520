"""The ACDC data set: find its subjects, split them by patient, describe them, read and write predictions in its layout.

A folder per patient, ``training/patient001`` and ``testing/patient101``, with ``Info.cfg`` and the frames
``patient001_frame01[_gt].nii.gz``; compressed or not. Its masks number the structures 1 RV, 2 MYO, 3 LV.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from qcjax.data.datasets.listing import Scan, aligned, counted, left_out_findings, read_text, some
from qcjax.data.files import LeftOut, stem_of, walk
from qcjax.data.findings import Finding, InvalidFile
from qcjax.data.splits import image_digests, shares
from qcjax.data.subject import PARTS, PHASES, Case, Subject, Volume
from qcjax.data.write import write_labels
from qcjax.labels import ACDC_LABELS, remap
from qcjax.runtime.messages import sendable
from qcjax.runtime.wording import count_of

GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")
FOLDERS = {"training": "train", "testing": "test"}
INFORMATION = "Info.cfg"
LAST_TRAINING_CODE = 100  # where patients lie in neither folder
STORED_LABELS = {inside: stored for stored, inside in ACDC_LABELS.items()}

_DEPTH = 4  # folders below the given one: ACDC/database/training/patient001/
_PATIENT = re.compile(r"patient(\d+)")
_FRAME = re.compile(r"(patient\d+)_(?:frame(\d+)(_gt)?|4d)")
_LAYOUT = "folders named like training/patient001, with Info.cfg and frames"


class Split(NamedTuple):
    """Who trains, chooses and tests; no patient, under whatever code, is in two of these."""

    train: tuple[Subject, ...]
    validation: tuple[Subject, ...]
    test: tuple[Subject, ...]
    note: str  # what is unusual about it, in sentences for people; "" where nothing is


@sendable
class Predictions(NamedTuple):
    """Masks of one method, and how its folder differs from the cases asked for."""

    paths: dict[str, Path]  # case name -> file
    missing: tuple[str, ...]  # names of cases without a file
    unknown: tuple[Path, ...]  # NIfTI files that belong to none of the cases


def find(folder: Path) -> list[Subject]:
    """The subjects in a folder, by code; no image is read.

    Args:
      folder: the one with training/ and testing/ (or either), one above it, or one of folders patientNNN; there, codes
        up to 100 are the training part.

    Raises:
      ValueError: no patients of ACDC.
    """
    return scan(folder).sound()


def scan(folder: Path) -> Scan:
    """As `find`, but with whatever is wrong as findings instead of exceptions."""
    folder = Path(folder)
    findings: list[Finding] = []
    places: dict[str, tuple[Path, str]] = {}
    left_out = LeftOut()
    for place in _patients(folder, left_out):
        code, part = place.name, _part(place, folder)
        other, other_part = places.setdefault(code, (place, part))
        if other != place:
            where = f"also in {other}" + (f": in {other_part} and in {part}" if other_part != part else "")
            findings.append(Finding("error", place, f"{code} {where}", "each subject once", code))
    findings += left_out_findings(folder, left_out)
    if not places:
        found = "no such folder" if not folder.is_dir() else "no patients of ACDC"
        return Scan([], [Finding("error", folder, found, _LAYOUT)])
    subjects = []
    for code in sorted(places, key=lambda code: (int(code.removeprefix("patient")), code)):
        subject, found_here = _subject(code, *places[code])
        subjects.append(subject)
        findings += found_here
    return Scan(subjects, findings)


def read_information(path: Path) -> dict[str, str]:
    """What an Info.cfg says, by key in small letters: ed, es, group, height, weight, nbframe, ...

    Raises:
      InvalidFile: unreadable.
    """
    text = read_text(path, "lines of key: value")
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def describe(subjects: Sequence[Subject]) -> str:
    """What was found, as a table for people: per part the subjects, cases and groups."""
    rows = [("part", "subjects", "cases (with truth)", "groups")]
    for part in PARTS:
        group = [s for s in subjects if s.part == part]
        if group:
            cases = [c for s in group for c in s.cases]
            truth = sum(c.label_path is not None for c in cases)
            rows.append((part, str(len(group)), f"{len(cases)} ({truth})", counted(s.disease for s in group)))
    lines = aligned(rows)
    for part in ("train", "test"):
        group = [s for s in subjects if s.part == part]
        blind = sum(not any(c.label_path for c in s.cases) for s in group)
        if not group:
            lines.append(f"There is no {part} part.")
        elif blind:
            lines.append(f"{part}: {blind} of {len(group)} subjects without ground truth.")
    return "\n".join(lines)


def split(subjects: Sequence[Subject], seed: int) -> Split:
    """Training, validation and test, by patient and evenly by group.

    The test part is the data set's own where it has truth: the training part is then split 80 to 20. Otherwise
    the training part makes all three, 56 to 14 to 30, and the note says so. Training subjects without truth are
    left out, as are those whose images the test part has under another code; images that the training part has
    under two codes (ACDC has such a pair) stay together.

    Args:
      seed: the same seed and subjects give the same split.

    Raises:
      ValueError: too few labelled training subjects for a split.
      InvalidFile: an image that can't be read.
    """
    labelled = [s for s in subjects if s.part == "train" and _has_truth(s)]
    images = dict(zip((s.code for s in labelled), image_digests(labelled), strict=True))
    own_test = tuple(sorted((s for s in subjects if s.part == "test"), key=lambda s: s.code))
    notes = []
    if any(_has_truth(s) for s in own_test):
        images_of_test = set().union(*image_digests(own_test))
        twins = [code for code, digests in images.items() if digests & images_of_test]
        blind = [s.code for s in own_test if not _has_truth(s)]
        if twins:
            notes.append(f"Left out of training, since the test part has the same images: {some(twins)}.")
        if blind:
            notes.append(f"In the test part without ground truth: {some(blind)}.")
        kept = [s for s in labelled if s.code not in twins]
        train, validation = shares(kept, images, (0.8, 0.2), seed)
        test = own_test
    else:
        train, validation, test = shares(labelled, images, (0.56, 0.14, 0.3), seed)
        lack = "has no ground truth" if own_test else "is missing"
        notes.append(
            f"The data set's own test part {lack}: its training part was split by patient instead, into "
            f"{count_of(len(train), 'subject')} for training, {len(validation)} for validation and {len(test)} for the "
            "test."
        )
    unlabelled = [s.code for s in subjects if s.part == "train" and not _has_truth(s)]
    if unlabelled:
        notes.append(f"Left out of training, without ground truth: {some(unlabelled)}.")
    return Split(train, validation, test, " ".join(notes))


def prediction_name(case: Case) -> str:
    """The name of a prediction's file, without its suffix, e.g. ``patient101_ED``."""
    return f"{case.subject}_{case.phase}"


def write_prediction(folder: Path, case: Case, labels: Integer[np.ndarray, "x y s"], like: Volume) -> Path:
    """Write a mask as ``<folder>/patient101_ED.nii.gz`` with ACDC's label values, on the image's own grid.

    Args:
      labels: (x, y, slices), qcjax's label values.
      like: the case's image.

    Raises:
      ValueError: another shape than the image's, or a label value that is not qcjax's.
    """
    path = Path(folder) / f"{prediction_name(case)}.nii.gz"
    write_labels(path, remap(labels, STORED_LABELS), like)
    return path


def find_predictions(folder: Path, cases: Sequence[Case]) -> Predictions:
    """The masks that a method left in a folder, ``patient101_ED.nii.gz`` or ``.nii``; none is read.

    Raises:
      ValueError: no such folder, no mask of any of the cases, or two of one.
    """
    folder = Path(folder)
    names = {prediction_name(case): case.name for case in cases}
    paths: dict[str, Path] = {}
    unknown = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem = stem_of(path.name)
        if stem is None:
            continue
        name = names.get(stem)
        if name is None:
            unknown.append(path)
        elif name in paths:
            raise ValueError(f"{path}: found beside {paths[name].name}; expected one mask of {stem}")
        else:
            paths[name] = path
    if not paths:
        found = f"{len(unknown)} other NIfTI files" if folder.is_dir() else "no such folder"
        raise ValueError(
            f"{folder}: found {found}; expected masks of {len(names)} cases, named like patient101_ED.nii.gz"
        )
    missing = tuple(name for name in names.values() if name not in paths)
    return Predictions(paths, missing, tuple(unknown))


def _patients(folder: Path, left_out: LeftOut) -> list[Path]:
    """The folders of patients in and below a folder, sorted."""
    found = []
    for place, folders, _ in walk(folder, left_out, _DEPTH):
        if _PATIENT.fullmatch(place.name):
            found.append(place)
            folders.clear()
    return found


def _part(place: Path, folder: Path) -> str:
    """By the nearest folder named training or testing, else by code."""
    within = (folder.resolve().name, *place.relative_to(folder).parts)
    for name in reversed(within):
        if name in FOLDERS:
            return FOLDERS[name]
    return "train" if int(place.name.removeprefix("patient")) <= LAST_TRAINING_CODE else "test"


def _subject(code: str, folder: Path, part: str) -> tuple[Subject, list[Finding]]:
    """A patient from its folder, with the cases that are complete."""
    findings: list[Finding] = []

    def error(path: Path, found: str, expected: str) -> None:
        findings.append(Finding("error", path, found, expected, code))

    frames: dict[tuple[int, bool], Path] = {}  # (number, whether it's the mask)
    cine: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _FRAME.fullmatch(stem_of(path.name) or "")
        if match is None:
            continue
        if match[1] != code:
            error(path, f"a file of {match[1]} in the folder of {code}", f"files of {code}")
        elif match[2] is None:
            cine["SA"] = path
        else:
            other = frames.setdefault((int(match[2]), match[3] is not None), path)
            if other != path:
                error(path, f"the same frame also as {other.name}", "each frame once")
    information = folder / INFORMATION
    values: dict[str, str] = {}
    numbers: dict[str, int] = {}
    try:
        values = read_information(information)
        for phase in PHASES:
            text = values.get(phase.lower())
            if text is None:
                error(information, f"no {phase}", f"{phase}: and the number of its frame")
            elif not re.fullmatch(r"0*[1-9]\d*", text):
                error(information, f"{phase}: {text}", "the number of a frame, counted from 1")
            else:
                numbers[phase] = int(text)
    except InvalidFile as invalid:
        findings.append(invalid.finding(code))
    if len(numbers) == 2 and len(set(numbers.values())) == 1:
        error(information, f"frame {numbers['ED']} as ED and as ES", "two frames")
    cases = []
    for phase, number in numbers.items():
        image = frames.get((number, False))
        mask = frames.get((number, True))
        if image is not None:
            cases.append(Case(code, "SA", phase, image, mask))
            continue
        expected = f"{code}_frame{number:02d}.nii.gz, the frame that {INFORMATION} names as {phase}"
        seen = ", ".join(str(n) for n, is_mask in sorted(frames) if not is_mask)
        error(folder, f"no frame {number}" + (f" (only {seen})" if seen else " (nor any other)"), expected)
        if mask is not None:
            error(mask, "a mask without its image", "both")
    return Subject(code, values.get("group", ""), "", part, tuple(cases), cine), findings


def _has_truth(subject: Subject) -> bool:
    return bool(subject.cases) and all(case.label_path is not None for case in subject.cases)
