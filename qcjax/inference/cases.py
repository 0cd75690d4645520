"""Many cases, each a file: reading, networks, judging and writing overlap, in bounded memory.

A case that fails, for whatever reason and in whichever stage, becomes a line with its error, and the others go on.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from qcjax.data.findings import InvalidFile
from qcjax.inference.entries import file_version
from qcjax.runtime.line_journal import Line
from qcjax.runtime.pipeline import in_stages


class File(Protocol):
    """What a case is read from."""

    @property
    def name(self) -> str:
        """What names the case."""

    @property
    def path(self) -> Path:
        """Where the file is."""


F = TypeVar("F", bound=File)
P = TypeVar("P")  # a case read and prepared
R = TypeVar("R")  # what the networks make of it


@dataclass(frozen=True)
class CaseStages(Generic[F, P, R]):
    """The functions that a case goes through; what one of them raises is told in the case's line."""

    # the case's name -> its results' files; ValueError for a name that leads out of the folder
    outputs: Callable[[str], Sequence[Path]]
    read: Callable[[F], P]
    compute: Callable[[Sequence[P]], Sequence[R]]  # of some cases at once
    judge: Callable[[F, P, R], Line]  # writes the results' files, too
    # the error in words, and whether the same file may do better the next time -> the case's line
    error: Callable[[str, bool], Line]


@dataclass(frozen=True)
class _Case(Generic[F, P]):
    file: F
    version: tuple[int, int]
    seconds: float
    found: P | None = None
    error: Line | None = None


class CaseStream(Generic[F, P, R]):
    """The lines of cases, one after the other, through given stages."""

    def __init__(self, stages: CaseStages[F, P, R], group: int, size: Callable[[P], int], ahead: int) -> None:
        """A stream that hasn't begun.

        Args:
          group: how much is computed at once: cases until their sizes add up to this.
          size: of a case that was read.
          ahead: how many cases more than threads are read in advance.
        """
        self.stages, self.group, self.size, self.ahead = stages, group, size, ahead

    def lines(self, files: Iterable[F]) -> Iterator[Line]:
        """The cases' lines in order: name, path, size and mtime_ns of the file, seconds, and what `judge` gives."""
        return in_stages(files, self._read, self._computed, self._finish, self.group, self._size, self.ahead)

    def _size(self, case: _Case[F, P]) -> int:
        return 1 if case.found is None else max(1, self.size(case.found))

    def _read(self, file: F) -> _Case[F, P]:
        started, version = time.monotonic(), file_version(file.path)
        try:
            self.stages.outputs(file.name)
            found = self.stages.read(file)
            return _Case(file, version, time.monotonic() - started, found)
        except Exception as error:  # whatever is wrong with one case, the others go on
            return _Case(file, version, time.monotonic() - started, error=self._failed(error))

    def _computed(
        self, group: Sequence[_Case[F, P]]
    ) -> Iterator[tuple[_Case[F, P], tuple[R | Line | None, float]]]:
        """Each case with what the networks make of it, or the line that says why there is nothing; and its seconds."""
        started = time.monotonic()
        usable = [case for case in group if case.found is not None]
        results = iter(self._results([case.found for case in usable if case.found is not None]))
        seconds = (time.monotonic() - started) / max(1, sum(map(self._size, usable)))
        for case in group:
            yield case, (None, 0.0) if case.found is None else (next(results), seconds * self._size(case))

    def _results(self, found: Sequence[P]) -> Sequence[R | Line]:
        if not found:
            return []
        try:
            return self.stages.compute(found)
        except Exception as error:
            # of a group one at a time: the fault of one is no fault of the others
            if len(found) == 1:
                return [self._failed(error)]
            return [result for one in found for result in self._results([one])]

    def _finish(self, case: _Case[F, P], computed: tuple[R | Line | None, float]) -> Line:
        """The host's part after the networks: judge and write, or take away what an earlier run left."""
        started, (result, seconds) = time.monotonic(), computed
        line = result if isinstance(result, dict) else case.error
        if line is None:
            try:
                line = self.stages.judge(case.file, case.found, result)  # type: ignore[arg-type]
            except Exception as error:
                line = self._failed(error)
        return self._whole(case, line, case.seconds + seconds + time.monotonic() - started)

    def lost(self, file: F, why: str) -> Line:
        """The line of a case that no process came to the end of; what an earlier run left of it is taken away."""
        return self._whole(_Case(file, file_version(file.path), 0.0), self.stages.error(why, True), 0.0)

    def _whole(self, case: _Case[F, P], line: Line, seconds: float) -> Line:
        if line["status"] == "error":
            with suppress(OSError, ValueError):  # a name that is refused has none
                for path in self.stages.outputs(case.file.name):
                    path.unlink(missing_ok=True)
        return {
            "name": case.file.name,
            "path": str(case.file.path),
            "size": case.version[0],
            "mtime_ns": case.version[1],
            "seconds": round(seconds, 4),
            **line,
        }

    def _failed(self, error: Exception) -> Line:
        """The error in words; its traceback would keep the case alive. An invalid file is no better the next time."""
        return self.stages.error(in_words(error), not isinstance(error, InvalidFile))


def in_words(error: Exception) -> str:
    """What was found and expected in a file that can't be used, or the error by its name."""
    if isinstance(error, InvalidFile):
        return f"found {error.found}; expected {error.expected}"
    return f"{type(error).__name__}: {error}"
