"""Files that are there whole or not at all: a run that is killed while it writes leaves no half of one."""

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np


def write_whole(path: Path, data: str | bytes) -> None:
    """Write text (UTF-8) or bytes beside the file, then put it in the file's place; makes the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
        os.replace(partial, path)
    except OSError:
        with suppress(OSError):
            partial.unlink()  # on a full disk its half would be in the way of others
        raise


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
