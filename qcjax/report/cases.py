"""The table `cases.csv`: one row per segmenter, view, stage, subject and phase."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from qcjax.labels import CARDIAC

CaseRow = dict[
    str, Any
]  # column -> str, int (`ood`) or float (measures; NaN where undefined or without truth)

STAGES = ("segmenter", "selection", "control", "refined")
STRUCTURES = tuple(structure.key for structure in CARDIAC)


def _per_structure(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.format(key) for key in STRUCTURES)


IDENTITY_COLUMNS = (
    "segmenter",
    "view",
    "stage",
    "subject",
    "phase",
    "part",
    "disease",
    "vendor",
    "candidate",
)
VERDICT_COLUMNS = ("ood", "flag", "reason")
NUMBER_COLUMNS = (
    *_per_structure("pdc_{}"),
    *_per_structure("phd_{}_mm"),
    *_per_structure("dc_{}"),
    *_per_structure("hd_{}_mm"),
    *_per_structure("hd95_{}_mm"),
    *_per_structure("assd_{}_mm"),
    *_per_structure("volume_{}_ml"),
    *_per_structure("truth_volume_{}_ml"),
)
PATH_COLUMNS = ("image_path", "label_path", "prediction_path", "reconstruction_path")
COLUMNS = (*IDENTITY_COLUMNS, *VERDICT_COLUMNS, *NUMBER_COLUMNS, *PATH_COLUMNS)


def has_truth(row: CaseRow) -> bool:
    """Whether the case was scored against ground truth: its Dice is then always defined."""
    return math.isfinite(row["dc_rv"])


def case_name(row: CaseRow) -> str:
    """E.g. ``201_SA_ES``."""
    return f"{row['subject']}_{row['view']}_{row['phase']}"


def present(rows: Iterable[CaseRow], column: str, order: Sequence[str] = ()) -> list[str]:
    """The values of a text column, those of `order` first, the others as they come; empty ones left out."""
    found = dict.fromkeys(row[column] for row in rows if row[column])
    return [value for value in order if value in found] + [value for value in found if value not in order]


def write_cases(path: Path, rows: Sequence[CaseRow]) -> None:
    """Write the table; what is missing or NaN becomes an empty field.

    Raises:
      ValueError: a row has a column that the table does not know, or lacks one that identifies it.
    """
    for number, row in enumerate(rows):
        unknown = sorted(set(row) - set(COLUMNS))
        lacking = [column for column in IDENTITY_COLUMNS if column not in row]
        if unknown or lacking:
            raise ValueError(f"case row {number}: unknown columns {unknown}, columns not given {lacking}")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([_to_field(column, row.get(column)) for column in COLUMNS] for row in rows)


def read_cases(path: Path) -> list[CaseRow]:
    """Read the table as `write_cases` wrote it; an empty number becomes NaN.

    Raises:
      ValueError: columns are absent, or a number cannot be read; names file, line and column.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        absent = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if absent:
            raise ValueError(f"{path}: columns {absent} not found, expected {', '.join(COLUMNS)}")
        return [_parse(path, line, fields) for line, fields in enumerate(reader, start=2)]


def _to_field(column: str, value: Any) -> str:
    if column == "ood":
        return str(int(value or 0))
    if column in NUMBER_COLUMNS:
        return "" if value is None or math.isnan(value) else repr(float(value))
    return "" if value is None else str(value)


def _parse(path: Path, line: int, fields: dict[str, str]) -> CaseRow:
    row: CaseRow = {}
    for column in COLUMNS:
        text = fields[column] or ""
        try:
            if column == "ood":
                row[column] = int(text or 0)
            elif column in NUMBER_COLUMNS:
                row[column] = float(text) if text else math.nan
            else:
                row[column] = text
        except ValueError:
            raise ValueError(
                f"{path}, line {line}, column {column}: {text!r} found, expected a number"
            ) from None
    return row
