"""Where the prepared data of a cohort are: on every device, or on the host where no device could hold them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from qcjax.config import Stream
from qcjax.data.batches import Batch
from qcjax.data.streaming import Streamed, prefetched
from qcjax.runtime import hosts
from qcjax.runtime.devices import REPLICATED, SHARDED, Devices
from qcjax.runtime.progress import say

T = TypeVar("T")

SHARE = 0.5  # of a device's free memory that data may take; networks and their activations need the rest
GIB = 2**30


def place(parts: Sequence[Any], devices: Devices, stream: Stream = "auto", title: str = "data") -> Any:
    """Data of a cohort, for `Batcher`: on each device, or `Streamed`.

    Args:
      parts: named tuples of one kind, each of numpy arrays with as many rows (n, ...); one after the other they are
        the cohort.
      stream: "auto": from the host where they would take more than half of what a device has free.
      title: what they are, to be told where they stream.
    """
    size, free = sum(x.nbytes for part in parts for x in part), hosts.same(free_bytes(devices))
    fits = free is None or size <= SHARE * free
    if stream == "never" or (stream == "auto" and fits):
        kind = type(parts[0])
        whole = parts[0] if len(parts) == 1 else kind(*map(np.concatenate, zip(*parts, strict=True)))
        return devices.replicate(whole)
    room = "unknown" if free is None else f"{free / GIB:.2f} GiB"
    say(
        f"{title} stay on the host and stream to the devices: {size / GIB:.2f} GiB (free on a device: {room})"
    )
    return Streamed(parts)


def free_bytes(devices: Devices) -> int | None:
    """What the fullest of this process's devices has free; None where they don't tell: a CPU's memory is the host's."""
    found = []
    for device in devices.devices:
        memory = device.memory_stats() or {}
        if "bytes_limit" not in memory:
            return None
        found.append(memory["bytes_limit"] - memory.get("bytes_in_use", 0))
    return min(found)


class Batcher:
    """(data, indices, weight) -> Batch on the devices, wherever the data are; indices and weight as from `shard`."""

    def __init__(
        self, devices: Devices, take: Callable[..., Batch], batch_of: Callable[[Any, Any], Batch]
    ) -> None:
        """Nothing is compiled yet.

        Args:
          take: (arrays, indices (b,), weight (b,)) -> Batch.
          batch_of: (the arrays' rows (b, ...), weight (b,)) -> the same batch.
        """
        self._devices = devices
        self._resident = devices.compile(take, (REPLICATED, SHARDED, SHARDED))
        self._streamed = devices.compile(batch_of, (SHARDED, SHARDED))

    def __call__(self, data: Any, indices: np.ndarray, weight: np.ndarray) -> Any:
        if not isinstance(data, Streamed):
            return self._resident(data, indices, weight)
        rows = data.rows(indices)
        if not self._devices.mapped:
            # committed to its device, as resident data are, so that a step is compiled once for both
            rows = self._devices.replicate(rows)
        return self._streamed(rows, weight)


@contextmanager
def ahead(data: Any, batches: Iterable[T]) -> Iterator[Iterable[T]]:
    """Batches of such data; where they stream, the next ones are made by a thread while the devices work.

    So making them can't involve other processes (`hosts`).
    """
    if isinstance(data, Streamed):
        with prefetched(batches) as found:
            yield found
    else:
        yield batches
