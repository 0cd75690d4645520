"""`qcjax segment`: which images of a folder are there, which are done already, and what is left behind in the end."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qcjax.data.files import MASKS
from qcjax.inference.entries import Entry, keep_settings, sha256, strict
from qcjax.quality.drift import drifts, in_words
from qcjax.runtime import jax_setup
from qcjax.runtime.cluster import Cluster
from qcjax.runtime.files import write_json
from qcjax.runtime.line_journal import LineJournal
from qcjax.runtime.lock import lock_folder
from qcjax.runtime.progress import bar, say
from qcjax.segmentation.inputs import Image, Pair, find_dicom, find_images, find_pairs, series_of
from qcjax.segmentation.model import Model, files_of
from qcjax.segmentation.page import write_segments_page
from qcjax.segmentation.settings import Limits
from qcjax.segmentation.stream import Stream
from qcjax.segmentation.subjects import read_surfaces, subject_rows, write_subjects
from qcjax.segmentation.table import cohort, entry_of, mask_path, summarise, write_table
from qcjax.segmentation.views import Segmented

DICOM = "dicom"  # folder of the series of DICOM files, as volumes


@dataclass(frozen=True)
class Outcome:
    """What a run leaves."""

    folder: Path  # with masks/, cases.csv, subjects.csv, summary.json, report.html
    summary: dict[str, Any]
    doubtful: list[Entry]  # those with flags, the most urgent first

    def fails(self, limit: str | None) -> bool:
        """Whether any image is at least so bad, "suspicious" or "erroneous", or couldn't be segmented; None: never."""
        counted = {"suspicious": ("suspicious", "erroneous", "errors"), "erroneous": ("erroneous", "errors")}
        return limit is not None and any(self.summary[name] for name in counted[limit])


class Segmentation:
    """One folder of images, one model, one folder of results."""

    def __init__(
        self,
        model: Model,
        images: Sequence[Image],
        pairs: Sequence[Pair],
        out: Path,
        settings: Mapping[str, Any],
        limits: Limits,
        left_out: str,
        surfaces_m2: Mapping[str, float] | None = None,
    ) -> None:
        """Use `open`."""
        self.surfaces_m2 = surfaces_m2 or {}
        self.model, self.images, self.pairs, self.out = model, images, pairs, out
        self.settings, self.limits, self.left_out = settings, limits, left_out
        self.journal: LineJournal[Entry] = LineJournal(out / "cases.jsonl", entry_of)

    @classmethod
    def open(
        cls,
        model: Model,
        images: Path,
        out: Path,
        pairs: Path | None = None,
        limits: Limits | None = None,
        bodies: Path | None = None,
    ) -> "Segmentation":
        """Find the images and make the folder of results, or go on with what is in it.

        Args:
          pairs: csv with the columns subject, ed, es (`find_pairs`).
          limits: of flags and decisions; the usual ones by default.
          bodies: csv with the columns subject, height_cm, weight_kg (`read_surfaces`).

        Raises:
          FileNotFoundError: no such folder of images.
          ValueError: no images, a table of pairs that doesn't fit, results of other settings, or another process at
            work in the folder.
        """
        images, out = Path(images).resolve(), Path(out)
        limits = limits or Limits()
        settings = {
            "model": str(model.folder.absolute()),
            "model_sha256": sha256(model.folder, files_of(model.folder)),
            "images": str(images),
            **{name: str(value) for name, value in asdict(limits).items()},
        }
        files = find_dicom(images, out)
        if files:  # their volumes are kept there
            _claim(out, settings)
        found, left_out = find_images(images, out, series_of(files, out.absolute() / DICOM))
        paired = find_pairs(found, pairs)
        surfaces = None if bodies is None else read_surfaces(bodies)
        names = {pair.subject for pair in paired} | {image.name for image in found}
        if surfaces is not None and not names & surfaces.keys():
            raise ValueError(f"{bodies}: found none of the subjects; expected names like {min(names)}")
        if left_out:
            say(f"{images}: left out: {left_out}")
        _claim(out, settings)
        return cls(model, found, paired, out, settings, limits, left_out, surfaces)

    def run(self, pictures: int = 40, cluster: Cluster | None = None, devices: int | None = None) -> Outcome:
        """Segment what isn't segmented yet; write `cases.csv`, `subjects.csv`, `summary.json` and `report.html`.

        Args:
          pictures: of images in the report, at most, the most doubtful first.
          cluster: whose workers segment; None: this process does.
          devices: of each worker; all by default.
        """
        todo = [image for image in self.images if not self._stands(image)]
        if len(todo) < len(self.images):
            say(f"Going on: {len(self.images) - len(todo)} of {len(self.images)} images are done")
        stream = Stream(self.model, self.out, self.limits)
        lines = stream.lines(todo) if cluster is None else stream.spread_lines(todo, cluster, devices)
        started = time.monotonic()
        with bar("Images segmented", len(todo)) as advance:
            for line in lines:
                self.journal.append(line)
                advance()
        wall = time.monotonic() - started
        return self._write(len(todo), wall, pictures)

    def _write(self, count: int, wall: float, pictures: int) -> Outcome:
        entries = sorted((self.journal.entries[image.name] for image in self.images), key=lambda e: e.name)
        offsets, keys = [entry.offset for entry in entries], [s.key for s in self.model.structures]
        write_table(self.out / "cases.csv", self.journal.lines(offsets), Path(self.settings["images"]))
        rows = subject_rows(self.journal.lines(offsets), self.pairs, self.surfaces_m2)
        write_subjects(self.out / "subjects.csv", rows)
        quality = self.model.quality
        parted = drifts(quality.reference, cohort(self.journal.lines(offsets))) if quality else []
        summary = summarise(entries, self.journal.lines(offsets), keys) | {
            "drift": [one._asdict() for one in parted],
            "drift_in_words": in_words(parted),
            "images_in_this_run": count,
            "seconds_in_this_run": round(wall, 3),
            "seconds_per_image_in_this_run": round(wall / count, 4) if count else None,
            "pairs": len(self.pairs),
            "left_out": self.left_out,
            "labels": self.model.labels,
            "settings": strict(self.settings),
            "versions": jax_setup.versions(),
        }
        write_json(self.out / "summary.json", summary)
        made = Segmented(self.out, self.model, self.settings, summary, self.journal, entries, rows)
        write_segments_page(made, pictures)
        doubtful = [entry for entry in entries if entry.status in ("erroneous", "suspicious")]
        return Outcome(self.out, summary, sorted(doubtful, key=lambda entry: entry.urgency))

    def _stands(self, image: Image) -> bool:
        entry = self.journal.entries.get(image.name)
        if entry is None or entry.retry:
            return False
        return entry.stands(image.path, [self.out / mask_path(image.name)])


def _claim(out: Path, settings: Mapping[str, Any]) -> None:
    lock_folder(out)
    keep_settings(out / MASKS, settings, "model", "masks")
