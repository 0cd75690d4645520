"""What scoring leaves behind per case: the journal `scores.jsonl`, from which it goes on, and `scores.csv`.

Only an `Entry` per case stays in memory; everything else is read from the journal again, in the order of the names.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from qcjax.data.geometry import Axes
from qcjax.inference.entries import Entry, counted, inside, worst_status
from qcjax.inference.monitor import Score
from qcjax.qc import Flag
from qcjax.quality.model import DECISIONS, PREDICTED, worst_decision
from qcjax.runtime.files import written_table
from qcjax.runtime.line_journal import Line, LineJournal, from_json, to_json

COLUMNS = (
    "case",
    "structure",
    "verdict",  # of the structure: "", "suspicious" or "erroneous"
    "reason",
    "volume_ml",
    "pdc",
    "phd_mm",  # "phd_voxels" of a monitor of preset `original`
    "worst_slice",  # on the axis along which the file has its slices, counted from 1
    "suspicion",  # of the case
    "error",
    "mask_path",
    "reconstruction_path",  # starts at the folder of the table, as the next
    "inconsistency_path",
    "doubt",  # of the structure, by the image; empty without --images
    "image_error",  # why there is none where images were given
    "geometry",  # what is unusual about the file's geometry: no valid code, two spacings, ...
    *PREDICTED,  # empty without --model
)
AS_STORED = Axes()


class ScoreJournal(LineJournal[Entry]):
    """`scores.jsonl`: a line per case, the last one of a mask's path counts."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        super().__init__(path, _entry)

    def lines_of(self, entries: Iterable[Entry]) -> Iterator[Line]:
        """The lines of some cases, in their order."""
        return self.lines(entry.offset for entry in entries)


def _entry(line: Line, offset: int) -> tuple[str, Entry]:
    """A case's path, and its entry, whose suspicion is the largest doubt by the image where that is larger."""
    suspicion = float(np.fmax(from_json(line["suspicion"]), largest_doubt(line)))
    return line["path"], Entry.of(line, suspicion, 1, offset)


def largest_doubt(line: Line) -> float:
    """The largest doubt of a case's structures, by its image; NaN without one.

    Whether a structure may be absent is no matter of the image.
    """
    doubts = [from_json(found.get("doubt")) for found in line["structures"].values()]
    return max((doubt for doubt in doubts if math.isfinite(doubt)), default=math.nan)


def score_line(
    score: Score,
    volumes_ml: Sequence[float],
    flags: Sequence[Flag],
    doubts: Float[np.ndarray, " k"] | None = None,
    image_error: str = "",
    axes: Axes = AS_STORED,
    notes: Sequence[str] = (),
    predicted: Mapping[str, Line] | None = None,
) -> Line:
    """What the journal keeps of a score.

    Args:
      volumes_ml: (k,) of the mask's structures.
      flags: any number for a structure; they may follow other limits than the score's own.
      doubts: (k,) by the image, if there is one.
      image_error: why there is none.
      axes: how the mask was brought from its file.
      notes: on its geometry.
      predicted: the `predicted_columns` of each structure, by key.
    """
    structures = {}
    slices = len(score.slice_pdc)
    for i, structure in enumerate(score.structures):
        own = [flag for flag in flags if flag.structure == structure.key]
        place = int(score.worst_slice[i])
        structures[structure.key] = {
            "verdict": worst_status([flag.kind for flag in own]),
            "reason": "; ".join(flag.reason for flag in own),
            "volume_ml": to_json(volumes_ml[i]),
            "pdc": to_json(score.pdc[i]),
            "phd": to_json(score.phd[i]),
            "worst_slice": None if place < 0 else axes.slice_number(place, slices) + 1,
            "doubt": None if doubts is None else to_json(doubts[i]),
            **(predicted[structure.key] if predicted else {}),
        }
    return {
        "status": worst_status([flag.kind for flag in flags]),
        "suspicion": to_json(score.suspicion),
        "structures": structures,
        "error": "",
        "image_error": image_error,
        "geometry": "; ".join(notes),
        "retry": bool(image_error),  # the image may have come by then
    }


def error_line(error: str, retry: bool) -> Line:
    """What the journal keeps of a mask that couldn't be scored."""
    return {"status": "error", "suspicion": None, "structures": {}, "error": error, "retry": retry}


def output_paths(name: str) -> tuple[Path, Path]:
    """Where a case's reconstruction and inconsistency map go, below the folder of the scores.

    Raises:
      ValueError: a name that leads out of that folder.
    """
    folder, stem = inside(name)
    return tuple("maps" / folder / f"{stem}_{what}.nii.gz" for what in ("reconstruction", "inconsistency"))  # type: ignore[return-value]


def write_table(path: Path, lines: Iterable[Line], keys: Sequence[str], unit: str = "mm") -> None:
    """Write `scores.csv` at once: one row per case and structure, as the lines come; undefined is empty.

    Args:
      unit: of the distances, "mm" or "voxels".
    """
    with written_table(path) as file:
        writer = csv.writer(file)
        writer.writerow(column.replace("_mm", f"_{unit}") for column in COLUMNS)
        for line in lines:
            writer.writerows(_rows(line, keys))


def _rows(line: Line, keys: Sequence[str]) -> Iterator[list[Any]]:
    outputs = ("", "") if line["status"] == "error" else (p.as_posix() for p in output_paths(line["name"]))
    shared = [line["suspicion"], line["error"], line["path"], *outputs]
    about = [line.get("image_error", ""), line.get("geometry", "")]
    for key in keys:
        found = line["structures"].get(key, {})
        measured = [found.get(c) for c in ("volume_ml", "pdc", "phd", "worst_slice")]
        judged = [line["name"], key, found.get("verdict", ""), found.get("reason", "")]
        yield [*judged, *measured, *shared, found.get("doubt"), *about, *(found.get(c) for c in PREDICTED)]


def summarise(entries: Sequence[Entry], lines: Iterable[Line], keys: Sequence[str]) -> dict[str, Any]:
    """Counts of cases and per structure, and seconds per case."""
    of_status = counted(entries)
    beyond = sum(entry.status == "" and entry.suspicion > 1 for entry in entries)
    counts = {key: {"erroneous": 0, "suspicious": 0} for key in keys}
    without_image = unusual = swapped = 0
    decisions = dict.fromkeys(DECISIONS[::-1], 0)
    for line in lines:
        if made := worst_decision([v.get("decision", "") for v in line["structures"].values()]):
            decisions[made] += 1
        without_image += bool(line.get("image_error"))
        unusual += bool(line.get("geometry"))
        swapped += bool(line.get("seems_swapped"))
        for key, found in line["structures"].items():
            if found["verdict"]:
                counts[key][found["verdict"]] += 1
    return {
        "cases": len(entries),
        "scored": len(entries) - of_status["errors"],
        **of_status,
        "untouched": sum(entry.status == "" for entry in entries),
        "untouched_with_suspicion_above_1": beyond,  # or with a doubt
        "without_image": without_image,
        "with_unusual_geometry": unusual,
        "seem_swapped": swapped,  # the right ventricle within the myocardium, the left one beside it
        "decisions": decisions,  # that of a mask's worst structure; none without --model
        "structures": counts,
    }
