"""Scored masks as the viewer of their page shows them, drawn from the files that a run left."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcjax.data.datasets.masks import Images
from qcjax.data.geometry import Orientation
from qcjax.data.nifti import read_labels
from qcjax.inference.entries import Entry
from qcjax.labels import Structure, label_mapping
from qcjax.quality.model import worst_decision
from qcjax.report import structures
from qcjax.report.pictures import most_changed
from qcjax.report.tiles import pack_case
from qcjax.report.viewer import ViewedCase
from qcjax.runtime.line_journal import Line, from_json
from qcjax.scoring.table import ScoreJournal, largest_doubt, output_paths

NOT_SCORED = "not scored"  # in place of a verdict


@dataclass(frozen=True)
class ScoredMasks:
    """What the page is made from."""

    folder: Path  # of the scores
    settings: Mapping[str, Any]  # of score.json
    summary: Mapping[str, Any]
    journal: ScoreJournal
    entries: Sequence[Entry]
    structures: Sequence[Structure]
    images: Images | None
    orientation: Orientation | None = None  # of the monitor

    @property
    def unit(self) -> str:
        """The unit of distances."""
        return str(self.summary["distance_unit"])

    @property
    def predicted(self) -> bool:
        """Whether quality was predicted."""
        return self.settings["quality_sha256"] is not None


def cohort_values(scored: ScoredMasks) -> Iterator[dict[str, float]]:
    """Per scored mask what its place in the cohort is shown of: suspicion, doubt, volumes, bounds."""
    for line in scored.journal.lines_of(e for e in scored.entries if e.status != "error"):
        yield structures.of_cohort(case_values(scored, line))


def case_values(scored: ScoredMasks, line: Line) -> dict[str, float]:
    """A scored mask's numbers by column; NaN where there is none."""
    values = {"suspicion": from_json(line["suspicion"])}
    if scored.images:
        values["doubt"] = largest_doubt(line)
    return values | structures.numbers(line["structures"], scored.unit)


def view(scored: ScoredMasks, line: Line, pictured: bool) -> ViewedCase:
    """A case of the journal.

    Args:
      pictured: whether its files are read.
    """
    if line["status"] == "error":
        error = line["error"]
        return ViewedCase(line["name"], NOT_SCORED, f"{error}.", {}, unseen="It couldn't be read or scored.")
    text = structures.reasons(line["structures"])
    tiles: dict[str, Any] = {}
    unseen = "This case is further down the list than pictures go (--pictures)."
    if pictured:
        try:
            tiles, lacking = _tiles(scored, line)
            text += lacking
        except (OSError, ValueError) as error:  # a file was moved since it was scored
            unseen = f"No picture: {error}."
    decision = worst_decision([found.get("decision", "") for found in line["structures"].values()])
    values: dict[str, float | str] = {**case_values(scored, line), "decision": decision}
    rows = structures.rows(line["structures"], scored.predicted, bool(scored.images))
    return ViewedCase(line["name"], line["status"], text, values, tiles, unseen, rows)


def _tiles(scored: ScoredMasks, line: Line) -> tuple[dict[str, Any], str]:
    """A case's pictures, and what they lack, in a sentence."""
    mapping = label_mapping(scored.structures, scored.settings["labels"])
    path = Path(line["path"])
    of_mask = scored.images.find(line["name"], path) if scored.images else None
    mask = read_labels(path, mapping, orientation=scored.orientation, lengths_of=of_mask)
    rebuilt = read_labels(scored.folder / output_paths(line["name"])[0], mapping, like=mask)
    image, lacking = None, ""
    if scored.images:
        try:
            image = scored.images.read(mask, line["name"]).array
        except (OSError, ValueError) as error:
            lacking = f" The image can't be shown: {error}."
    count = mask.array.shape[2]
    flagged = [v for v in line["structures"].values() if v["verdict"] and v["worst_slice"]]
    worst = min(flagged, key=lambda v: v["pdc"], default=None)
    shown = worst["worst_slice"] - 1 if worst else None
    forward = mask.axes.slice_number(0, count) == 0  # slices are numbered as in the file
    if shown is None:
        shown = mask.axes.slice_number(most_changed(mask.array, rebuilt.array), count)
    order = slice(None) if forward else slice(None, None, -1)
    layers = {"mask": mask.array[:, :, order], "reconstruction": rebuilt.array[:, :, order]}
    grey = None if image is None else image[:, :, order]
    return pack_case(grey, layers, mask.spacing_mm[:2], shown, structures=scored.structures), lacking
