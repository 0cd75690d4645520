"""Being told to stop: SIGTERM, SIGUSR1 and Ctrl-C end a run where the next start can take it up.

While the device works on training steps a stop waits for the running one (`postponed`), whose state is then saved;
anywhere else it takes effect at once, for what is half done there is done again by the next start. Of several
processes that make one run (`hosts`), none stops before all know.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

REQUEUE = 75
"""Exit code after SIGTERM or SIGUSR1: EX_TEMPFAIL of sysexits.h, "the user is invited to retry"."""

REQUEUE_VARIABLE = "QCJAX_REQUEUE_EXIT_CODE"
"""Environment variable with another code for schedulers that have one of their own (Grid Engine 99, HTCondor 85)."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

_asked: int | None = None  # the signal that came
_postponed = 0  # how many `postponed` there are around what runs now
_coordinated = False  # whether a stop waits until all processes of the run know of it
_immediate = 0  # how many `immediate` there are around what runs now
_stopping = False  # whether that has happened, so that what has yet to be saved is not stopped again


class Stopped(BaseException):
    """A signal asked the process to stop; no `except Exception` on the way takes it for a fault."""

    def __init__(self, signum: int, place: str = "") -> None:
        super().__init__(signum, place)
        self.signum, self.place = signum, place

    def __str__(self) -> str:
        where = f" {self.place}" if self.place else ""
        return f"stopped by {signal.Signals(self.signum).name}{where}; started again with the same options, it goes on"

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, which nobody wants to be started again by itself; else what makes schedulers do that."""
        if self.signum == signal.SIGINT:
            return 128 + signal.SIGINT
        return requeue_code()


def requeue_code() -> int:
    """The exit code that stands for "start me again".

    Raises ValueError where the environment variable holds no exit code.
    """
    text = os.environ.get(REQUEUE_VARIABLE, str(REQUEUE))
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 255:
        raise ValueError(f"{REQUEUE_VARIABLE}: {text!r} found, expected an exit code from 1 to 255")
    return int(text)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it, the signals raise `Stopped`; a thread other than the main one can't receive any.

    Raises ValueError where the environment variable for the exit code holds none.
    """
    global _asked, _stopping
    requeue_code()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    _asked, _stopping = None, False
    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, _handle)
        yield
    finally:
        for signum, handler in before.items():
            with suppress(TypeError):  # a handler that wasn't set from Python can't be put back
                signal.signal(signum, handler)
        _asked, _stopping = None, False


@contextmanager
def postponed() -> Iterator[None]:
    """Within it a stop only leaves its mark (`asked`); a second Ctrl-C doesn't wait."""
    global _postponed
    _postponed += 1
    try:
        yield
    finally:
        _postponed -= 1


def asked() -> int | None:
    """The signal that asked for a stop, if one did."""
    return _asked


def check() -> None:
    """Raises Stopped where a stop was asked for and has not begun."""
    if _asked is not None and not _postponed and (not _coordinated or (_immediate and not _stopping)):
        raise Stopped(_asked)


@contextmanager
def immediate() -> Iterator[None]:
    """Within it, `check` raises even where a stop is for several processes: the caller tells the others of it."""
    global _immediate
    _immediate += 1
    try:
        yield
    finally:
        _immediate -= 1


def coordinate(several: bool) -> None:
    """Whether this process is one of several that must stop at the same place: from now on a stop only leaves its
    mark, until all of them know of it and `raise_stop`."""
    global _coordinated
    _coordinated = several


def raise_stop(signum: int | None) -> None:
    """Raises Stopped, once, where there is a signal, of this process or of another of the run, and it can be now."""
    if signum and not _stopping and not _postponed:
        begin_stopping()
        raise Stopped(signum)


def pending() -> bool:
    """Whether this process was asked to stop, and the processes of the run have yet to know of it, and can."""
    return _asked is not None and not _stopping and not _postponed


def stopping() -> bool:
    """Whether the processes of the run have begun to stop, and are saving what is to be kept."""
    return _stopping


def begin_stopping() -> None:
    """Begin to stop: what all processes of the run do together from now on is done to its end."""
    global _stopping
    _stopping = True


def _handle(signum: int, frame: FrameType | None) -> None:
    global _asked
    again = _asked is not None
    _asked = signum if _asked is None else _asked
    if again:
        # schedulers repeat themselves; what is being saved is for a person's second Ctrl-C alone to break off
        if signum == signal.SIGINT:
            raise Stopped(_asked)
    elif not (_postponed or _coordinated):
        raise Stopped(_asked)
