"""What two phases of a subject, or the frames of a cine, say together: volumes, ejection fraction, mass."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcjax.labels import CAVITY, INFARCTION, LV, MYO, NO_REFLOW, RV
from qcjax.metrics.cine import curve_faults, find_phases
from qcjax.metrics.clinical import body_surface_m2
from qcjax.metrics.heartbeat import Ventricle, ventricle
from qcjax.runtime.files import written_table
from qcjax.segmentation.inputs import Pair

LEFT, RIGHT = (LV.key, CAVITY.key), (RV.key,)
WALL = (MYO.key, INFARCTION.key, NO_REFLOW.key)  # of the left ventricle; the right one's isn't segmented
FLAGS = ("erroneous", "suspicious", "implausible")  # the worst first
MEASURES = (
    "edv_ml",
    "edv_low_ml",
    "edv_high_ml",
    "esv_ml",
    "esv_low_ml",
    "esv_high_ml",
    "stroke_volume_ml",
    "ejection_fraction",
    "ejection_fraction_low",
    "ejection_fraction_high",
    "mass_g",
)
INDEXED = ("edv_ml", "esv_ml", "stroke_volume_ml", "mass_g")  # by body surface, in further columns
COLUMNS = (
    "subject",
    "structure",
    *MEASURES,
    "body_surface_m2",
    *(f"{name}_m2" for name in INDEXED),
    "ed",
    "es",
    "flag",
    "reason",
)


@dataclass(frozen=True)
class Phase:
    """One phase as the journal has it, and what it is called."""

    name: str
    frame: Mapping[str, Any]


def subject_rows(
    lines: Iterable[Mapping[str, Any]],
    pairs: Sequence[Pair],
    surfaces_m2: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """A row for each ventricle of each pair of phases and of each cine, whose phases are those of the left ventricle.

    `ed` and `es` name the image, or the frame of a cine counted from 1. `flag` is the worst of both phases' flags, or
    "implausible" where the volumes can't be a heart's; `reason` says why, and which structure isn't there.

    Args:
      surfaces_m2: body surface by subject, where it is known.
    """
    known = surfaces_m2 or {}
    wanted = {name for pair in pairs for name in (pair.ed, pair.es)}
    still: dict[str, Mapping[str, Any]] = {}
    rows = []
    for line in lines:
        if len(line["frames"]) > 1:
            rows += _of_cine(line, known.get(line["name"], math.nan))
        elif line["frames"] and line["name"] in wanted:
            still[line["name"]] = line["frames"][0]
    for pair in pairs:
        if pair.ed in still and pair.es in still:
            phases = Phase(pair.ed, still[pair.ed]), Phase(pair.es, still[pair.es])
            surface_m2 = known.get(pair.subject, math.nan)
            rows += [_row(pair.subject, key, *phases, [], surface_m2) for key in _ventricles(still[pair.ed])]
    return rows


def _ventricles(frame: Mapping[str, Any]) -> list[str]:
    return [key for key in (*LEFT, *RIGHT) if key in frame["structures"]]


def _of_cine(line: Mapping[str, Any], surface_m2: float) -> list[dict[str, Any]]:
    frames, name = line["frames"], line["name"]
    keys = _ventricles(frames[0])
    if not keys:
        return []
    curves = {key: np.array([_volume(f, key) or math.nan for f in frames], float) for key in keys}
    try:
        found = find_phases(curves[keys[0]])
    except ValueError:
        count = np.count_nonzero(np.isfinite(curves[keys[0]]))
        reason = f"no phases: {keys[0].upper()} is in {count} of {len(frames)} frames"
        return [_unknown(name, key, reason, surface_m2) for key in keys]
    ed, es = (Phase(str(t + 1), frames[t]) for t in found)
    return [_row(name, key, ed, es, _faults(curves[key]), surface_m2) for key in keys]


def _faults(curve: np.ndarray) -> list[str]:
    try:
        return curve_faults(curve)
    except ValueError:
        return [f"in {np.count_nonzero(np.isfinite(curve))} of {len(curve)} frames"]


def _volume(frame: Mapping[str, Any], key: str) -> float:
    return float(frame["structures"][key]["volume_ml"])


def _row(
    subject: str, key: str, ed: Phase, es: Phase, faults: Sequence[str], surface_m2: float
) -> dict[str, Any]:
    a, b = ed.frame["structures"][key], es.frame["structures"][key]
    wall = [_volume(ed.frame, k) for k in WALL if k in ed.frame["structures"]] if key in LEFT else []
    found = ventricle(
        a["volume_ml"], b["volume_ml"], sum(wall) if wall else math.nan, a["volumes_ml"], b["volumes_ml"]
    )
    absent = [f"absent from {word}" for word, v in (("ED", a), ("ES", b)) if not v["volume_ml"]]
    if wall and not sum(wall):
        absent.append("no myocardium at ED")
    wrong = [*faults]
    if found.stroke_volume_ml < 0:
        wrong.append("larger at ES than at ED")
    flags = {a["flag"], b["flag"], "erroneous" if absent else "", "implausible" if wrong else ""}
    return {
        "subject": subject,
        "structure": key,
        **_measures(found, surface_m2),
        "ed": ed.name,
        "es": es.name,
        "flag": next((flag for flag in FLAGS if flag in flags), ""),
        "reason": "; ".join([*absent, *wrong]),
    }


def _measures(found: Ventricle, surface_m2: float) -> dict[str, float]:
    edv, esv, fraction = found.edv_ml, found.esv_ml, found.ejection_fraction
    values = [edv.value, edv.low, edv.high, esv.value, esv.low, esv.high, found.stroke_volume_ml]
    values += [fraction.value, fraction.low, fraction.high, found.mass_g]
    row = dict(zip(MEASURES, values, strict=True)) | {"body_surface_m2": surface_m2}
    return row | {f"{name}_m2": row[name] / surface_m2 for name in INDEXED}


def _unknown(subject: str, key: str, reason: str, surface_m2: float) -> dict[str, Any]:
    nothing = dict.fromkeys(COLUMNS, math.nan) | {"body_surface_m2": surface_m2}
    said = {"ed": "", "es": "", "flag": "erroneous", "reason": reason}
    return nothing | {"subject": subject, "structure": key} | said


def write_subjects(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `subjects.csv`; undefined is empty."""
    with written_table(path) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(value) for name, value in row.items()})


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else round(value, 3)


def read_surfaces(path: Path) -> dict[str, float]:
    """Subject -> body surface in m², of a csv with the columns subject, height_cm, weight_kg; empty ones are left out.

    Raises:
      ValueError: a column that is missing, a subject that comes twice, or a height or weight that is none.
    """
    found: dict[str, float] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        absent = {"subject", "height_cm", "weight_kg"} - set(reader.fieldnames or ())
        if absent:
            raise ValueError(
                f"{path}: columns {sorted(absent)} not found; expected subject, height_cm, weight_kg"
            )
        for number, row in enumerate(reader, start=2):
            if not (row["height_cm"] and row["weight_kg"]):
                continue
            if row["subject"] in found:
                raise ValueError(
                    f"{path}, line {number}: found {row['subject']!r} again; expected one row each"
                )
            try:
                found[row["subject"]] = body_surface_m2(float(row["height_cm"]), float(row["weight_kg"]))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return found
