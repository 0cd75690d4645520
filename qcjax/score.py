"""Scoring a folder of masks: which are there, which are done already, and what is left behind in the end."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcjax import runtime
from qcjax.data.mask_cohort import MaskCase
from qcjax.data.masks import find_masks
from qcjax.files import write_whole
from qcjax.labels import label_mapping
from qcjax.lock import lock_folder
from qcjax.monitor import DESCRIPTION, WEIGHTS, Monitor
from qcjax.report.scores import Scored, write_scores_page
from qcjax.score_stream import Stream, case_key
from qcjax.score_table import Entry, ScoreJournal, output_paths, summarise, write_table
from qcjax.train.progress import bar, say

MOVABLE = ("monitor",)  # settings that may differ when a run goes on: the same monitor in another place


@dataclass(frozen=True)
class Scores:
    """What a run leaves."""

    folder: Path  # with scores.csv, summary.json, report.html and maps/
    summary: dict[str, Any]
    flagged: list[Entry]  # the most urgent first

    def fails(self, limit: str | None) -> bool:
        """Whether any case is at least "suspicious" or "erroneous", as asked, or couldn't be scored; None: never."""
        counted = {"suspicious": ("suspicious", "erroneous", "errors"), "erroneous": ("erroneous", "errors")}
        return limit is not None and any(self.summary[name] for name in counted[limit])


class Scoring:
    """One folder of masks, one monitor, one folder of results."""

    def __init__(
        self,
        monitor: Monitor,
        files: Sequence[MaskCase],
        out: Path,
        settings: Mapping[str, Any],
        images: Path | None,
    ) -> None:
        self.monitor, self.out, self.settings = monitor, out, settings
        self.files, self.images = files, images
        self.journal = ScoreJournal(out / "scores.jsonl")

    @classmethod
    def open(
        cls,
        monitor: Monitor,
        masks: Path,
        out: Path,
        labels: Mapping[str, int] | None = None,
        images: Path | None = None,
        hd_limit_mm: float = 50.0,
        dc_limit: float = 0.5,
    ) -> "Scoring":
        """Find the masks and make the folder of results, or go on with what is in it.

        Args:
          labels: value of each structure in the files; by default as in the monitor's own.
          images: where the images of the masks are, for the pictures in the report.
          hd_limit_mm, dc_limit: of the flag "suspicious"; the former in voxels for a monitor of preset `original`.

        Raises:
          FileNotFoundError: no such folder of masks or of images.
          ValueError: no masks, labels that aren't the monitor's structures, or results of other settings.
        """
        masks, out = Path(masks).resolve(), Path(out)
        if images is not None and not images.is_dir():
            raise FileNotFoundError(f"{images}: found no such folder; expected one of images")
        labels = dict(labels or monitor.labels)
        label_mapping(monitor.structures, labels)
        own = (out / "maps").resolve()
        files = [f for f in find_masks(masks, say) if not f.path.resolve().is_relative_to(own)]
        if not files:
            raise ValueError(f"{masks}: found no masks but those in {own}; expected .nii or .nii.gz files")
        settings = {
            "monitor": str(monitor.run.absolute()),
            "monitor_sha256": _sha256(monitor.run),
            "masks": str(masks),
            "labels": labels,
            "hd_limit_mm": hd_limit_mm,
            "dc_limit": dc_limit,
        }
        lock_folder(out)
        path = out / "score.json"
        if path.exists():
            theirs = json.loads(path.read_text(encoding="utf-8"))
            differ = [k for k in settings if k not in MOVABLE and settings[k] != theirs.get(k)]
            if differ:
                found = ", ".join(f"{k} = {theirs.get(k)} (now {settings[k]})" for k in differ)
                raise ValueError(
                    f"{out}: holds scores with {found}; choose another --out, or the same options"
                )
        write_whole(path, json.dumps(settings, indent=2) + "\n")
        return cls(monitor, files, out, settings, images)

    def run(self, pictures: int = 40) -> Scores:
        """Score what isn't scored yet; write `scores.csv`, `summary.json` and `report.html`.

        Args:
          pictures: of flagged cases in the report, at most.
        """
        todo = [file for file in self.files if not self._is_done(file)]
        if len(todo) < len(self.files):
            say(f"Going on: {len(self.files) - len(todo)} of {len(self.files)} masks are done")
        limits = (self.settings["hd_limit_mm"], self.settings["dc_limit"])
        stream = Stream(self.monitor, self.out, self.settings["labels"], *limits)
        started = time.monotonic()
        with bar("Masks scored", len(todo)) as advance:
            for line in stream.lines(todo):
                self.journal.append(line)
                advance()
        wall = time.monotonic() - started
        paths = (case_key(file) for file in self.files)
        entries = sorted((self.journal.entries[p] for p in paths), key=lambda e: (e.name, e.path))
        keys = [structure.key for structure in self.monitor.structures]
        write_table(self.out / "scores.csv", self.journal.lines(entries), keys, self.monitor.unit)
        summary = summarise(entries, self.journal.lines(entries), keys) | {
            "cases_in_this_run": len(todo),
            "seconds_in_this_run": round(wall, 3),
            "seconds_per_case_in_this_run": round(wall / len(todo), 4) if todo else None,
            "distance_unit": self.monitor.unit,
            "settings": self.settings,
            "versions": runtime.versions(),
        }
        write_whole(self.out / "summary.json", json.dumps(summary, indent=2) + "\n")
        structures = self.monitor.structures
        scored = Scored(self.out, self.settings, summary, self.journal, entries, structures, self.images)
        write_scores_page(scored, pictures)
        flagged = [entry for entry in entries if entry.status in ("erroneous", "suspicious")]
        return Scores(self.out, summary, sorted(flagged, key=lambda entry: entry.urgency))

    def _is_done(self, file: MaskCase) -> bool:
        entry = self.journal.entries.get(case_key(file))
        if entry is None or entry.retry or entry.name != file.name:
            return False
        try:
            stat = file.path.stat()
        except OSError:
            return False
        if (stat.st_size, stat.st_mtime_ns) != (entry.size, entry.mtime_ns):
            return False
        return entry.status == "error" or all((self.out / p).is_file() for p in output_paths(entry.name))


def _sha256(run: Path) -> str:
    digest = hashlib.sha256()
    for name in (DESCRIPTION, WEIGHTS):
        digest.update((run / name).read_bytes())
    return digest.hexdigest()
