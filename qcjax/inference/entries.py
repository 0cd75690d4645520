"""What a journal of cases is asked for: which case stands as it is, which is the most urgent, how many of each kind."""

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcjax.runtime.files import read_object, version_of, write_json
from qcjax.runtime.line_journal import Line, to_json

STATUSES = ("erroneous", "suspicious", "", "error")
ABSENT = (-1, -1)  # size and time of a file that isn't there


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a case's line lies in the journal, and what decides about order and repetition."""

    name: str
    path: str
    size: int  # of the case's file when it was read, in bytes
    mtime_ns: int
    retry: bool  # after an error that need not come again with the same file
    status: str  # one of STATUSES: the worst verdict, or that the case couldn't be judged
    suspicion: float  # the largest of its frames and checks; NaN where nothing was judged
    seconds: float
    frames: int
    offset: int

    @classmethod
    def of(cls, line: Line, suspicion: float, frames: int, offset: int) -> "Entry":
        """The entry of a line that lies at `offset`."""
        names = ("name", "path", "size", "mtime_ns", "retry", "status", "seconds")
        return cls(**{n: line[n] for n in names}, suspicion=suspicion, frames=frames, offset=offset)

    @property
    def urgency(self) -> tuple[int, float, str]:
        """Sorts the erroneous first, then the suspicious, then the others, each by falling suspicion."""
        return STATUSES.index(self.status), -np.nan_to_num(self.suspicion, posinf=math.inf), self.name

    def stands(self, path: Path, outputs: Iterable[Path]) -> bool:
        """Whether it is of the file as it is now, and what the case left is there."""
        if self.path != str(path) or (self.size, self.mtime_ns) != file_version(path):
            return False
        return self.status == "error" or all(output.is_file() for output in outputs)


def worst_status(kinds: Collection[str]) -> str:
    """The worst of some flags' kinds, or of some statuses; "" without any."""
    return next((status for status in STATUSES if status in kinds), "")


def file_version(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns; `ABSENT` where there is no file."""
    found = version_of(path)
    return ABSENT if found is None else (found[0], found[1])


def inside(name: str) -> tuple[Path, str]:
    """Folder and last part of a case's name, by which its results are stored.

    Raises:
      ValueError: a name that leads out of the folder of results.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise ValueError(f"name {name!r} found, expected one that stays inside of the output folder")
    return Path(*parts[:-1]), parts[-1]


def counted(entries: Sequence[Entry]) -> dict[str, Any]:
    """How many cases have each status, and the seconds that a case took."""
    status = [entry.status for entry in entries]
    seconds = np.array([entry.seconds for entry in entries if entry.status != "error"])
    median, p95 = np.quantile(seconds, (0.5, 0.95)).tolist() if len(seconds) else (None, None)
    return {
        "errors": status.count("error"),
        "erroneous": status.count("erroneous"),
        "suspicious": status.count("suspicious"),
        "seconds_median": median,
        "seconds_p95": p95,
    }


def keep_settings(path: Path, settings: Mapping[str, Any], movable: str, what: str) -> None:
    """Keep the settings of a folder of results; those that are there already have to be the same.

    Args:
      path: their file.
      movable: the one that may differ when a run goes on: the same model in another place.
      what: the folder holds, for the message.

    Raises:
      ValueError: other settings are there (says which), or a damaged file.
    """
    ours = strict(settings)
    theirs = strict(read_object(path, f"the settings of these {what}")) if path.exists() else {}
    keys = [k for k in ours if k != movable and ours[k] != theirs.get(k)] if theirs else []
    if keys:
        found = ", ".join(f"{k} = {theirs.get(k)} (now {ours[k]})" for k in keys)
        raise ValueError(
            f"{path.parent}: holds {what} with {found}; choose another --out, or the same options"
        )
    if theirs != ours:
        write_json(path, ours)


def strict(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As every JSON parser reads them: infinite limits as text."""
    return {k: to_json(v) if isinstance(v, float) else v for k, v in settings.items()}


def sha256(folder: Path, names: Iterable[str]) -> str:
    """The SHA-256 of some files of a folder, one after the other."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
