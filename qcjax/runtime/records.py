"""What a run has finished, as JSON files that show when they were damaged."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qcjax.runtime.files import write_whole
from qcjax.runtime.progress import say


def write_record(path: Path, record: Any) -> None:
    """Write plain values with their checksum."""
    text = json.dumps(record)
    write_whole(path, json.dumps({"crc32": zlib.crc32(text.encode()), "record": record}) + "\n")


def kept_record(
    path: Path, make: Callable[[], Any], fits: Callable[[Any], bool] = lambda record: True
) -> Any:
    """The record at a path, made and written where an earlier start hasn't or its record doesn't fit any more.

    It is as it is read back either way.
    """
    if (record := read_record(path)) is None or not fits(record):
        write_record(path, make())
        record = read_record(path)
    return record


def read_record(path: Path) -> Any:
    """What `write_record` wrote; None where there is nothing, or, with a warning, where it was damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = json.loads(data.decode("utf-8"))
        if zlib.crc32(json.dumps(found["record"]).encode()) == found["crc32"]:
            return found["record"]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    say(f"warning: {path}: a damaged file; what it stood for is done again")
    return None
