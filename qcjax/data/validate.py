"""Integrity checks of a data set's files: everything that goes wrong in real ones, each as a finding.

An error makes a case unusable, or its figures wrong; a warning leaves it usable. One bad subject never stops
the check of the others.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from qcjax.data.compare import (
    Facts,
    contradicting_steps,
    mixed_handedness,
    same_images,
    unknown_values,
)
from qcjax.data.datasets import acdc, emidec, mnms2
from qcjax.data.datasets.listing import Scan
from qcjax.data.findings import Finding, InvalidFile
from qcjax.data.geometry import millimetres
from qcjax.data.nifti import read_grid, read_image, read_labels_checked
from qcjax.data.subject import PHASES, VIEWS, Case, Subject, Volume
from qcjax.labels import ACDC_LABELS, CARDIAC, EMIDEC_LABELS, MNMS2_LABELS
from qcjax.runtime.progress import say
from qcjax.runtime.wording import count_of

__all__ = [
    "Finding",
    "check_image",
    "check_mask",
    "check_phases",
    "check_subject",
    "validate_acdc",
    "validate_emidec",
    "validate_mnms2",
]

IN_PLANE_MM = (0.2, 10.0)  # spacing outside of these is no cardiac MRI
SLICES_MM = (0.2, 50.0)
IN_PLANE_RATIO = 1.5  # more than this between x and y: the slice axis isn't the last one
ROUNDING = 1e-6  # label values that lie closer to an integer are integers


def validate_mnms2(
    folder: Path, split: Path | None = None, on_subject: Callable[[], None] = lambda: None
) -> list[Finding]:
    """Every check over an M&Ms-2 data set, in either layout: errors first, by subject.

    Args:
      folder: the data set's, as for `mnms2.find`.
      split: a csv SUBJECT_CODE, PART in place of the official split.
      on_subject: called after each subject, for a progress bar.
    """
    scan = mnms2.scan(folder, split)
    known = {"disease": mnms2.DISEASES, "vendor": mnms2.VENDORS}
    phases = [f for subject in scan.subjects for f in _missing_phases(subject)]
    return sorted(phases + _check_all(scan, Path(folder), MNMS2_LABELS, known, on_subject), key=_order)


def validate_acdc(folder: Path, on_subject: Callable[[], None] = lambda: None) -> list[Finding]:
    """Every check over an ACDC data set: errors first, by subject.

    Args:
      folder: the data set's, as for `acdc.find`, which finds missing phases by Info.cfg.
      on_subject: called after each subject, for a progress bar.
    """
    known = {"disease": acdc.GROUPS}
    return sorted(_check_all(acdc.scan(folder), Path(folder), ACDC_LABELS, known, on_subject), key=_order)


def validate_emidec(folder: Path, on_subject: Callable[[], None] = lambda: None) -> list[Finding]:
    """Every check over an EMIDEC data set: errors first, by subject.

    Args:
      folder: the data set's, as for `emidec.find`; the groups and the masks' presence are checked by its scan.
      on_subject: called after each subject, for a progress bar.
    """
    scan = emidec.scan(folder)
    texts = [f for s in scan.subjects for case in s.cases for f in emidec.check_clinical(case)]
    return sorted(texts + _check_all(scan, Path(folder), EMIDEC_LABELS, {}, on_subject), key=_order)


def _check_all(
    scan: Scan,
    folder: Path,
    mapping: dict[int, int],
    known: Mapping[str, Sequence[str]],
    on_subject: Callable[[], None],
) -> list[Finding]:
    """What the scan found, what is wrong with each subject's files, and what shows only between subjects.

    Args:
      mapping: label value in the files -> label value inside qcjax.
      known: field of Subject -> the values that the data set's description has.
    """

    def one(subject: Subject) -> tuple[list[Finding], Facts]:
        result = check_subject(subject, mapping)
        on_subject()
        return result

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        checked = list(pool.map(one, scan.subjects))
    findings = [*scan.findings, *(f for found, _ in checked for f in found)]
    facts = [facts for _, facts in checked]
    if scan.subjects:
        for name, values in known.items():
            findings += unknown_values(scan.subjects, name, values, scan.table or folder)
        findings += same_images(scan.subjects, facts)
        findings += mixed_handedness(scan.subjects, facts, folder)
        findings += contradicting_steps(facts)
    return findings


def _order(finding: Finding) -> tuple[str, str, str]:
    return finding.level, finding.subject, str(finding.path)


def check_subject(subject: Subject, mapping: dict[int, int]) -> tuple[list[Finding], Facts]:
    """All files of one subject: images, masks, how ED and ES go together."""
    findings: list[Finding] = []
    facts = Facts()
    for view in VIEWS:
        cases = {c.phase: c for c in subject.cases if c.view == view}
        images: dict[str, Volume] = {}
        for phase, case in cases.items():
            image, found_here = check_image(case)
            findings += found_here
            findings += check_mask(case, subject, mapping, image)
            if image is not None:
                images[phase] = image
                digest = hashlib.blake2b(image.array.tobytes(order="F"), digest_size=16).hexdigest()
                if digest in facts.digests:
                    found = f"the same image as in {facts.digests[digest].name}"
                    findings.append(Finding("warning", case.image_path, found, "another image", subject.code))
                facts.digests[digest] = case.image_path
                facts.mirrored[view] = bool(np.linalg.det(image.affine[:3, :3]) < 0)
                for note in image.notes:
                    if "pixdim" in note:
                        facts.steps[case.image_path] = note
        if len(images) == 2:
            findings += check_phases(images["ED"], images["ES"], subject.code)
    for path in subject.cine.values():
        try:
            read_grid(path)
        except (InvalidFile, OSError) as error:
            findings.append(
                Finding("warning", path, _found(error), "a readable CINE (it isn't used)", subject.code)
            )
    return findings, facts


def _missing_phases(subject: Subject) -> list[Finding]:
    """An error for each view with one phase only, or for a subject with a CINE alone."""
    findings = []
    if not subject.cases and subject.cine:
        found, path = "a CINE file only", next(iter(subject.cine.values()))
        findings.append(Finding("error", path, found, "images at ED and ES", subject.code))
    for view in VIEWS:
        cases = {c.phase: c for c in subject.cases if c.view == view}
        for phase in PHASES if cases else ():
            if phase not in cases:
                present = next(iter(cases.values()))
                found = f"{present.name} without {subject.code}_{view}_{phase}"
                path = present.image_path.parent
                findings.append(Finding("error", path, found, "both ED and ES", subject.code))
    return findings


def check_image(case: Case) -> tuple[Volume | None, list[Finding]]:
    """An image by itself: readable, 3-D, finite, not constant; plausible spacing; slices on the last axis."""
    path, subject = case.image_path, case.subject
    try:
        image = read_image(path)
    except InvalidFile as error:
        return None, [error.finding(subject)]
    except OSError as error:
        return None, [Finding("error", path, _found(error), "a readable file", subject)]
    findings: list[Finding] = []

    def note(level: Literal["error", "warning"], found: str, expected: str) -> None:
        findings.append(Finding(level, path, found, expected, subject))

    if image.array.min() == image.array.max():
        note("error", f"a constant image (every voxel is {image.array.flat[0]:g})", "intensities that vary")
    x, y, slices = image.array.shape
    x_mm, y_mm, slice_mm = image.spacing_mm
    bounds = (IN_PLANE_MM, IN_PLANE_MM, SLICES_MM)
    spacing = f"spacing {millimetres(image.spacing_mm)}"
    if not all(low <= s <= high for s, (low, high) in zip(image.spacing_mm, bounds, strict=True)):
        limits = (
            f"{IN_PLANE_MM[0]:g}-{IN_PLANE_MM[1]:g} mm in plane, {SLICES_MM[0]:g}-{SLICES_MM[1]:g} mm across"
        )
        note("error", spacing, limits)
    elif slices > min(x, y):
        note(
            "error",
            f"shape {image.array.shape}",
            "the slices along the last axis, which is then the shortest",
        )
    elif max(x_mm, y_mm) > IN_PLANE_RATIO * min(x_mm, y_mm):
        note("error", spacing, "the slices along the last axis: the first two spacings nearly equal")
    elif case.view == "SA" and slice_mm < min(x_mm, y_mm):
        note("warning", spacing, "slices farther apart than pixels")
    if case.view == "SA" and slices == 1:
        note("warning", "one slice", "a stack of short-axis slices")
    if case.view == "LA" and slices > 1:
        note("warning", f"{slices} slices", "one long-axis slice")
    return image, findings


def check_mask(case: Case, subject: Subject, mapping: dict[int, int], image: Volume | None) -> list[Finding]:
    """The mask of a case: there where training needs it, on the image's grid, known labels, not empty."""
    if case.label_path is None:
        if subject.part == "train":
            return [
                Finding(
                    "error", case.image_path, "no mask beside it", "ground truth for training", case.subject
                )
            ]
        return []
    path, code = case.label_path, case.subject
    try:
        mask, rounded_by = read_labels_checked(path, mapping, image)
    except InvalidFile as error:
        return [error.finding(code)]
    except OSError as error:
        return [Finding("error", path, _found(error), "a readable file", code)]
    findings = []
    if rounded_by > ROUNDING:
        found = f"float labels, up to {rounded_by:.2g} beside an integer"
        findings.append(Finding("warning", path, found, "integers (they are rounded)", code))
    present = set(np.flatnonzero(np.bincount(mask.array.ravel())).tolist())
    if present <= {0}:
        findings.append(Finding("error", path, "a mask with no foreground", "at least one structure", code))
    elif mapping == EMIDEC_LABELS:
        findings += emidec.check_tissues(mask, subject)
    elif mapping in (MNMS2_LABELS, ACDC_LABELS):
        absent = [s.name for s in CARDIAC if s.id not in present]
        if absent:
            found = f"no {' and no '.join(absent)} in the mask"
            findings.append(Finding("warning", path, found, "all three structures", code))
    return findings


