"""A run folder as the report reads it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcjax.report.columns import Row
from qcjax.runtime.files import read_object

WRITTEN = "what a run has written"


@dataclass(frozen=True)
class FinishedRun:
    """What a run left behind, as far as the report reads it."""

    folder: Path
    config: dict[str, Any]
    results: dict[str, Any]
    rows: list[Row]
    lines: list[dict[str, Any]]
    unreadable_lines: int

    def figure(self, name: str) -> Path:
        """Where a figure of that name is written."""
        return figure_path(self.folder, name)


def figure_path(folder: Path, name: str) -> Path:
    """Where a figure of a run is written, whatever characters its name has."""
    return folder / "figures" / f"{''.join(c if c.isalnum() or c in '-_.' else '_' for c in name)}.png"


def read_run(run_dir: Path, table: str, read_rows: Callable[[Path], list[Row]]) -> FinishedRun:
    """Read `results.json`, the table of rows and, where they are there, `config.json` and `metrics.jsonl`
    (the run's own, then that of the monitor that it trained).

    Raises:
      FileNotFoundError: one of the first two is not there.
      ValueError: the table is not what `read_rows` reads, or one of the others is damaged.
    """
    lines, unreadable = _read_lines(run_dir / "metrics.jsonl")
    of_monitor, unreadable_too = _read_lines(run_dir / "monitor" / "metrics.jsonl")
    config = run_dir / "config.json"
    return FinishedRun(
        run_dir,
        read_object(config, WRITTEN) if config.is_file() else {},
        read_object(run_dir / "results.json", WRITTEN),
        read_rows(run_dir / table),
        lines + of_monitor,
        unreadable + unreadable_too,
    )


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines of a file that may not be there, and how many could not be read."""
    lines, unreadable = [], 0
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # a run that was killed can leave half a line
            unreadable += 1
    return lines, unreadable
