"""Segmented images as the viewer of their page shows them, drawn from their files and masks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qcjax.data.cine import read_frames
from qcjax.data.nifti import grid_difference
from qcjax.inference.entries import Entry
from qcjax.labels import label_mapping
from qcjax.quality.model import worst_decision
from qcjax.report import structures
from qcjax.report.pictures import most_changed
from qcjax.report.table import DASH, number
from qcjax.report.tiles import pack_case
from qcjax.report.viewer import ViewedCase
from qcjax.runtime.line_journal import Line, LineJournal, from_json
from qcjax.segmentation.model import Model
from qcjax.segmentation.table import mask_path

NOT_SEGMENTED = "not segmented"  # in place of a verdict


@dataclass(frozen=True)
class Segmented:
    """What the page is made from."""

    folder: Path
    model: Model
    settings: Mapping[str, Any]
    summary: Mapping[str, Any]
    journal: LineJournal[Entry]
    entries: Sequence[Entry]
    subjects: Sequence[Mapping[str, Any]]

    @cached_property
    def heartbeats(self) -> dict[str, list[str]]:
        """A subject -> what each ventricle does over the heartbeat, in words."""
        found: dict[str, list[str]] = {}
        for row in self.subjects:
            values = (with_bounds(row, f"{name}{{}}_ml") for name in ("edv", "esv"))
            told = "{}: EDV {} ml, ESV {} ml, EF {} %".format(
                row["structure"].upper(), *values, with_bounds(row, "ejection_fraction{}")
            )
            reason = f" ({row['reason']})" if row["reason"] else ""
            found.setdefault(row["subject"], []).append(told + reason)
        return found


def finite(value: float) -> str:
    """A number of `subjects.csv` in words, a dash where it isn't known."""
    return DASH if value != value else number(value, 1)


def with_bounds(row: Mapping[str, Any], name: str) -> str:
    """A value with its interval, such as 122.2 [118.0, 126.4].

    Args:
      name: of the columns, {} where `_low` and `_high` stand.
    """
    value, low, high = (row[name.format(end)] for end in ("", "_low", "_high"))
    return finite(value) if low != low else f"{finite(value)} [{finite(low)}, {finite(high)}]"


def cohort_values(made: Segmented) -> Iterator[dict[str, float]]:
    """Per segmented image what its place in the cohort is shown of: suspicion and volumes, of its worst frame."""
    segmented = (e.offset for e in made.entries if e.status != "error")
    for line in made.journal.lines(segmented):
        yield structures.of_cohort(frame_values(worst_frame(line)))


def worst_frame(line: Line) -> Line:
    """The frame of an image that is shown first: the most suspicious of those with the worst flag."""
    frames = [f for f in line["frames"] if f["status"] == line["status"]]
    return max(frames, key=lambda f: -1 if f["suspicion"] is None else from_json(f["suspicion"]))


def frame_values(frame: Line) -> dict[str, float]:
    """A frame's numbers by column; NaN where there is none."""
    return {"suspicion": from_json(frame["suspicion"])} | structures.numbers(frame["structures"], "mm")


def view(made: Segmented, line: Line, pictured: bool) -> ViewedCase:
    """An image of the journal.

    Args:
      pictured: whether its files are read.
    """
    if line["status"] == "error":
        error = line["error"]
        return ViewedCase(line["name"], NOT_SEGMENTED, f"{error}.", {}, unseen="It couldn't be segmented.")
    frame = worst_frame(line)
    tiles: dict[str, Any] = {}
    unseen = "This image is further down the list than pictures go (--pictures)."
    if pictured:
        try:
            tiles = _tiles(made, line, frame)
        except (OSError, ValueError) as error:  # a file was changed since it was segmented
            unseen = f"No picture: {error}."
    return ViewedCase(
        line["name"],
        line["status"],
        _in_words(made, line, frame),
        {
            **frame_values(frame),
            "decision": worst_decision([v["decision"] for v in frame["structures"].values()]),
        },
        tiles,
        unseen,
        structures.rows(frame["structures"], made.model.quality is not None),
        _curves(line) if len(line["frames"]) > 1 else {},
    )


def _in_words(made: Segmented, line: Line, frame: Line) -> str:
    text = structures.reasons(frame["structures"])
    if frame["frame"] is not None:
        text = f"Frame {frame['frame']}, the most doubtful: {text}"
    heartbeat = made.heartbeats.get(line["name"])
    if heartbeat:
        text += f" Over the heartbeat: {'; '.join(heartbeat)}."
    notes = "; ".join(line["notes"])
    return text + (f" Of its geometry: {notes}." if notes else "")


def _curves(line: Line) -> dict[str, list[float | None]]:
    """Volumes over the frames; a structure that isn't there has none."""
    keys = line["frames"][0]["structures"]
    return {key: [f["structures"][key]["volume_ml"] or None for f in line["frames"]] for key in keys}


def _tiles(made: Segmented, line: Line, frame: Line) -> dict[str, Any]:
    """An image's frames with their masks, which the monitor rebuilds once more."""
    model = made.model
    images = read_frames(Path(line["path"]), model.orientation)
    written = read_frames(made.folder / mask_path(line["name"]), model.orientation)
    difference = grid_difference(images[0], written[0].array.shape, written[0].affine)
    if difference or len(written) != len(images):
        found = difference[0] if difference else f"{len(written)} frames"
        raise ValueError(f"{mask_path(line['name'])}: {found} found, expected those of the image")
    ids = label_mapping(model.structures, model.labels)
    masks = []
    for volume in written:
        mask = np.zeros(volume.array.shape, np.uint8)
        for value, label in ids.items():
            mask[volume.array == value] = label
        masks.append(mask)
    spacing = images[0].spacing_mm
    rebuilt = [model.judge(mask, line["judged_at_mm"]).reconstruction for mask in masks]
    place = (frame["frame"] or 1) - 1
    flagged = [v for v in frame["structures"].values() if v["flag"] and v["worst_slice"]]
    worst = min(flagged, key=lambda v: v["pdc"], default=None)
    shown = worst["worst_slice"] - 1 if worst else most_changed(masks[place], rebuilt[place])
    image = np.concatenate([volume.array for volume in images], axis=2)
    layers = {"mask": np.concatenate(masks, axis=2), "reconstruction": np.concatenate(rebuilt, axis=2)}
    return pack_case(image, layers, spacing[:2], shown, len(masks), model.structures, place)
