"""The folder of a run: made once, or gone on with; and the subjects of a data set whose files can be used."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qcjax import runtime
from qcjax.config import to_json
from qcjax.data.findings import Finding
from qcjax.data.subject import Subject
from qcjax.train.progress import say

UNSET_FOR_COMPARISON = ("out", "devices", "versions")  # may differ when a run goes on


def open_folder(config: Any, folder: Path) -> None:
    """Make the folder with its `config.json`, or go on with what is in it.

    Raises ValueError where the folder belongs to a run with another configuration; says what differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    ours = to_json(config) | {"versions": runtime.versions()}
    if not path.exists():
        path.write_text(json.dumps(ours, indent=2) + "\n", encoding="utf-8")
        say(f"Results go to {folder}")
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    differ = [k for k in ours if k not in UNSET_FOR_COMPARISON and ours[k] != theirs.get(k)]
    if differ:
        found = ", ".join(f"{k} = {theirs.get(k)} (now {ours[k]})" for k in differ)
        raise ValueError(f"{folder}: holds a run with {found}; choose another --out, or the same options")
    say(f"Going on with {folder}")


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
            f"{data}: {len(errors)} errors found, expected none (--skip-invalid leaves subjects out)"
        )
    skipped = sorted(broken)
    if skipped:
        say(f"Left out, because their files have errors: {len(skipped)} subjects ({', '.join(skipped)})")
    return [s for s in subjects if s.code not in broken], skipped


def beside(path: Path | None, folder: Path) -> str:
    """Relative to the run where it lies inside, absolute elsewhere, so that a run can be moved."""
    if path is None:
        return ""
    path = path.resolve()
    return str(path.relative_to(folder.resolve()) if path.is_relative_to(folder.resolve()) else path)
