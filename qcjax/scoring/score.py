"""Scoring a folder of masks: which are there, which are done already, and what is left behind in the end."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcjax.data.datasets.masks import Images, find_masks
from qcjax.data.mask_cohort import MaskCase
from qcjax.inference.entries import Entry, keep_settings, strict
from qcjax.inference.monitor import Monitor
from qcjax.labels import label_mapping
from qcjax.qc import contrast
from qcjax.quality.model import Expectation
from qcjax.runtime import jax_setup
from qcjax.runtime.cluster import Cluster
from qcjax.runtime.files import write_json
from qcjax.runtime.lock import lock_folder
from qcjax.runtime.progress import bar, say
from qcjax.scoring.page import write_scores_page
from qcjax.scoring.stream import Stream, case_key, monitor_sha256
from qcjax.scoring.table import ScoreJournal, output_paths, summarise, write_table
from qcjax.scoring.views import ScoredMasks

UNCHECKED = ("without_image",)  # counts of cases of which a check that was asked for didn't happen


@dataclass(frozen=True)
class Outcome:
    """What a run leaves."""

    folder: Path  # with maps/, scores.csv, summary.json, report.html
    summary: dict[str, Any]
    flagged: list[Entry]  # the most urgent first

    def fails(self, limit: str | None, without_images: bool = False) -> bool:
        """Whether any case is at least "suspicious" or "erroneous", as asked, or couldn't be checked; None: never.

        Args:
          without_images: whether a mask may lack its image though images were given.
        """
        counted = {"suspicious": ("suspicious", "erroneous", "errors"), "erroneous": ("erroneous", "errors")}
        names = counted.get(limit or "", ())
        return any(self.summary[n] for n in (*names, *(() if without_images or not names else UNCHECKED)))


class ScoringRun:
    """One folder of masks, one monitor, one folder of results."""

    def __init__(
        self,
        monitor: Monitor,
        files: Sequence[MaskCase],
        out: Path,
        settings: Mapping[str, Any],
        images: Images | None,
        left_out: Sequence[str] = (),
        expectation: Expectation | None = None,
    ) -> None:
        """Use `open`. `left_out` says in sentences which files beside the masks aren't scored."""
        self.monitor, self.out, self.settings, self.left_out = monitor, out, settings, left_out
        self.files, self.images, self.expectation = files, images, expectation
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
        doubt_limit: float = contrast.DOUBT_LIMIT,
        expectation: Expectation | None = None,
    ) -> "ScoringRun":
        """Find the masks and make the folder of results, or go on with what is in it.

        Args:
          labels: value of each structure in the files; by default as in the monitor's own.
          images: where the images of the masks are, for the pictures in the report and for what they show.
          hd_limit_mm, dc_limit: of the flag "suspicious"; the former in voxels for a monitor of preset `original`.
          doubt_limit: of the same flag, where there are images (`qcjax.qc.contrast`).
          expectation: what predicts the masks' quality; None: it isn't predicted.

        Raises:
          FileNotFoundError: no such folder of masks or of images.
          ValueError: no masks, labels that aren't the monitor's structures, results of other settings, or another
            process at work in the folder.
        """
        masks, out = Path(masks).resolve(), Path(out)
        limits = {"--hd-limit-mm": hd_limit_mm, "--dc-limit": dc_limit, "--doubt-limit": doubt_limit}
        for name, value in limits.items():
            if math.isnan(value):
                raise ValueError(f"{name}: nan found, expected a number")
        pairs = None if images is None else Images(Path(images))
        labels = dict(labels or monitor.labels)
        label_mapping(monitor.structures, labels)
        own = (out / "maps").resolve()
        left_out: list[str] = []
        files = [f for f in find_masks(masks, left_out.append) if not f.path.resolve().is_relative_to(own)]
        for sentence in left_out:
            say(sentence)
        if not files:
            raise ValueError(f"{masks}: found no masks but those in {own}; expected .nii or .nii.gz files")
        if pairs is not None and not any(pairs.find(f.name, f.path) for f in files):
            example = f"{files[0].name}.nii.gz or {files[0].name}_0000.nii.gz"
            raise ValueError(
                f"{images}: found no image of any of {len(files)} masks; expected names like {example}"
            )
        settings = {
            "monitor": str(monitor.run.absolute()),
            "monitor_sha256": monitor_sha256(monitor.run),
            "masks": str(masks),
            "labels": labels,
            "hd_limit_mm": hd_limit_mm,
            "dc_limit": dc_limit,
            "images": None if images is None else str(Path(images).resolve()),
            "doubt_limit": None if images is None else doubt_limit,
            **(expectation.settings if expectation else {"quality_sha256": None}),
        }
        lock_folder(out)
        keep_settings(out / "score.json", settings, "monitor", "scores")
        return cls(monitor, files, out, settings, pairs, left_out, expectation)

    def run(self, pictures: int = 40, cluster: Cluster | None = None, devices: int | None = None) -> Outcome:
        """Score what isn't scored yet; write `scores.csv`, `summary.json` and `report.html`.

        Args:
          pictures: of cases in the report, the most doubtful first.
          cluster: whose workers score; None: this process does.
          devices: of each worker; all by default.
        """
        todo = [file for file in self.files if not self._stands(file)]
        if len(todo) < len(self.files):
            say(f"Going on: {len(self.files) - len(todo)} of {len(self.files)} masks are done")
        limits = (self.settings["hd_limit_mm"], self.settings["dc_limit"])
        by_image = (self.images, self.settings["doubt_limit"])
        stream = Stream(self.monitor, self.out, self.settings["labels"], *limits, *by_image, self.expectation)
        lines = stream.lines(todo) if cluster is None else stream.spread_lines(todo, cluster, devices)
        started = time.monotonic()
        with bar("Masks scored", len(todo)) as advance:
            for line in lines:
                self.journal.append(line)
                advance()
        wall = time.monotonic() - started
        this_run = {
            "cases_in_this_run": len(todo),
            "seconds_in_this_run": round(wall, 3),
            "seconds_per_case_in_this_run": round(wall / len(todo), 4) if todo else None,
        }
        return self._write(this_run, pictures)

    def _write(self, this_run: Mapping[str, Any], pictures: int) -> Outcome:
        """The tables and the page."""
        found = (self.journal.entries[case_key(file)] for file in self.files)
        entries = sorted(found, key=lambda entry: (entry.name, entry.path))
        structures = self.monitor.structures
        keys = [structure.key for structure in structures]
        write_table(self.out / "scores.csv", self.journal.lines_of(entries), keys, self.monitor.unit)
        summary = summarise(entries, self.journal.lines_of(entries), keys) | {
            **this_run,
            "distance_unit": self.monitor.unit,
            "left_out": list(self.left_out),
            "settings": strict(self.settings),
            "versions": jax_setup.versions(),
        }
        write_json(self.out / "summary.json", summary)
        scored = ScoredMasks(
            self.out,
            self.settings,
            summary,
            self.journal,
            entries,
            structures,
            self.images,
            self.monitor.orientation,
        )
        write_scores_page(scored, pictures)
        flagged = [entry for entry in entries if entry.status in ("erroneous", "suspicious")]
        return Outcome(self.out, summary, sorted(flagged, key=lambda entry: entry.urgency))

    def _stands(self, file: MaskCase) -> bool:
        entry = self.journal.entries.get(case_key(file))
        if entry is None or entry.retry or entry.name != file.name:
            return False
        return entry.stands(file.path, (self.out / path for path in output_paths(entry.name)))
