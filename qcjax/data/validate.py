"""Integrity checks of a data set's files: everything that goes wrong in real ones, each as a finding.

An error makes a case unusable, or its figures wrong; a warning leaves it usable. One bad subject never stops
the check of the others.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from qcjax.data import mnms2
from qcjax.data.findings import Finding, InvalidFile
from qcjax.data.nifti import read_grid, read_image, read_labels_checked
from qcjax.data.subject import PHASES, VIEWS, Case, Subject, Volume
from qcjax.labels import CARDIAC, MNMS2_LABELS

__all__ = [
    "Finding",
    "check_image",
    "check_mask",
    "check_phases",
    "check_subject",
    "invalid_subjects",
    "validate_mnms2",
]

IN_PLANE_MM = (0.2, 10.0)  # spacing outside of these is no cardiac MRI
SLICES_MM = (0.2, 50.0)
IN_PLANE_RATIO = 1.5  # more than this between x and y: the slice axis isn't the last one
ROUNDING = 1e-6  # label values that lie closer to an integer are integers


@dataclass
class Facts:
    """What of a subject is compared with the others': digests of its images, and how its axes lie."""

    digests: dict[str, Path] = field(default_factory=dict)  # of the voxels -> file
    mirrored: dict[str, bool] = field(default_factory=dict)  # view -> left-handed voxel axes
    steps: dict[Path, str] = field(default_factory=dict)  # images whose affine contradicts their pixdim


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

    def one(subject: Subject) -> tuple[list[Finding], Facts]:
        result = check_subject(subject, MNMS2_LABELS)
        on_subject()
        return result

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        checked = list(pool.map(one, scan.subjects))
    findings = [*scan.findings, *(f for found, _ in checked for f in found)]
    facts = [facts for _, facts in checked]
    if scan.subjects:
        table = scan.table or Path(folder)
        for name, known in (("disease", mnms2.DISEASES), ("vendor", mnms2.VENDORS)):
            findings += _unknown(scan.subjects, name, known, table)
        findings += _same_images(scan.subjects, facts)
        findings += _handedness(scan.subjects, facts, Path(folder))
        findings += _contradictions(facts)
    return sorted(findings, key=lambda f: (f.level, f.subject, str(f.path)))


def invalid_subjects(findings: Iterable[Finding]) -> set[str]:
    """Codes of the subjects with an error: those that a run can't use."""
    return {f.subject for f in findings if f.level == "error" and f.subject}


def check_subject(subject: Subject, mapping: dict[int, int]) -> tuple[list[Finding], Facts]:
    """All files of one subject: images, masks, how ED and ES go together."""
    findings: list[Finding] = []
    facts = Facts()
    for view in VIEWS:
        cases = {c.phase: c for c in subject.cases if c.view == view}
        if not cases:
            continue
        present = next(iter(cases.values()))
        for phase in PHASES:
            if phase not in cases:
                found = f"{subject.code}_{view}_{present.phase} without {subject.code}_{view}_{phase}"
                findings.append(
                    Finding("error", present.image_path.parent, found, "both ED and ES", subject.code)
                )
        images: dict[str, Volume] = {}
        for phase, case in cases.items():
            image, found_here = check_image(case)
            findings += found_here
            findings += check_mask(case, subject.part, mapping, image)
            if image is not None:
                images[phase] = image
                digest = hashlib.blake2b(image.array.tobytes(order="F"), digest_size=16).hexdigest()
                if digest in facts.digests:
                    found = f"the same image as in {facts.digests[digest].name}"
                    findings.append(Finding("warning", case.image_path, found, "another image", subject.code))
                facts.digests[digest] = case.image_path
                facts.mirrored[view] = bool(np.linalg.det(image.affine[:3, :3]) < 0)
                steps_mm = np.linalg.norm(image.affine[:3, :3], axis=0)
                if not np.allclose(steps_mm, image.spacing_mm, rtol=0.01):
                    facts.steps[case.image_path] = f"{_mm(steps_mm)} against {_mm(image.spacing_mm)}"
        if len(images) == 2:
            findings += check_phases(images["ED"], images["ES"], subject.code)
    if not subject.cases and subject.cine:
        found, path = "a CINE file only", next(iter(subject.cine.values()))
        findings.append(Finding("error", path, found, "images at ED and ES", subject.code))
    for path in subject.cine.values():
        try:
            read_grid(path)
        except (InvalidFile, OSError) as error:
            findings.append(
                Finding("warning", path, _found(error), "a readable CINE (it isn't used)", subject.code)
            )
    return findings, facts


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
    spacing = f"spacing {_mm(image.spacing_mm)}"
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


