"""Timing of contestants that take turns, and the rows that come of it."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

OURS, THEIRS = "qcjax", "PyTorch"
PAUSE_S = 0.2  # idle threads of the one before stop spinning


@dataclass(frozen=True)
class Contestant:
    """Something to be timed; `run` returns when its work is done."""

    run: Callable[[], Any]
    prepare: Callable[[], Any] = lambda: None  # before every run, not timed
    compile_s: float | None = None


@dataclass(frozen=True)
class Measured:
    """Repeated measurements of one contestant, in the row's unit."""

    values: tuple[float, ...]
    compile_s: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Row:
    """One line of the table: the same work, done by each contestant."""

    name: str
    work: str  # for people: how much, of what
    unit: str
    measured: Mapping[str, Measured]
    goal: float | None = None  # of the ratio
    note: str = ""
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Theirs over ours: above 1, ours is faster or smaller. None without the other side."""
        if OURS not in self.measured or THEIRS not in self.measured:
            return None
        return self.measured[THEIRS].median / self.measured[OURS].median


def alternate(
    contestants: Mapping[str, Contestant], repeats: int, warm_up: int = 1, share: float = 1.0
) -> dict[str, Measured]:
    """Let contestants take turns, after warm-up rounds.

    Args:
      repeats: rounds that count.
      share: what a run's time is multiplied by, such as one over the number of slices.

    Returns:
      Seconds per run, times `share`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warm_up + repeats):
        for name, contestant in contestants.items():
            contestant.prepare()
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            contestant.run()
            elapsed = time.perf_counter() - started
            if turn >= warm_up:
                seconds[name].append(elapsed * share)
    return {name: Measured(tuple(s), contestants[name].compile_s) for name, s in seconds.items()}
