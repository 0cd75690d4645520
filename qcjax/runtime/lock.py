"""One process at a time in a folder of results."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from qcjax.runtime.progress import say

LOCK = ".lock"
TURN = ".turn"
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_held: dict[Path, int] = {}  # folder -> file descriptor, until the process ends


def lock_folder(folder: Path) -> None:
    """Make the folder and take it for this process until its end, however it ends; taking it twice is once.

    The lock is the kernel's (`flock`) on a file `.lock`, which stays behind and means nothing by itself.

    Raises:
      ValueError: another process has it; says which, where, and since when.
      OSError: the folder can't be made or written to.
    """
    folder = folder.resolve()
    path = folder / LOCK
    if folder in _held:
        if _same_file(_held[folder], path):
            return
        os.close(_held.pop(folder))  # the folder was removed, and made anew
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 4096)
        os.close(descriptor)
        raise ValueError(
            f"{folder}: another run is at work there ({_in_words(holder)}); wait for it, or choose another --out"
        ) from None
    except OSError as error:
        os.close(descriptor)
        if error.errno not in _UNSUPPORTED:
            raise
        say(
            f"warning: {folder}: this file system has no locks, so see to it that no other run uses the folder"
        )
        return
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_holder()).encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise _unwritable(folder, error) from None
    _held[folder] = descriptor


def unlock_folder(folder: Path) -> None:
    """Give back what `lock_folder` took; nothing where it didn't."""
    descriptor = _held.pop(folder.resolve(), None)
    if descriptor is not None:
        os.close(descriptor)


def holder(folder: Path) -> str | None:
    """Which other process has a folder, where, and since when; None where none has, or no one can tell."""
    folder = folder.resolve()
    path = folder / LOCK
    if folder in _held and _same_file(_held[folder], path):
        return None
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who only ask don't meet
    except BlockingIOError:
        return _in_words(os.read(descriptor, 4096))
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)
    return None


@contextmanager
def in_turn(folder: Path) -> Iterator[bool]:
    """Wait until no other process is in here with the same folder, which exists.

    Yields whether that is certain: False, at once, on a file system without locks.
    """
    descriptor = os.open(folder / TURN, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            alone = True
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def _unwritable(folder: Path, error: OSError) -> OSError:
    return OSError(
        f"{folder}: nothing can be written there ({error.strerror}); choose an --out that can be written to"
    )


def _holder() -> dict[str, str | int]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(timespec="seconds"),
    }


def _in_words(holder: bytes) -> str:
    try:
        found = json.loads(holder)
        return f"process {found['process']} on {found['host']}, since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "which one, it doesn't say"


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        ours, there = os.fstat(descriptor), path.stat()
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