def check_mask(case: Case, part: str, mapping: dict[int, int], image: Volume | None) -> list[Finding]:
    """The mask of a case: there where training needs it, on the image's grid, known labels, not empty."""
    if case.label_path is None:
        if part == "train":
            return [
                Finding(
                    "error", case.image_path, "no mask beside it", "ground truth for training", case.subject
                )
            ]
        return []
    path, subject = case.label_path, case.subject
    try:
        mask, rounded_by = read_labels_checked(path, mapping, image)
    except InvalidFile as error:
        return [error.finding(subject)]
    except OSError as error:
        return [Finding("error", path, _found(error), "a readable file", subject)]
    findings = []
    if rounded_by > ROUNDING:
        found = f"float labels, up to {rounded_by:.2g} beside an integer"
        findings.append(Finding("warning", path, found, "integers (they are rounded)", subject))
    present = set(np.flatnonzero(np.bincount(mask.array.ravel())).tolist())
    if present <= {0}:
        findings.append(
            Finding("error", path, "a mask with no foreground", "at least one structure", subject)
        )
    elif mapping == MNMS2_LABELS:
        absent = [s.name for s in CARDIAC if s.id not in present]
        if absent:
            found = f"no {' and no '.join(absent)} in the mask"
            findings.append(Finding("warning", path, found, "all three structures", subject))
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
        found, expected = f"spacing {_mm(es.spacing_mm)}", f"{_mm(ed.spacing_mm)}, as in {ed.path.name}"
        findings.append(note("warning", found, expected))
    return findings


def _unknown(subjects: Sequence[Subject], name: str, known: Sequence[str], table: Path) -> list[Finding]:
    """One warning for each disease or vendor that the data set's description doesn't have."""
    unknown: dict[str, list[str]] = defaultdict(list)
    for subject in subjects:
        value: str = getattr(subject, name)
        if value.upper().split(" ")[0] not in known:
            unknown[value].append(subject.code)
    findings = []
    for value, codes in sorted(unknown.items()):
        some = ", ".join(codes[:5]) + (" ..." if len(codes) > 5 else "")
        found = f"{name} {value!r}" if value else f"no {name}"
        one_of = f"one of {', '.join(known)}"
        findings.append(Finding("warning", table, f"{found} for {len(codes)} subject(s): {some}", one_of))
    return findings


def _same_images(subjects: Sequence[Subject], facts: Sequence[Facts]) -> list[Finding]:
    """The same image under two codes: one subject twice, which is a leak where the codes are in two parts."""
    first: dict[str, tuple[Subject, Path]] = {}
    findings = []
    for subject, fact in zip(subjects, facts, strict=True):
        for digest, path in fact.digests.items():
            other, other_path = first.setdefault(digest, (subject, path))
            if other.code == subject.code:
                continue
            same_part = other.part == subject.part
            where = "under two codes" if same_part else f"in {other.part} and in {subject.part}"
            found = f"the same image as {other_path}: one subject {where}"
            level: Literal["error", "warning"] = "warning" if same_part else "error"
            findings.append(Finding(level, path, found, "each subject once, in one part", subject.code))
    return findings


def _handedness(subjects: Sequence[Subject], facts: Sequence[Facts], folder: Path) -> list[Finding]:
    """A warning where some stacks of a view are mirrored against the others."""
    findings = []
    for view in VIEWS:
        by_kind: dict[bool, list[str]] = {False: [], True: []}
        for subject, fact in zip(subjects, facts, strict=True):
            if view in fact.mirrored:
                by_kind[fact.mirrored[view]].append(subject.code)
        fewer, more = sorted(by_kind.values(), key=len)
        if fewer:
            some = ", ".join(fewer[:5]) + (" ..." if len(fewer) > 5 else "")
            found = f"mixed orientation: in {len(fewer)} of {len(fewer) + len(more)} {view} subjects ({some})"
            found += " the voxel axes have the other handedness: mirrored, or the slices in the other order"
            findings.append(Finding("warning", folder, found, "the same handedness in all"))
    return findings


def _contradictions(facts: Sequence[Facts]) -> list[Finding]:
    """One warning where affines and pixdim contradict each other, as in whole data sets they do."""
    steps = {path: text for fact in facts for path, text in fact.steps.items()}
    if not steps:
        return []
    path, text = next(iter(steps.items()))
    more = f" (and in {len(steps) - 1} more images)" if len(steps) > 1 else ""
    found = f"steps of the affine that contradict the header's pixdim: {text}{more}"
    return [Finding("warning", path, found, "the same spacing in both (pixdim counts)")]


def _mm(spacing: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{s:.4g}" for s in spacing) + " mm"


def _found(error: Exception) -> str:
    if isinstance(error, InvalidFile):
        return error.found
    return f"an unreadable file ({getattr(error, 'strerror', None) or error})"
