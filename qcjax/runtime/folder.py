"""The folder of a run: made once, or gone on with; and the subjects of a data set whose files can be used."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from qcjax.config import to_json
from qcjax.runtime import hosts, jax_setup
from qcjax.runtime.files import read_object, write_whole
from qcjax.runtime.lock import HOLDER, LOCK, lock_folder
from qcjax.runtime.progress import say

UNSET_FOR_COMPARISON = (
    "out",
    "devices",
    "versions",
    "stream",
    "on_nonfinite",
    "deterministic",
    "distributed",
    "hosts",
    "rca",
    "rca_subjects",
)  # may differ when a run goes on


@hosts.led
def open_folder(config: Any, folder: Path) -> None:
    """Make the folder with its `config.json`, or go on with what is in it; no other process can from now on.

    A configuration of ours with nothing beside it, as a run leaves whose data couldn't be used, binds no other run.

    Raises:
      FileNotFoundError: no such folder of data; nothing is made then.
      ValueError: the folder belongs to a run with another configuration (says what differs), or another process is at
        work in it (says which), or its `config.json` can't be read.
      OSError: it can't be written to.
    """
    data: Path | None = getattr(config, "data", None)
    if data is not None and not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder found, expected a data set (--data)")
    lock_folder(folder)
    path = folder / "config.json"
    ours = to_json(config) | {"versions": jax_setup.versions()}
    theirs = read_object(path, "the configuration of a run") if path.exists() else None
    if theirs is None or ("versions" in theirs and not _has_results(folder)):
        write_whole(path, json.dumps(ours, indent=2) + "\n")
        say(f"Results go to {folder}")
        return
    differ = _differences(theirs, ours)
    if differ:
        raise ValueError(
            f"{folder}: holds a run with {', '.join(differ)}; choose another --out, or the same options"
        )
    versions = theirs.get("versions")
    for text in _differences({"versions": versions}, {"versions": ours["versions"]}, ()):
        say(f"warning: {folder}: begun with {text}: it may not end with the very same numbers")
    write_whole(path, json.dumps(ours | {"versions": versions or ours["versions"]}, indent=2) + "\n")
    say(f"Going on with {folder}")


def _has_results(folder: Path) -> bool:
    return any(path.name not in ("config.json", LOCK, HOLDER) for path in folder.iterdir())


def _differences(theirs: Any, ours: Any, unset: Collection[str] = UNSET_FOR_COMPARISON) -> list[str]:
    """Every option that isn't the same, e.g. ``supervised.epochs = 3 (now 4)``."""
    a, b = (_flat({k: v for k, v in options.items() if k not in unset}) for options in (theirs, ours))
    there: Any = lambda options, k: options.get(k, "absent")  # noqa: E731
    return [f"{k} = {there(a, k)} (now {there(b, k)})" for k in b | a if there(a, k) != there(b, k)]


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in options.items():
        inner = isinstance(value, dict) and value
        found |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def beside(path: Path | None, folder: Path) -> str:
    """Relative to the run where it lies inside, absolute elsewhere, so that a run can be moved."""
    if path is None:
        return ""
    path = path.resolve()
    return str(path.relative_to(folder.resolve()) if path.is_relative_to(folder.resolve()) else path)
