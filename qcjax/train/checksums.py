"""What makes damage to a checkpoint show: checksums of its arrays and of what is saved beside them."""

import json
import zlib
from typing import Any

import jax
import numpy as np

from qcjax.runtime.messages import sendable

CHECKS = "checks"  # key of the checksums in what is saved beside the arrays


@sendable
class DamagedCheckpoint(ValueError):
    """A checkpoint that can't be read, or whose contents aren't what was saved."""


def shapes_of(tree: Any) -> dict[str, str]:
    """Path of each array -> its shape and type, in words."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _shape(x) for path, x in leaves}


def differences(theirs: dict[str, str], ours: dict[str, str], most: int = 3) -> str:
    """How two sets of arrays differ, e.g. ``params/w of (2, 3) float32 (now (2, 4) float32)``."""
    found = [
        f"{name} of {theirs.get(name, 'no shape: it is absent')} (now {ours.get(name, 'absent')})"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def with_checksums(record: dict[str, Any], items: dict[str, Any]) -> dict[str, Any]:
    """A record with the checksums of itself and of trees of host arrays that are saved beside it."""
    arrays = {name: {"crc32": _crc32(tree), "shapes": shapes_of(tree)} for name, tree in items.items()}
    return record | {CHECKS: {"record": _of_record(record), "items": _of_record(arrays), "arrays": arrays}}


def verified(record: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The record, and what to hold its arrays against.

    Raises DamagedCheckpoint where it isn't what `with_checksums` gave.
    """
    try:
        checks = record[CHECKS]
        record = {k: v for k, v in record.items() if k != CHECKS}
        sound = checks["record"] == _of_record(record) and checks["items"] == _of_record(checks["arrays"])
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise DamagedCheckpoint("what is saved beside the arrays was changed")
    return record, checks["arrays"]


def verify(tree: Any, arrays: dict[str, Any]) -> None:
    """Raises DamagedCheckpoint where a restored tree isn't the one that was saved."""
    if _crc32(tree) != arrays["crc32"]:
        raise DamagedCheckpoint("its arrays aren't those that were saved")


def _crc32(tree: Any) -> int:
    value = 0
    for leaf in jax.tree.leaves(tree):
        value = zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).reshape(-1).data, value)
    return value


def _of_record(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _shape(x: Any) -> str:
    return f"{tuple(np.shape(x))} {x.dtype if hasattr(x, 'dtype') else np.asarray(x).dtype}"
