"""Tables as csv with stable columns: texts, counts, and numbers whose empty field is NaN."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from qcjax.runtime.files import write_whole

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
        frame = pd.DataFrame(rows)
        names = (*self.names, *(column for column in self.optional if column in frame))
        frame = frame.reindex(columns=names)
        for column in self.counts:
            frame[column] = frame[column].fillna(0).astype(int)
        for column in (*self.numbers, *(c for c in self.optional if c in names)):
            frame[column] = frame[column].astype(float)
        write_whole(path, frame.to_csv(index=False, lineterminator="\r\n"))

    def read(self, path: Path) -> list[Row]:
        """Read a table as `write` wrote it; an empty number becomes NaN, an empty count 0.

        Raises:
          ValueError: columns are absent, or a number cannot be read; names file, line and column.
        """
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False).fillna("")
        except ValueError as error:
            raise ValueError(f"{path}: a damaged file ({error}), expected a table") from None
        absent = [column for column in self.names if column not in frame]
        if absent:
            raise ValueError(f"{path}: columns {absent} not found, expected {', '.join(self.names)}")
        frame = frame[[*self.names, *(c for c in self.optional if c in frame)]]
        kinds: dict[str, tuple[str, type]] = {c: ("nan", float) for c in (*self.numbers, *self.optional)}
        kinds |= {column: ("0", int) for column in self.counts}
        for column, (empty, kind) in kinds.items():
            if column in frame:
                frame = frame.assign(**{column: _parsed(frame[column].replace("", empty), kind, path)})
        return records(frame)


def _parsed(texts: pd.Series, kind: type, path: Path) -> list[Any]:
    values = []
    for line, text in enumerate(texts, start=2):
        try:
            values.append(kind(text))
        except ValueError:
            raise ValueError(
                f"{path}, line {line}, column {texts.name}: {text!r} found, expected a number"
            ) from None
    return values


def records(frame: pd.DataFrame) -> list[Row]:
    """The rows of a table one by one."""
    return [{str(column): value for column, value in row.items()} for row in frame.to_dict("records")]


def groups(frame: pd.DataFrame, column: str, order: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """Each value of a text column, in the order of `present`, and its rows."""
    return {value: frame[frame[column] == value] for value in present(frame, column, order)}


def present(rows: Sequence[Row] | pd.DataFrame, column: str, order: Sequence[str] = ()) -> list[str]:
    """The values of a text column, those of `order` first, the others as they come; empty ones left out."""
    values = rows[column] if isinstance(rows, pd.DataFrame) else [row[column] for row in rows]
    found = [value for value in dict.fromkeys(values) if value]
    return [value for value in order if value in found] + [value for value in found if value not in order]
