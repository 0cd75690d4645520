"""Scoring a folder of masks: which are there, which are done already, and what is left behind in the end.

Several processes can each score a share of the masks (`score_share`); whichever ends last writes the tables of all.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcjax.data.datasets.masks import Images, find_masks
from qcjax.data.mask_cohort import MaskCase
from qcjax.inference.entries import Entry, keep_settings, sha256, strict
from qcjax.inference.monitor import DESCRIPTION, WEIGHTS, Monitor
from qcjax.labels import label_mapping
from qcjax.qc import contrast
from qcjax.quality.model import Expectation
from qcjax.runtime import jax_setup
from qcjax.runtime.files import version_of, write_json
from qcjax.runtime.lock import in_turn
from qcjax.runtime.progress import bar, say
from qcjax.scoring.page import write_scores_page
from qcjax.scoring.share import Share, claim, journal_path, share_of, shares_in
from qcjax.scoring.stream import Stream, case_key
from qcjax.scoring.table import ScoreJournal, output_paths, summarise, write_table
from qcjax.scoring.views import ScoredMasks

UNCHECKED = ("without_image",)  # counts of cases of which a check that was asked for didn't happen
COPIED_AT_ONCE = 1000  # lines from one journal to another


@dataclass(frozen=True)
class Outcome:
    """What a run leaves."""

    folder: Path  # with maps/ and, once complete, scores.csv, summary.json, report.html
    summary: dict[str, Any]  # of the share's own masks, where there is a share
    flagged: list[Entry]  # likewise; the most urgent first
    complete: bool = True  # False: masks of other shares are still to come

    def fails(self, limit: str | None, without_images: bool = False) -> bool:
        """Whether any case is at least "suspicious" or "erroneous", as asked, or couldn't be checked; None: never.

        Args:
          without_images: whether a mask may lack its image though images were given.
        """
        counted = {"suspicious": ("suspicious", "erroneous", "errors"), "erroneous": ("erroneous", "errors")}
        names = counted.get(limit or "", ())
        return any(self.summary[n] for n in (*names, *(() if without_images or not names else UNCHECKED)))


class ScoringRun:
    """One folder of masks or a share of it, one monitor, one folder of results."""

    def __init__(
        self,
        monitor: Monitor,
        files: Sequence[MaskCase],
        out: Path,
        settings: Mapping[str, Any],
        images: Images | None,
        share: Share | None = None,
        left_out: Sequence[str] = (),
        expectation: Expectation | None = None,
    ) -> None:
        """Use `open`. `left_out` says in sentences which files beside the masks aren't scored."""
        self.monitor, self.out, self.settings, self.left_out = monitor, out, settings, left_out
        self.all_files, self.images, self.share, self.expectation = files, images, share, expectation
        self.files = files if share is None else share.of(files)
        self.journal = ScoreJournal(journal_path(out, share))

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
        share: Share | tuple[int, int] | None = None,
        expectation: Expectation | None = None,
    ) -> "ScoringRun":
        """Find the masks and make the folder of results, or go on with what is in it.

        Args:
          labels: value of each structure in the files; by default as in the monitor's own.
          images: where the images of the masks are, for the pictures in the report and for what they show.
          hd_limit_mm, dc_limit: of the flag "suspicious"; the former in voxels for a monitor of preset `original`.
          doubt_limit: of the same flag, where there are images (`qcjax.qc.contrast`).
          share: (index, count): the index-th of count shares of the masks alone, counted from 1; None: all masks, with
            what shares have scored before.
          expectation: what predicts the masks' quality; None: it isn't predicted.

        Raises:
          FileNotFoundError: no such folder of masks or of images.
          ValueError: no masks, labels that aren't the monitor's structures, no such share, results of other settings,
            or another process at work on the same masks.
        """
        part = Share(*share) if isinstance(share, tuple) else share
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
            "monitor_sha256": sha256(monitor.run, (DESCRIPTION, WEIGHTS)),
            "masks": str(masks),
            "labels": labels,
            "hd_limit_mm": hd_limit_mm,
            "dc_limit": dc_limit,
            "images": None if images is None else str(Path(images).resolve()),
            "doubt_limit": None if images is None else doubt_limit,
            **(expectation.settings if expectation else {"quality_sha256": None}),
        }
        claim(out, part)
        keep_settings(out / "score.json", settings, "monitor", "scores")
        return cls(monitor, files, out, settings, pairs, part, left_out, expectation)

    def run(self, pictures: int = 40) -> Outcome:
        """Score what isn't scored yet; write `scores.csv`, `summary.json` and `report.html`.

        A share writes them only where by then all other shares are done.

        Args:
          pictures: of cases in the report, the most doubtful first.
        """
        standing = self._take_in(self._others())
        todo = [file for file in self.files if (e := standing[case_key(file)]) is None or e.retry]
        if len(todo) < len(self.files):
            say(f"Going on: {len(self.files) - len(todo)} of {len(self.files)} masks are done")
        limits = (self.settings["hd_limit_mm"], self.settings["dc_limit"])
        by_image = (self.images, self.settings["doubt_limit"])
        stream = Stream(self.monitor, self.out, self.settings["labels"], *limits, *by_image, self.expectation)
        started = time.monotonic()
        with bar("Masks scored", len(todo)) as advance:
            for line in stream.lines(todo):
                self.journal.append(line)
                advance()
        wall = time.monotonic() - started
        this_run = {
            "cases_in_this_run": len(todo),
            "seconds_in_this_run": round(wall, 3),
            "seconds_per_case_in_this_run": round(wall / len(todo), 4) if todo else None,
        }
        if self.share is None:
            summary, complete = self._write(this_run, pictures), True
        else:
            summary, complete = self._summary(this_run), self._merge(this_run, pictures)
        flagged = [entry for entry in self._entries() if entry.status in ("erroneous", "suspicious")]
        return Outcome(self.out, summary, sorted(flagged, key=lambda entry: entry.urgency), complete)

    def _entries(self) -> list[Entry]:
        """The entries of all its masks, by name."""
        found = (self.journal.entries[case_key(file)] for file in self.files)
        return sorted(found, key=lambda entry: (entry.name, entry.path))

    def _summary(self, this_run: Mapping[str, Any]) -> dict[str, Any]:
        entries, keys = self._entries(), [structure.key for structure in self.monitor.structures]
        return summarise(entries, self.journal.lines_of(entries), keys) | {
            **this_run,
            "distance_unit": self.monitor.unit,
            "left_out": list(self.left_out),
            "settings": strict(self.settings),
            "versions": jax_setup.versions(),
        }

    def _write(self, this_run: Mapping[str, Any], pictures: int) -> dict[str, Any]:
        """The tables and the page; the summary."""
        entries, structures = self._entries(), self.monitor.structures
        keys = [structure.key for structure in structures]
        write_table(self.out / "scores.csv", self.journal.lines_of(entries), keys, self.monitor.unit)
        summary = self._summary(this_run)
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
        return summary

    def _merge(self, this_run: Mapping[str, Any], pictures: int) -> bool:
        """Write the tables of all shares, unless there are masks to come; whether they are written.

        Shares that end together do this one after the other, so that one of them finds all masks done.
        """
        page = self.out / "report.html"
        before = version_of(page)
        with in_turn(self.out) as certain:
            if not certain:
                say(
                    f"{self.out}: this file system has no locks; when all shares are done, start without --share"
                )
                return False
            whole = ScoringRun(
                self.monitor, self.all_files, self.out, self.settings, self.images, left_out=self.left_out
            )
            others = whole._others()
            known = whole.journal.entries.keys() | {key for journal in others for key in journal.entries}
            left = [file for file in self.all_files if case_key(file) not in known]
            if not left:  # only now look at the files themselves, which takes long on a remote disk
                held = whole.journal.end
                standing = whole._take_in(others)
                left = [file for file in self.all_files if standing[case_key(file)] is None]
                written_meanwhile = whole.journal.end == held and version_of(page) != before
                if not left and not written_meanwhile:
                    whole._write(this_run, pictures)
        if left:
            say(f"Still to come: {_in_words(left, self.share)}")
        return not left

    def _others(self) -> list[ScoreJournal]:
        """All journals of this folder but its own, as they are now."""
        paths = [journal_path(self.out, share) for share in (None, *shares_in(self.out))]
        return [ScoreJournal(p, theirs=True) for p in paths if p != self.journal.path and p.is_file()]

    def _take_in(self, others: Sequence[ScoreJournal]) -> dict[str, Entry | None]:
        """Copy from other journals what they hold of its masks and its own doesn't; what is known of each mask."""
        standing: dict[str, Entry | None] = {}
        taken: list[list[Entry]] = [[] for _ in others]
        for file in self.files:
            key = case_key(file)
            best: tuple[Entry, int] | None = None
            for i, journal in enumerate((self.journal, *others)):
                entry = journal.entries.get(key)
                better = best is None or (best[0].retry and entry is not None and not entry.retry)
                if entry is not None and better and self._stands(entry, file):
                    best = entry, i
                    if not entry.retry:
                        break
            standing[key] = None if best is None else best[0]
            if best is not None and best[1]:
                taken[best[1] - 1].append(best[0])
        for journal, entries in zip(others, taken, strict=True):
            for start in range(0, len(entries), COPIED_AT_ONCE):
                self.journal.append(*journal.lines_of(entries[start : start + COPIED_AT_ONCE]))
        return standing

    def _stands(self, entry: Entry, file: MaskCase) -> bool:
        if entry.name != file.name:
            return False
        return entry.stands(file.path, (self.out / path for path in output_paths(entry.name)))


def _in_words(left: Sequence[MaskCase], share: Share | None) -> str:
    """How many masks, and of which shares."""
    assert share is not None
    shares = sorted({share_of(file.name, share.count) for file in left})
    named = ", ".join(str(share) for share in shares[:8]) + (", ..." if len(shares) > 8 else "")
    return (
        f"{len(left)} mask{'s' * (len(left) != 1)} of {len(shares)} share{'s' * (len(shares) != 1)} ({named})"
    )
