"""Cases spread over the workers of a Dask cluster: paths go out, JSON lines come back, and nobody else keeps a journal.

What a worker had in hand when it died is given to others; a case that keeps killing them is told as lost.
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from qcjax.runtime.line_journal import Line
from qcjax.runtime.progress import say

TASK = 8  # cases that a worker takes at once
AHEAD = 2  # tasks in flight for each thread of the workers; so many lines at most wait in this process
PATIENCE_SECONDS = 5.0  # after which workers are counted again, which may have come meanwhile
T = TypeVar("T")
Work = Callable[[Line, Sequence[Line]], list[Line]]  # (job, cases) -> a line of each, in their order


@dataclass(frozen=True)
class Cluster:
    """Where cases are worked on: so many processes of this machine, or the workers of a scheduler.

    Raises ValueError for both or neither of them, and for less than one process.
    """

    workers: int | None = None
    scheduler: str | None = None  # such as tcp://host:8786

    def __post_init__(self) -> None:
        if (self.workers is None) == (self.scheduler is None):
            found = "neither" if self.workers is None else "both"
            raise ValueError(f"{found} --workers and --scheduler found, expected one of them")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers: {self.workers} found, expected at least 1")


def cluster_of(workers: int | None, scheduler: str | None) -> Cluster | None:
    """Where the options say that cases are worked on; None: in this process. Raises ValueError as `Cluster`."""
    return None if workers is None and scheduler is None else Cluster(workers, scheduler)


def spread(
    cluster: Cluster, work: Work, job: Line, cases: Iterable[Line], lost: Callable[[Line, str], Line]
) -> Iterator[Line]:
    """The cases' lines as they come, each case's once; memory doesn't grow with the number of cases.

    Args:
      work: a function of a module that the workers can import, and that may be called again for the same cases.
      job: what all cases have in common, in JSON's types.
      cases: likewise, each by itself.
      lost: (case, why) -> the line of a case whose workers died every time.

    Raises:
      ImportError: Dask isn't installed.
      OSError: no scheduler is there, or it went away.
      Exception: whatever `work` raises.
    """
    distributed = _dask()
    waiting = iter(cases)
    suspects: deque[Line] = deque()  # one of them may be what kills workers
    running: dict[Any, list[Line]] = {}
    alone = told = False
    with _client(cluster) as client:
        while True:
            threads = sum(client.nthreads().values())  # workers come and go
            while len(running) < AHEAD * max(1, threads) and (task := list(islice(waiting, TASK))):
                running[client.submit(work, job, task, pure=False)] = task
            if not running:
                if not suspects:
                    return
                # what waits at a worker that dies is suspected, too; so nothing else is in flight
                alone, task = True, [suspects.popleft()]
                running[client.submit(work, job, task, pure=False)] = task
            ended = _ended(client, list(running))
            if not (ended or threads or told):
                say(f"Waiting for workers at {client.scheduler.address}")
                told = True
            for future in ended:
                task = running.pop(future)
                error = future.exception() if future.status == "error" else None
                if not isinstance(error, distributed.KilledWorker):
                    yield from future.result()
                elif alone:
                    times = error.allowed_failures + 1
                    yield lost(task[0], f"each process that worked on it died, {times} times")
                else:
                    suspects.extend(task)


def _ended(client: Any, running: Sequence[Any]) -> Iterable[Any]:
    """Those tasks that have ended, once there are some; none where that takes long."""
    distributed = _dask()
    try:
        ended: Iterable[Any] = distributed.wait(
            running, timeout=PATIENCE_SECONDS, return_when="FIRST_COMPLETED"
        ).done
        return ended
    except TimeoutError:
        return ()
    except distributed.client.FuturesCancelledError as error:
        raise ConnectionError(
            f"the scheduler at {client.scheduler.address} went away; started again, it goes on"
        ) from error


@contextmanager
def _client(cluster: Cluster) -> Iterator[Any]:
    distributed = _dask()
    if cluster.scheduler is not None:
        try:
            client = distributed.Client(cluster.scheduler)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise ConnectionError(f"--scheduler: {cluster.scheduler} not reached: {error}") from error
        with client:
            yield client
        return
    with (
        distributed.LocalCluster(
            n_workers=cluster.workers,
            threads_per_worker=1,  # each has threads of its own for files
            memory_limit=0,  # pausing and killing by size is for the system
            dashboard_address="127.0.0.1:0",  # any port: there may be others
            silence_logs=logging.CRITICAL,  # a worker that died is started again, its cases are done by others
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


def _dask() -> Any:
    """Raises ImportError, in a sentence, where Dask isn't installed."""
    try:
        import distributed
    except ImportError as error:
        raise ImportError(
            f"{error}; --workers and --scheduler need the extra: pip install 'qcjax[cluster]'"
        ) from error
    return distributed


_opened: dict[str, Any] = {}
_opening = threading.Lock()


def kept_open(job: Line, make: Callable[[Line], T]) -> T:
    """What a worker makes of a job, such as a loaded model: made once, and kept until it gets another job."""
    key = json.dumps(job, sort_keys=True)
    with _opening:
        if key not in _opened:
            _opened.clear()
            _opened[key] = make(job)
        found: T = _opened[key]
        return found
