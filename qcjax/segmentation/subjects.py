"""What two phases of a subject, or the frames of a cine, say together: volumes and ejection fraction."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qcjax.labels import LV, RV
from qcjax.metrics.cine import curve_faults, find_phases
from qcjax.metrics.clinical import ejection_fraction
from qcjax.segmentation.inputs import Pair

VENTRICLES = (LV.key, RV.key, "cavity")
COLUMNS = ("subject", "structure", "edv_ml", "esv_ml", "ejection_fraction", "ed", "es", "flag", "faults")


def subject_rows(lines: Iterable[Mapping[str, Any]], pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """A row for each ventricle of each pair of phases and of each cine, whose phases are those of the LV.

    `ed` and `es` name the image, or the frame of a cine counted from 1; `flag` is the worst of both; `faults` is what
    is wrong with the curve of a cine's volumes.
    """
    wanted = {name for pair in pairs for name in (pair.ed, pair.es)}
    still: dict[str, Mapping[str, Any]] = {}
    rows = []
    for line in lines:
        if len(line["frames"]) > 1:
            rows += _of_cine(line)
        elif line["frames"] and line["name"] in wanted:
            still[line["name"]] = line["frames"][0]
    for pair in pairs:
        if pair.ed in still and pair.es in still:
            rows += _rows(pair.subject, still[pair.ed], still[pair.es], pair.ed, pair.es)
    return rows


def _of_cine(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    frames = line["frames"]
    keys = [key for key in VENTRICLES if key in frames[0]["structures"]]
    if not keys:
        return []
    curves = {key: np.array([f["structures"][key]["volume_ml"] for f in frames], float) for key in keys}
    ed, es = find_phases(curves[keys[0]])
    rows = _rows(line["name"], frames[ed], frames[es], str(ed + 1), str(es + 1))
    return [row | {"faults": "; ".join(curve_faults(curves[row["structure"]]))} for row in rows]


def _rows(
    subject: str, ed: Mapping[str, Any], es: Mapping[str, Any], ed_name: str, es_name: str
) -> list[dict[str, Any]]:
    rows = []
    for key in VENTRICLES:
        if key not in ed["structures"]:
            continue
        a, b = ed["structures"][key], es["structures"][key]
        flags = {a["flag"], b["flag"]}
        rows.append(
            {
                "subject": subject,
                "structure": key,
                "edv_ml": a["volume_ml"],
                "esv_ml": b["volume_ml"],
                "ejection_fraction": ejection_fraction(a["volume_ml"], b["volume_ml"]),
                "ed": ed_name,
                "es": es_name,
                "flag": next((kind for kind in ("erroneous", "suspicious") if kind in flags), ""),
                "faults": "",
            }
        )
    return rows


def write_subjects(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `subjects.csv`; undefined is empty."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            value = row["ejection_fraction"]
            writer.writerow({**row, "ejection_fraction": "" if value != value else round(value, 2)})
    os.replace(partial, path)
