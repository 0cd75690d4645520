"""Files of named arrays (safetensors) that show when they were damaged."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from qcjax.runtime.files import write_whole

_CHECKSUM = "crc32"  # in the file's metadata; the format has none of its own


def write_arrays(path: Path, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Write arrays by name, with their checksum; the file is there whole or not at all."""
    ordered = {name: np.asarray(x, order="C") for name, x in arrays.items()}
    write_whole(path, save(ordered, {_CHECKSUM: _checksum(ordered)}))


def read_arrays(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The arrays that `write_arrays` left in a file, by name; nothing in it is executed.

    Raises:
      OSError: the file can't be read.
      ValueError: it is no safetensors file, a damaged one, or somebody else's, which has no checksum.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error} found, expected a safetensors file written by qcjax") from None
    found, expected = _checksum(arrays), metadata.get(_CHECKSUM)
    if expected is None:
        raise ValueError(f"{path}: arrays without a checksum found, expected a file written by qcjax")
    if found != expected:
        raise ValueError(f"{path}: a damaged file: checksum {found} found, expected {expected}")
    return arrays


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    value = 0
    for name in sorted(arrays):
        x = arrays[name]
        value = zlib.crc32(json.dumps([name, str(x.dtype), x.shape]).encode(), value)
        value = zlib.crc32(x.tobytes(), value)
    return f"{value:08x}"
