"""A run folder as the report reads it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcjax.report.cases import CaseRow, read_cases


@dataclass(frozen=True)
class Run:
    """What a run left behind, as far as the report reads it."""

    folder: Path
    config: dict[str, Any]
    results: dict[str, Any]
    rows: list[CaseRow]
    lines: list[dict[str, Any]]
    unreadable_lines: int

    def figure(self, name: str) -> Path:
        """Where a figure of that name is written."""
        return self.folder / "figures" / f"{name}.png"


def read_run(run_dir: Path) -> Run:
    """Read `config.json`, `results.json`, `cases.csv` and, where it is there, `metrics.jsonl`.

    Raises:
      FileNotFoundError: one of the first three is not there.
    """
    lines, unreadable = [], 0
    metrics = run_dir / "metrics.jsonl"
    for text in metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # a run that was killed can leave half a line
            unreadable += 1
    return Run(
        run_dir,
        json.loads((run_dir / "config.json").read_text(encoding="utf-8")),
        json.loads((run_dir / "results.json").read_text(encoding="utf-8")),
        read_cases(run_dir / "cases.csv"),
        lines,
        unreadable,
    )
