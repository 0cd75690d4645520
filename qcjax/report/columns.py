"""Tables as csv with stable columns: texts, counts, and numbers whose empty field is NaN."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcjax.runtime.files import written_whole

Row = dict[str, Any]  # column -> str, int (counts) or float (numbers; NaN where undefined)


@dataclass(frozen=True)
class Columns:
    """The columns of a table, in their order, and what each holds; those that are neither are texts."""

    names: tuple[str, ...]
    numbers: tuple[str, ...]
    counts: tuple[str, ...]
    identity: tuple[str, ...]  # every row has to bring them
    row_name: str  # for messages
    optional: tuple[str, ...] = ()  # numbers that stand behind the others where any row has them

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """Write a table; what is missing or NaN becomes an empty field.

        Raises:
          ValueError: a row has a column that the table does not know, or lacks one that identifies it.
        """
        for number, row in enumerate(rows):
            unknown = sorted(set(row) - {*self.names, *self.optional})
            lacking = [column for column in self.identity if column not in row]
            if unknown or lacking:
                raise ValueError(
                    f"{self.row_name} {number}: unknown columns {unknown}, columns not given {lacking}"
                )
        names = (*self.names, *(column for column in self.optional if any(column in row for row in rows)))
        with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([self._to_field(column, row.get(column)) for column in names] for row in rows)

    def read(self, path: Path) -> list[Row]:
        """Read a table as `write` wrote it.

        Raises:
          ValueError: columns are absent, or a number cannot be read; names file, line and column.
        """
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            absent = [column for column in self.names if column not in (reader.fieldnames or ())]
            if absent:
                raise ValueError(f"{path}: columns {absent} not found, expected {', '.join(self.names)}")
            names = (*self.names, *(c for c in self.optional if c in (reader.fieldnames or ())))
            return [self._parse(path, line, names, fields) for line, fields in enumerate(reader, start=2)]

    def _to_field(self, column: str, value: Any) -> str:
        if column in self.counts:
            return str(int(value or 0))
        if column in self.numbers or column in self.optional:
            return "" if value is None or math.isnan(value) else repr(float(value))
        return "" if value is None else str(value)

    def _parse(self, path: Path, line: int, names: Sequence[str], fields: dict[str, str]) -> Row:
        row: Row = {}
        for column in names:
            text = fields[column] or ""
            try:
                if column in self.counts:
                    row[column] = int(text or 0)
                elif column in self.numbers or column in self.optional:
                    row[column] = float(text) if text else math.nan
                else:
                    row[column] = text
            except ValueError:
                raise ValueError(
                    f"{path}, line {line}, column {column}: {text!r} found, expected a number"
                ) from None
        return row


def present(rows: Iterable[Row], column: str, order: Sequence[str] = ()) -> list[str]:
    """The values of a text column, those of `order` first, the others as they come; empty ones left out."""
    found = dict.fromkeys(row[column] for row in rows if row[column])
    return [value for value in order if value in found] + [value for value in found if value not in order]
