"""Integrity checks between the subjects of a data set: the same image twice, mixed orientation, unknown diseases."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qcjax.data.findings import Finding
from qcjax.data.subject import VIEWS, Subject


@dataclass
class Facts:
    """What of a subject is compared with the others': digests of its images, and how its axes lie."""

    digests: dict[str, Path] = field(default_factory=dict)  # of the voxels -> file
    mirrored: dict[str, bool] = field(default_factory=dict)  # view -> left-handed voxel axes
    steps: dict[Path, str] = field(default_factory=dict)  # images whose affine contradicts their pixdim


def unknown_values(
    subjects: Sequence[Subject], name: str, known: Sequence[str], table: Path
) -> list[Finding]:
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


def same_images(subjects: Sequence[Subject], facts: Sequence[Facts]) -> list[Finding]:
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


def mixed_handedness(subjects: Sequence[Subject], facts: Sequence[Facts], folder: Path) -> list[Finding]:
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


def contradicting_steps(facts: Sequence[Facts]) -> list[Finding]:
    """One warning where affines and pixdim contradict each other, as in whole data sets they do."""
    steps = {path: text for fact in facts for path, text in fact.steps.items()}
    if not steps:
        return []
    path, text = next(iter(steps.items()))
    more = f" (and in {len(steps) - 1} more images)" if len(steps) > 1 else ""
    found = f"steps of the affine that contradict the header's pixdim: {text}{more}"
    return [
        Finding(
            "warning",
            path,
            found,
            "the same spacing in both (the affine's counts, unless all its steps are 1)",
        )
    ]
