"""What `qcjax segment` leaves per image: lines of the journal `cases.jsonl`, the table `cases.csv`, a summary."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from qcjax.inference.entries import Entry, counted, inside, worst_status
from qcjax.qc import Flag
from qcjax.quality.drift import MEASURES
from qcjax.quality.model import ACCEPT, DECISIONS, PREDICTED, predicted_columns, worst_decision
from qcjax.runtime.files import written_table
from qcjax.runtime.line_journal import Line, from_json, to_json
from qcjax.segmentation.result import Result

COLUMNS = (
    "image",  # path below the folder of images; series-… of DICOM files
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
    *PREDICTED,
    "networks",  # of a refined model, whose mask it is: "source" or "refined"
)


def entry_of(line: Line, offset: int) -> tuple[str, Entry]:
    """An image's name, and its entry, whose suspicion is that of the most suspicious frame."""
    suspicions = [from_json(frame["suspicion"]) for frame in line["frames"]]
    suspicion = max((s for s in suspicions if not math.isnan(s)), default=math.nan)
    return line["name"], Entry.of(line, suspicion, len(line["frames"]), offset)


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
        # one that may be absent, and is, has no decision
        lost = found.volume_ml == 0 and worst_status([flag.kind for flag in own]) == "erroneous"
        structures[key] = {
            "volume_ml": round(found.volume_ml, 4),
            "volumes_ml": [round(v, 4) for v in found.volumes_ml],
            "pdc": to_json(found.pdc),
            "phd": to_json(found.phd_mm),
            "flag": worst_status([flag.kind for flag in own]),
            "reason": "; ".join(flag.reason for flag in own),
            "worst_slice": None if found.worst_slice is None else found.worst_slice + 1,
            **predicted_columns(found.predicted, lost, accept),
        }
    suspicion = to_json(result.score.suspicion)
    return {
        "frame": number,
        "status": worst_status([flag.kind for flag in flags]),
        "suspicion": suspicion,
        "structures": structures,
    }


def error_line(error: str, retry: bool) -> Line:
    """What the journal keeps of an image that couldn't be segmented."""
    return {"status": "error", "frames": [], "notes": [], "error": error, "retry": retry}


def mask_path(name: str) -> Path:
    """Where an image's mask goes, below the folder of results.

    Raises:
      ValueError: a name that leads out of that folder.
    """
    folder, stem = inside(name)
    return "masks" / folder / f"{stem}.nii.gz"


def write_table(path: Path, lines: Iterable[Line], images: Path) -> None:
    """Write `cases.csv` at once: a row per image, frame and structure; undefined is empty."""
    with written_table(path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for line in lines:
            writer.writerows(_rows(line, images))


def _rows(line: Line, images: Path) -> Iterator[list[Any]]:
    path = Path(line["path"])  # that of a DICOM series lies elsewhere
    image = path.relative_to(images).as_posix() if path.is_relative_to(images) else line["name"]
    if line["status"] == "error":
        yield [image, *(None,) * 5, "error", line["error"], *(None,) * (len(COLUMNS) - 8)]
        return
    mask = mask_path(line["name"]).as_posix()
    for frame in line["frames"]:
        for key, found in frame["structures"].items():
            measured = [found[c] for c in ("volume_ml", "pdc", "phd", "flag", "reason", "worst_slice")]
            shared = [frame["suspicion"], mask, "; ".join(line["notes"])]
            yield [
                image,
                frame["frame"],
                key,
                *measured,
                *shared,
                *(found[c] for c in PREDICTED),
                line.get("networks"),
            ]


def cohort(lines: Iterable[Line]) -> dict[str, dict[str, list[float]]]:
    """Values of images by measure and structure, for `quality.drift`; of a cine those of its frame of median volume."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        for key in line["frames"][0]["structures"] if line["frames"] else ():
            frames = sorted((f["structures"][key] for f in line["frames"]), key=lambda v: v["volume_ml"])
            middle = frames[len(frames) // 2]
            for measure in MEASURES:
                if middle[measure] is not None:
                    found.setdefault(measure, {}).setdefault(key, []).append(middle[measure])
    return found


def summarise(entries: Sequence[Entry], lines: Iterable[Line], keys: Sequence[str]) -> dict[str, Any]:
    """Counts of images and per structure of frames, and seconds per image."""
    of_status = counted(entries)
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
    return {
        "images": len(entries),
        "frames": sum(entry.frames for entry in entries),
        "segmented": len(entries) - of_status["errors"],
        **of_status,
        "without_flag": sum(entry.status == "" for entry in entries),
        "decisions": decisions,  # of frames: that of their worst structure
        "structures": counts,
    }
