"""Several processes that make one run, such as one on each host: who leads, who does what, and what all agree on.

All processes run the same program over the same devices' computations. One, the lead, keeps the run's files: what it
reads the others are told (`messages`), and its errors are theirs. Work on the host, such as reading a cohort or
measuring cases, is shared. A single process is all of this by itself, and nothing here costs it anything.

Every function but `count`, `index` and `leads` is for the main thread, and must be reached by all processes in the same
order.
"""

import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Shaped

from qcjax.config import Hosts
from qcjax.runtime import messages, stops
from qcjax.runtime.stops import Stopped

T = TypeVar("T")
S = TypeVar("S")
P = ParamSpec("P")

MESSAGE = 4 * 2**20  # bytes that go at once; a longer message goes in parts
SHUTDOWN_SECONDS = 600  # how long a process that ends waits for the others, of which the lead may be writing
WAIT_SECONDS = 7 * 24 * 3600  # for the others; no work of one process takes as long
_MILLISECONDS = 1000 * WAIT_SECONDS
LEAD_LEAVES_LATER = 2.0  # seconds
ASKED = "qcjax-asked"  # in the coordinator's store: which processes were asked to stop

_count, _index = 1, 0
_leading = 0  # depth of `lead` on the lead, where what is inside concerns it alone
_exchanges = 0  # how often


def start(distributed: bool, hosts: Hosts) -> None:
    """Join the other processes, before the first computation.

    Raises ValueError where it isn't said who they are, ConnectionError where they aren't found within five minutes.
    """
    global _count, _index
    given = {k: v for k, v in vars(hosts).items() if v is not None}
    if not distributed:
        if given:
            names = ", ".join(f"--hosts.{name}" for name in given)
            raise ValueError(f"{names} found without --distributed, expected both or none")
        return
    if given and len(given) < 3:
        raise ValueError(
            f"--hosts.{', --hosts.'.join(given)} found alone, expected --hosts.coordinator HOST:PORT, --hosts.count "
            "and --hosts.index, or none of them on a cluster that says so itself"
        )
    if hosts.count is not None and not 0 <= (hosts.index or 0) < hosts.count:
        raise ValueError(f"--hosts.index: {hosts.index} found, expected 0 to {hosts.count - 1}")
    import jax  # here, for commands that do without it start faster

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    try:
        jax.distributed.initialize(
            hosts.coordinator,
            hosts.count,
            hosts.index,
            cluster_detection_method="deactivate" if given else None,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"--distributed: no cluster found ({error}), expected Slurm, Open MPI or Kubernetes, or "
            "--hosts.coordinator HOST:PORT, --hosts.count and --hosts.index"
        ) from None
    except RuntimeError as error:
        first = str(error).split("\n", 1)[0]
        raise ConnectionError(
            f"--distributed: the other processes were not found ({first}), expected all of them within five minutes"
        ) from error
    _count, _index = jax.process_count(), jax.process_index()
    stops.coordinate(_count > 1)


def leave(code: int) -> None:
    """End this process after an error, without the wait for the others at which JAX would end it in its own way."""
    sys.stdout.flush()
    sys.stderr.flush()
    if leads():
        # an error of all ends all; without the lead, JAX would end the others first
        time.sleep(LEAD_LEAVES_LATER)
    os._exit(code)


def count() -> int:
    """How many processes there are."""
    return _count


def index() -> int:
    """Which of them this one is, from 0."""
    return _index


def leads() -> bool:
    """Whether this is the one that writes tables, figures and checkpoints."""
    return _index == 0


def lead(function: Callable[[], T]) -> T:
    """What a function gives on the lead, which alone runs it; its error is raised by all.

    Raises Stopped, on all, where the lead was asked to stop.
    """
    global _leading
    if _count == 1 or _leading:
        return function()
    outcome: _Outcome | None = None
    if leads():
        _leading += 1
        try:
            with stops.immediate():
                outcome = _attempt(function)
        finally:
            _leading -= 1
    told = _Outcome.unpacked(_broadcast(b"" if outcome is None else outcome.packed()))
    stops.raise_stop(told.asked)
    return told.result(outcome)


def led(method: Callable[P, T]) -> Callable[P, T]:
    """A function that the lead alone runs, see `lead`."""

    @functools.wraps(method)
    def on_the_lead(*args: P.args, **kwargs: P.kwargs) -> T:
        return lead(lambda: method(*args, **kwargs))

    return on_the_lead


def same(value: T) -> T:
    """The lead's value: what decides where all go on must not differ in a last bit between machines."""
    return lead(lambda: value)


def same_tree(tree: Any) -> Any:
    """The lead's arrays in a tree of the same structure in every process: `same` for a training state."""
    if _count == 1 or _leading:
        return tree
    import jax

    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, same(leaves))


