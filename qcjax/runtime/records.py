"""What a run has finished, as JSON files that show when they were damaged; and arrays from files that may lie."""

import errno
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

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


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name; nothing is unpickled, nor allocated on the word of a header.

    Raises:
      OSError: no such file.
      ValueError: no .npz file of arrays, or a damaged one.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as file:
            for entry in file.infolist():
                with file.open(entry) as stream:
                    data = stream.read(entry.file_size)  # zipfile holds it against its checksum
                    if len(data) != entry.file_size or stream.read(1):
                        raise ValueError(f"{entry.filename}: another size than {entry.file_size} bytes")
                arrays[entry.filename.removesuffix(".npy")] = _array(entry.filename, data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is a place outside the file
            raise
        raise ValueError(f"{path.name}: a damaged file ({error})") from None
    return arrays


def _array(name: str, data: bytes) -> np.ndarray:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = readers[version](stream)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{name}: no array ({error})") from None
    count = int(np.prod(shape, dtype=object))
    if dtype.hasobject or min(shape, default=1) < 0 or count * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(
            f"{name}: {len(data)} bytes and a header of {shape} {dtype}, expected as many as it says"
        )
    return (
        np.frombuffer(data, dtype, count, stream.tell()).reshape(shape, order="F" if fortran else "C").copy()
    )
