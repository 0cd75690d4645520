"""What the pages of all experiments have in common: head, facts of the run, pictures by section."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qcjax.report.cards import Picture, drawn_pictures
from qcjax.report.run import FinishedRun


def head(
    run: FinishedRun,
    *,
    title: str,
    lead: str,
    sections: Sequence[tuple[str, str]],
    findings: Sequence[str],
    facts: Sequence[tuple[str, Any]],
    citations: Sequence[str],
) -> dict[str, Any]:
    """What the templates of all experiments read.

    Args:
      lead: what it is about, in a sentence; the preset is added.
      sections: anchor and name of each.
      facts: name and value of what this experiment tells of its run, beside what every run tells; empty ones are left
        out.
    """
    results = run.results
    skipped = ", ".join(map(str, results.get("skipped") or ()))
    told = [
        ("preset", results.get("preset")),
        ("data", results.get("data") or run.config.get("data")),
        ("left out", f"{results['n_skipped']}: {skipped}" if results.get("n_skipped") else None),
        *facts,
        ("seed", results.get("seed")),
        ("versions", ", ".join(f"{name} {v}" for name, v in (results.get("versions") or {}).items())),
        ("run folder", run.folder.resolve().name),
    ]
    return {
        "title": title,
        "lead": lead + (f" Preset “{results['preset']}”." if results.get("preset") else ""),
        "sections": sections,
        "opening": (),  # pictures, where the experiment has any
        "findings": findings,
        "facts": [(name, str(value)) for name, value in told if value not in (None, "")],
        "config": json.dumps(run.config, indent=2, ensure_ascii=False),
        "unreadable_lines": run.unreadable_lines,
        "citations": citations,
    }


def figures(drawn: Mapping[str, Sequence[tuple[Path | None, str]]]) -> dict[str, list[Picture]]:
    """The pictures of each section as the templates read them.

    Args:
      drawn: section -> path and caption of each figure; without a path where there was nothing to draw.
    """
    return {f"{name}_figures": drawn_pictures(*found) for name, found in drawn.items()}
