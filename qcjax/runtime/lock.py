"""One process at a time in a folder of results."""

import errno
import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from qcjax.runtime.progress import say

LOCK, HOLDER = ".lock", ".holder"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class _Held(NamedTuple):
    lock: FileLock
    identity: tuple[int, int]  # device and inode of its file


_held: dict[Path, _Held] = {}  # by folder, until the process ends


def lock_folder(folder: Path) -> None:
    """Make the folder and take it for this process until its end, however it ends; taking it twice is once.

    The lock is the kernel's, on a file `.lock` that stays behind and means nothing by itself; `.holder` beside it says
    who had it last.

    Raises:
      ValueError: another process has it; says which, where, and since when.
      OSError: the folder can't be made or written to.
    """
    folder = folder.resolve()
    path = folder / LOCK
    if folder in _held:
        if _held[folder].identity == _identity(path):
            return
        _held.pop(folder).lock.release(force=True)  # the folder was removed, and made anew
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquired(path)
        if lock is None:
            say(
                f"warning: {folder}: this file system has no locks, so see to it that no other run uses the folder"
            )
            return
        _sign(folder, lock)
    except Timeout:
        raise ValueError(
            f"{folder}: another run is at work there ({_who(folder)}); wait for it, or choose another --out"
        ) from None
    except OSError as error:
        raise OSError(
            f"{folder}: nothing can be written there ({error.strerror}); choose an --out that can be written to"
        ) from None
    _held[folder] = _Held(lock, _identity(path))


def _acquired(path: Path) -> FileLock | None:
    """A lock on a file, which is made; None on a file system without locks. Raises Timeout where another has it."""
    lock = FileLock(path, 0, thread_local=False, poll_interval=0.02, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
            raise
        return None
    return lock


def _sign(folder: Path, lock: FileLock) -> None:
    since = datetime.now().isoformat(timespec="seconds")
    this_process = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
    try:
        (folder / HOLDER).write_text(json.dumps(this_process))
    except OSError:
        lock.release()
        raise


def _who(folder: Path) -> str:
    try:
        found = json.loads((folder / HOLDER).read_bytes())
        return f"process {found['process']} on {found['host']}, since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "which one, it doesn't say"


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode; no file has those of a lock that is held, and none at all those of a missing file."""
    try:
        found = path.stat()
    except OSError:
        return (-1, -1)
    return found.st_dev, found.st_ino
