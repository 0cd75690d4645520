"""What `qcjax segment` leaves per image: lines of the journal `cases.jsonl`, the table `cases.csv`, a summary."""

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcjax.qc import Flag
from qcjax.quality.model import ACCEPT, DECISIONS, decide, worst_decision
from qcjax.runtime.line_journal import Line, from_json, to_json
from qcjax.segmentation.model import Measures, Result

COLUMNS = (
    "image",  # path below the folder of images
    "frame",  # of a cine, counted from 1; empty for a still image
    "structure",  # key; empty where the image couldn't be segmented
    "volume_ml",
    "pdc",
    "phd_mm",
    "flag",  # "", "suspicious", "erroneous"; "error" where the image couldn't be segmented
    "reason",
    "worst_slice",  # on the array's third axis, counted from 1
    "suspicion",  # of the frame
    "mask",  # path below the folder of results
    "notes",  # what is unusual about the image's geometry
    "predicted_dice",  # empty where nothing is known, or the structure is absent
    "predicted_dice_low",  # at least that, with the promised probability
    "predicted_hd_mm",
    "predicted_hd_high_mm",  # at most that
    "decision",  # "accept", "review", "reject"
)
PREDICTED = COLUMNS[-5:]
DIGITS = (4, 4, 2, 2)  # of these
STATUSES = ("erroneous", "suspicious", "", "error")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an image's line lies in the journal, and what decides about order and repetition."""

    name: str
    path: str
    size: int  # of the image's file when it was read, in bytes
    mtime_ns: int
    retry: bool
    status: str  # one of STATUSES: that of the worst frame
    suspicion: float  # of the most suspicious frame
    seconds: float
    frames: int
    offset: int

    @property
    def urgency(self) -> tuple[int, float, str]:
        """Sorts the erroneous first, then the suspicious, then the others, each by falling suspicion."""
        return STATUSES.index(self.status), -np.nan_to_num(self.suspicion, posinf=math.inf), self.name

    @classmethod
    def of(cls, line: Line, offset: int) -> "tuple[str, Entry]":
        """An entry of a `LineJournal`, keyed by the image's name."""
        suspicions = [from_json(frame["suspicion"]) for frame in line["frames"]]
        known = [s for s in suspicions if not math.isnan(s)]
        fields = {
            name: line[name] for name in ("name", "path", "size", "mtime_ns", "retry", "status", "seconds")
        }
        suspicion = max(known, default=math.nan)
        entry = cls(**fields, suspicion=suspicion, frames=len(line["frames"]), offset=offset)
        return line["name"], entry


def frame_line(
    number: int | None, result: Result, flags: Sequence[Flag], accept: float | None = ACCEPT
) -> Line:
    """What the journal keeps of a frame.

    Args:
      number: of the frame, counted from 1; None of a still image.
      flags: they may follow other limits than the result's own.
      accept: the lower bound of Dice from which on a structure is accepted; None where quality isn't predicted.
    """
    structures = {}
    for key, found in result.measures.items():
        own = [flag for flag in flags if flag.structure == key]
        structures[key] = {
            "volume_ml": round(found.volume_ml, 4),
            "pdc": to_json(found.pdc),
            "phd_mm": to_json(found.phd_mm),
            "flag": _worst(own),
            "reason": "; ".join(flag.reason for flag in own),
            "worst_slice": None if found.worst_slice is None else found.worst_slice + 1,
            **_predicted(found, _worst(own), accept),
        }
    suspicion = to_json(result.score.suspicion)
    return {"frame": number, "status": _worst(flags), "suspicion": suspicion, "structures": structures}


def _predicted(found: Measures, flag: str, accept: float | None) -> Line:
    """The columns `PREDICTED`. A structure that may be absent, and is, has no decision."""
    estimate, lost = found.predicted, found.volume_ml == 0 and flag == "erroneous"
    numbers = (None if np.isnan(v) else to_json(round(v, n)) for v, n in zip(estimate, DIGITS, strict=True))
    decision = "" if accept is None else decide(estimate, lost, accept)
    return dict(zip(PREDICTED, (*numbers, decision), strict=True))


def _worst(flags: Sequence[Flag]) -> str:
    kinds = {flag.kind for flag in flags}
    return next((status for status in STATUSES if status in kinds), "")


def error_line(error: str, retry: bool) -> Line:
    """What the journal keeps of an image that couldn't be segmented."""
    return {"status": "error", "frames": [], "notes": [], "error": error, "retry": retry}


def mask_path(name: str) -> Path:
    """Where an image's mask goes, below the folder of results.

    Raises:
      ValueError: a name that leads out of that folder.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise ValueError(f"name {name!r} found, expected one that stays inside of the output folder")
    return Path("masks", *parts[:-1], f"{parts[-1]}.nii.gz")


def write_table(path: Path, lines: Iterable[Line], images: Path) -> None:
    """Write `cases.csv` at once: a row per image, frame and structure; undefined is empty."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for line in lines:
            writer.writerows(_rows(line, images))
    os.replace(partial, path)


def _rows(line: Line, images: Path) -> Iterator[list[Any]]:
    image = Path(line["path"]).relative_to(images).as_posix()
    if line["status"] == "error":
        yield [image, *(None,) * 5, "error", line["error"], *(None,) * (len(COLUMNS) - 8)]
        return
    mask = mask_path(line["name"]).as_posix()
    for frame in line["frames"]:
        for key, found in frame["structures"].items():
            measured = [found[c] for c in ("volume_ml", "pdc", "phd_mm", "flag", "reason", "worst_slice")]
            shared = [frame["suspicion"], mask, "; ".join(line["notes"])]
            yield [image, frame["frame"], key, *measured, *shared, *(found[c] for c in PREDICTED)]


def summarise(entries: Sequence[Entry], lines: Iterable[Line], keys: Sequence[str]) -> dict[str, Any]:
    """Counts of images and per structure of frames, and seconds per image."""
    status = [entry.status for entry in entries]
    counts = {key: {"erroneous": 0, "suspicious": 0} for key in keys}
    decisions = dict.fromkeys(DECISIONS[::-1], 0)
    for line in lines:
        for frame in line["frames"]:
            made = worst_decision([found["decision"] for found in frame["structures"].values()])
            if made:
                decisions[made] += 1
            for key, found in frame["structures"].items():
                if found["flag"]:
                    counts[key][found["flag"]] += 1
    seconds = np.array([entry.seconds for entry in entries if entry.status != "error"])
    median, p95 = np.quantile(seconds, (0.5, 0.95)).tolist() if len(seconds) else (None, None)
    return {
        "images": len(status),
        "frames": sum(entry.frames for entry in entries),
        "segmented": len(status) - status.count("error"),
        "errors": status.count("error"),
        "erroneous": status.count("erroneous"),
        "suspicious": status.count("suspicious"),
        "without_flag": status.count(""),
        "decisions": decisions,  # of frames: that of their worst structure
        "structures": counts,
        "seconds_median": median,
        "seconds_p95": p95,
    }
