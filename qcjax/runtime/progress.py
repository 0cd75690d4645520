"""What a person sees while something long runs: a bar with the time left, or plain lines where there is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from qcjax.runtime import hosts, stops

console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line of plain text, as it is; of several processes the lead says it."""
    if hosts.leads():
        console.print(text, markup=False)


@contextmanager
def bar(title: str, total: int, closing_line: bool = True) -> Iterator[Callable[[], None]]:
    """A progress bar; call what it yields once per unit done. Without a terminal: one line at the end, if wanted."""
    started = time.monotonic()
    if console.is_terminal and hosts.leads():
        columns: tuple[Any, ...] = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(title, total=total)

            def advance() -> None:
                progress.advance(task)
                stops.check()

            yield advance
    else:
        yield stops.check
    if closing_line:
        say(f"{title}: {total} in {time.monotonic() - started:.1f} s")


def done_at(seconds_left: float) -> str:
    """E.g. ``done about 14:05 (in 3 min)``."""
    when = datetime.now() + timedelta(seconds=seconds_left)
    left = f"{seconds_left:.0f} s" if seconds_left < 90 else f"{seconds_left / 60:.0f} min"
    return f"done about {when:%H:%M} (in {left})"
