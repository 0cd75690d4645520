"""Items in three stages: read by threads, computed in groups by this one, finished by threads; in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


def in_stages(
    items: Iterable[A],
    read: Callable[[A], B],
    compute: Callable[[Sequence[B]], Iterable[tuple[B, C]]],
    finish: Callable[[B, C], D],
    group: int,
    size: Callable[[B], int] = lambda item: 1,
    ahead: int = 1,
) -> Iterator[D]:
    """What `finish` gives for each item, in their order; the stages of different items overlap.

    Args:
      compute: of some items that were read -> each of them with its result.
      group: how much is computed at once: items until their sizes add up to this.
      size: of an item that was read.
      ahead: how many items more than threads are read in advance.
    """
    workers = max(2, min(16, os.cpu_count() or 2))
    waiting = iter(items)
    reading: deque[Future[B]] = deque()
    finishing: deque[Future[D]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            found: list[B] = []
            while sum(map(size, found)) < group:
                for item in islice(waiting, workers + ahead - len(reading)):
                    reading.append(pool.submit(read, item))
                if not reading:
                    break
                found.append(reading.popleft().result())
            if not found:
                break
            for item_read, result in compute(found):
                finishing.append(pool.submit(finish, item_read, result))
            found.clear()
            while len(finishing) > workers:
                yield finishing.popleft().result()
        while finishing:
            yield finishing.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
