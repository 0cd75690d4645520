"""Files that are there whole or not at all: a run that is killed while it writes leaves no half of one."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np


def write_whole(path: Path, data: str | bytes) -> None:
    """Write text (UTF-8) or bytes beside the file, then put it in the file's place; makes the folder if need be.

    Raises OSError, which names the file; what was there before stands.
    """
    with written_whole(path) as partial:
        partial.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, as `write_whole` does."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write a file to, which takes the place of `path` at the end; an error leaves what was there before.

    Raises OSError, which names the file, as that of a full disk doesn't by itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()  # on a full disk its half would be in the way of others
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def written_table(path: Path) -> Iterator[TextIO]:
    """A file for `csv` to write to, whole or not at all as `written_whole`; names of files that aren't text stay."""
    with (
        written_whole(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        yield file


def version_of(path: Path) -> list[int] | None:
    """Size in bytes and time of the last change in ns, so another one when the file is; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file, `what` in words for messages.

    Raises:
      OSError: it can't be read.
      ValueError: it is damaged, or holds no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: a damaged file ({error}), expected {what}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: {type(found).__name__} found, expected {what}")
    return found


def without_nan(value: Any) -> Any:
    """The same nested dictionaries and lists with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