def check_phases(ed: Volume, es: Volume, subject: str) -> list[Finding]:
    """How the images of ED and ES of one view go together."""

    def note(level: Literal["error", "warning"], found: str, expected: str) -> Finding:
        return Finding(level, es.path, found, expected, subject)

    findings = []
    n_ed, n_es = ed.array.shape[2], es.array.shape[2]
    if n_ed != n_es:
        findings.append(note("warning", f"{n_es} slices", f"{n_ed}, as in {ed.path.name}"))
    if ed.array.shape[:2] != es.array.shape[:2]:
        found = f"{es.array.shape[0]} x {es.array.shape[1]} pixels"
        findings.append(
            note("warning", found, f"{ed.array.shape[0]} x {ed.array.shape[1]}, as in {ed.path.name}")
        )
    axes = ["".join(nib.aff2axcodes(v.affine)) for v in (ed, es)]
    if axes[0] != axes[1]:
        findings.append(note("error", f"orientation {axes[1]}", f"{axes[0]}, as in {ed.path.name}"))
    if not np.allclose(ed.spacing_mm, es.spacing_mm, rtol=0.01):
        found, expected = (
            f"spacing {millimetres(es.spacing_mm)}",
            f"{millimetres(ed.spacing_mm)}, as in {ed.path.name}",
        )
        findings.append(note("warning", found, expected))
    return findings


def _found(error: Exception) -> str:
    if isinstance(error, InvalidFile):
        return error.found
    return f"an unreadable file ({getattr(error, 'strerror', None) or error})"


def usable(
    subjects: Sequence[Subject], findings: Sequence[Finding], data: Path, skip_invalid: bool
) -> tuple[list[Subject], list[str]]:
    """Tell what a check found; the subjects without errors, and the codes of those left out.

    Raises ValueError where files have errors and `skip_invalid` isn't set, or the errors aren't a subject's.
    """
    for finding in findings:
        say(f"{finding.level}: {finding}")
    errors = [f for f in findings if f.level == "error"]
    broken = {f.subject for f in errors}
    if errors and not (skip_invalid and "" not in broken):
        raise ValueError(
            f"{data}: {count_of(len(errors), 'error')} found, expected none (--skip-invalid leaves subjects out)"
        )
    skipped = sorted(broken)
    if skipped:
        say(
            f"Left out, because their files have errors: {count_of(len(skipped), 'subject')} ({', '.join(skipped)})"
        )
    return [s for s in subjects if s.code not in broken], skipped