def share(function: Callable[[S], T], items: Sequence[S], threads: int | None = None) -> list[T]:
    """A function of every item, in order, each run by one process, there by some threads.

    Args:
      threads: how many; Python's default for a pool if None, and 1 for none but the main thread.

    Raises the error of the first process that has one, and Stopped where one was asked to stop.
    """

    if _count == 1 or _leading:
        return _each(function, items, threads)

    def unless_stopped(item: S) -> T:
        if _stop_is_near():
            return None  # type: ignore[return-value]  # nobody looks at it: all stop below
        return function(item)

    own = items[_index::_count]
    mine = _attempt(lambda: _each(unless_stopped, own, threads))
    outcomes = [_Outcome.unpacked(data) for data in _exchange(mine.packed())]
    if stops.pending():
        _coordinator().key_value_delete(f"{ASKED}/{_index}")
    stops.raise_stop(max(o.asked for o in outcomes))
    results: list[Any] = [None] * len(items)
    for i, outcome in enumerate(outcomes):
        results[i::_count] = outcome.result()
    return results


def _each(function: Callable[[S], T], items: Sequence[S], threads: int | None) -> list[T]:
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def gather_rows(x: Any) -> Shaped[np.ndarray, "n ..."]:
    """The rows (n, ...) of every process, one process after the other, on all of them."""
    if _count == 1:
        return np.asarray(x)
    import jax
    from jax.experimental import multihost_utils

    if jax.default_backend() == "cpu":  # its devices have no order of their own for what they send each other
        return np.concatenate([messages.unpack(data) for data in _exchange(messages.pack(np.asarray(x)))])
    return np.asarray(multihost_utils.process_allgather(np.asarray(x), tiled=True))


@dataclass(frozen=True)
class _Outcome:
    """What a function gave, or its error; and the signal that its process had by then."""

    value: Any
    error: Exception | None
    asked: int

    def packed(self) -> bytes:
        """As bytes; a value that can't be sent becomes an error."""
        if self.error is None:
            try:
                return messages.pack((self.value, None, self.asked))
            except TypeError as error:
                return messages.pack((None, messages.error_parts(error), self.asked))
        return messages.pack((None, messages.error_parts(self.error), self.asked))

    @classmethod
    def unpacked(cls, data: bytes) -> "_Outcome":
        value, error, asked = messages.unpack(data)
        return cls(value, None if error is None else messages.error_of(*error), asked)

    def result(self, own: "_Outcome | None" = None) -> Any:
        """The value; that of this process itself, where it has one."""
        if self.error is not None:
            raise (self.error if own is None or own.error is None else own.error)
        return self.value if own is None else own.value


def _stop_is_near() -> bool:
    """Whether this process or another was asked to stop, at which all will stop as soon as their work meets."""
    client = _coordinator()
    if stops.pending():
        client.key_value_set(f"{ASKED}/{_index}", "", allow_overwrite=True)
        return True
    return not stops.stopping() and bool(client.key_value_dir_get(f"{ASKED}/"))


def _attempt(function: Callable[[], Any]) -> _Outcome:
    value, error = None, None
    try:
        value = function()
    except Exception as raised:
        error = raised
    except Stopped:  # told to the others by what was asked
        pass
    return _Outcome(value, error, stops.asked() or 0)


def _broadcast(data: bytes) -> bytes:
    """The lead's bytes."""
    return _exchange(data, (0,))[0]


def _exchange(data: bytes, senders: Sequence[int] | None = None) -> list[bytes]:
    """Every sender's bytes, all processes' by default.

    They go by way of the coordinator that JAX's processes have anyway. No device has a part in it: those may be in the
    middle of anything, and what they send each other is given up after half a minute's wait.
    """
    global _exchanges
    _exchanges += 1
    client, senders = _coordinator(), range(_count) if senders is None else senders
    place = f"qcjax/{_exchanges}"
    if _index in senders:
        _put(client, f"{place}/{_index}", data)
    found = [data if i == _index else _get(client, f"{place}/{i}") for i in senders]
    client.wait_at_barrier(f"{place}/read", _MILLISECONDS)
    if _index in senders:
        client.key_value_delete(f"{place}/{_index}")  # with all that is below it
    return found


def _put(client: Any, key: str, data: bytes) -> None:
    parts = [data[start : start + MESSAGE] for start in range(0, max(len(data), 1), MESSAGE)]
    client.key_value_set_bytes(f"{key}/0", len(parts).to_bytes(4) + parts[0])
    for i, part in enumerate(parts[1:], 1):
        client.key_value_set_bytes(f"{key}/{i}", part)


def _get(client: Any, key: str) -> bytes:
    first = client.blocking_key_value_get_bytes(f"{key}/0", _MILLISECONDS)
    rest = range(1, int.from_bytes(first[:4]))
    return b"".join(
        (first[4:], *(client.blocking_key_value_get_bytes(f"{key}/{i}", _MILLISECONDS) for i in rest))
    )


def _coordinator() -> Any:
    """The client of the key-value store, which JAX has no public name for; Orbax takes it from there, too."""
    from jax._src import distributed

    return distributed.global_state.client
