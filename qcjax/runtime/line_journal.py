"""A journal of JSON lines, one for each thing done, by which a run that was stopped goes on."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

Line = dict[str, Any]
E = TypeVar("E")


class LineJournal(Generic[E]):
    """Only an entry of each line stays in memory; the last line of a key counts, one that a kill cut short doesn't."""

    def __init__(self, path: Path, entry: Callable[[Line, int], tuple[str, E]]) -> None:
        """Read what is there, and make the file if need be.

        Args:
          entry: (line, where it begins in the file) -> its key and entry; a ValueError, KeyError or TypeError of it
            means a damaged line, which doesn't count.
        """
        self.path, self._entry = path, entry
        self.entries: dict[str, E] = {}
        path.touch()
        end = 0
        with path.open("r+b") as file:
            for text in file:
                if not text.endswith(b"\n"):
                    file.truncate(end)
                    break
                with suppress(ValueError, KeyError, TypeError):
                    self._note(json.loads(text), end)
                end += len(text)
        self.end = end  # in bytes

    def append(self, *lines: Line) -> None:
        """Add lines; they are with the operating system when this returns."""
        with self.path.open("ab") as file:
            for line in lines:
                text = json.dumps(line).encode() + b"\n"
                file.write(text)
                self._note(line, self.end)
                self.end += len(text)

    def lines(self, offsets: Iterable[int]) -> Iterator[Line]:
        """The lines that begin at some places, in their order."""
        with self.path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield json.loads(file.readline())

    def _note(self, line: Line, offset: int) -> None:
        key, entry = self._entry(line, offset)
        self.entries[key] = entry


def to_json(value: float) -> float | str | None:
    """A number for a JSON file or a table: NaN is None, infinity "inf"."""
    value = float(value)
    return round(value, 6) if math.isfinite(value) else None if math.isnan(value) else str(value)


def from_json(value: float | str | None) -> float:
    """The inverse of `to_json`."""
    return math.nan if value is None else float(value)
