"""Arrays that stay on the host, of which batches are fetched; and batches that are made before they are asked for."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Integer

T = TypeVar("T")

DEPTH = 2  # batches that are ready or in the making while another one is worked on


class Streamed:
    """Tuples of arrays on the host, one after the other along their rows; nothing is copied but batches."""

    def __init__(self, parts: Sequence[Any]) -> None:
        """parts: named tuples of one kind, each of arrays with as many rows (n, ...)."""
        self.parts = tuple(parts)
        self.first = np.cumsum([0, *(len(part[0]) for part in self.parts)])

    def rows(self, indices: Integer[np.ndarray, "*rows"]) -> Any:
        """A tuple of the same kind with the rows at `indices`, of any shape: each array (*indices.shape, ...).

        Raises IndexError for a row that isn't there.
        """
        indices = np.asarray(indices)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.first[-1]:
            raise IndexError(
                f"rows {indices.min()} to {indices.max()} found, expected 0 to {self.first[-1] - 1}"
            )
        found = [np.empty((*indices.shape, *x.shape[1:]), x.dtype) for x in self.parts[0]]
        for part, first, end in zip(self.parts, self.first[:-1], self.first[1:], strict=True):
            here = (indices >= first) & (indices < end)
            for array, x in zip(found, part, strict=True):
                array[here] = x[indices[here] - first]
        return type(self.parts[0])(*found)


@contextmanager
def prefetched(items: Iterable[T], depth: int = DEPTH) -> Iterator[Iterator[T]]:
    """The same items, made by a thread, which is at most `depth` ahead.

    An error of the items is raised where they are taken. The thread has ended when the context has, however that came.
    """
    ready: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    room, stopped = threading.Semaphore(depth), threading.Event()

    def make() -> None:
        source = iter(items)
        try:
            while True:
                room.acquire()
                if stopped.is_set():
                    return
                ready.put(("item", next(source)))
        except StopIteration:
            ready.put(("end", None))
        except BaseException as error:
            ready.put(("error", error))

    def taken() -> Iterator[T]:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            room.release()
            yield value

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    try:
        thread.start()  # in here: a signal may come before it has returned
        yield taken()
    finally:
        stopped.set()
        room.release()
        if thread.is_alive():
            thread.join()
