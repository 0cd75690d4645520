"""Devices: replicate, shard, run. Nothing else knows how many there are.

On one device a function is jitted; on several it is `pmap`ped over the axis "devices", each with its share of the
batch. `axis_name` goes to the models, losses and updates, which reduce over it. Where several processes make the run
(`hosts`), the devices of all of them share the batch, and each process holds the rows of its own.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from qcjax.runtime import forks, hosts

AXIS = "devices"

REPLICATED, SHARDED, BROADCAST = "replicated", "sharded", "broadcast"


class Devices:
    """Some devices of every process of the run, in the processes' order."""

    def __init__(self, count: int | None = None, alone: bool = False) -> None:
        """The first `count` devices of each process, all by default.

        Args:
          alone: only this process's, for what it computes by itself.

        Raises ValueError if there are not as many, RuntimeError in a process that was forked after JAX had started, as
        `replicate` and `shard` do.
        """
        forks.check()
        found = jax.local_devices()
        if count is not None and not 1 <= count <= len(found):
            raise ValueError(f"--devices: {count} asked for, {len(found)} found ({found[0].platform})")
        self.devices = found[:count]
        own = {device.process_index for device in self.devices} if alone else range(hosts.count())
        by_process = [[d for d in jax.devices() if d.process_index == i][:count] for i in own]
        self.all_devices = [device for of_process in by_process for device in of_process]
        self._first = self.all_devices.index(self.devices[0])
        self.mapped = hosts.count() > 1 or self.count > 1  # one layout of arrays in a process, alone or not

    @property
    def count(self) -> int:
        """How many share a batch, over all processes."""
        return len(self.all_devices)

    @property
    def axis_name(self) -> str | None:
        """What to reduce over: None on a single device."""
        return AXIS if self.mapped else None

    def alone(self) -> "Devices":
        """The devices of this process alone."""
        return Devices(len(self.devices), alone=True)

    def batch_size(self, total: int) -> int:
        """The nearest batch size, upwards, that the devices can share evenly (the rest is padding)."""
        return -(-total // self.count) * self.count

    def replicate(self, tree: Any) -> Any:
        """A copy of the arrays on each of this process's devices."""
        forks.check()
        if not self.mapped:
            return jax.device_put(tree, self.devices[0])
        mesh = jax.sharding.Mesh(np.array(self.devices), (AXIS,))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
        here = len(self.devices)
        stack = lambda x: np.broadcast_to(np.asarray(x)[None], (here, *np.shape(x)))  # noqa: E731
        return jax.tree.map(lambda x: jax.device_put(stack(x), sharding), tree)

    def unreplicate(self, tree: Any) -> Any:
        """The first device's copy, there."""
        return jax.tree.map(_of_the_first, tree) if self.mapped else tree

    def shard(self, tree: Any) -> Any:
        """Each leaf (b, ...) -> (devices, b / devices, ...), on the host; unchanged on a single device.

        b is that of the whole batch; a process keeps the rows of its own devices.
        """
        forks.check()
        if not self.mapped:
            return tree
        own = slice(self._first, self._first + len(self.devices))
        return jax.tree.map(lambda x: np.reshape(x, (self.count, -1, *np.shape(x)[1:]))[own], tree)

    def gather(self, tree: Any) -> Any:
        """The inverse of `shard`, as numpy arrays: the rows of the whole batch, in every process."""
        if not self.mapped:
            return jax.tree.map(np.asarray, tree)
        own = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *np.shape(x)[2:]), tree)
        return jax.tree.map(hosts.gather_rows, own) if len(self.devices) < self.count else own

    def compile(
        self, function: Callable[..., Any], axes: Sequence[str], donate: Sequence[int] = ()
    ) -> Callable[..., Any]:
        """Jit or pmap a function whose arguments are REPLICATED, SHARDED, or BROADCAST (the same host value)."""
        if not self.mapped:
            return jax.jit(function, donate_argnums=tuple(donate))
        in_axes = tuple(None if a == BROADCAST else 0 for a in axes)
        return jax.pmap(
            function, axis_name=AXIS, in_axes=in_axes, devices=self.all_devices, donate_argnums=tuple(donate)
        )


def _of_the_first(x: Any) -> Any:
    # Not x[0] of them all: every device would take part in that, array by array and in no certain order, and of several
    # processes one was seen to wait for ever.
    return (x.addressable_shards[0].data if isinstance(x, jax.Array) else x)[0]


@functools.cache
def half() -> Any:
    """The type in which probabilities leave the devices: float16, or float32 where XLA can't convert to that.

    It can't on a processor of before 2012, without F16C; the host then does, to the same bits.
    """
    try:
        jax.jit(lambda x: x.astype(np.float16)).lower(jax.ShapeDtypeStruct((1,), np.float32)).compile()
    except jax.errors.JaxRuntimeError:
        return np.float32
    return np.float16


def local_devices() -> list[jax.Device]:
    """The devices of this process."""
    return jax.local_devices()


def first_of_share(count: int, axis_name: str | None) -> Any:
    """The place in the whole batch of the first of this device's `count` samples, (), within a function over devices.

    Args:
      axis_name: of the devices that share the batch; None: there is one, and the place is 0.
    """
    return jax.lax.axis_index(axis_name) * count if axis_name is not None else 0


class StopAllReduce:
    """The largest stop signal of all processes, known one round late, so that no round waits for an answer."""

    def __init__(self) -> None:
        self._result: Any = None

    def reduce(self, signum: int | None, after: Any = None) -> int | None:
        """Give this process's signal, if any; the result of the round before.

        Args:
          after: arrays that are being computed. On a CPU, where computations overlap in whatever order, theirs must not
            talk to other processes at the same time.
        """
        if hosts.count() == 1:
            return signum
        on_cpu = jax.default_backend() == "cpu"
        if on_cpu:
            jax.block_until_ready(after)
        signals = np.full(len(local_devices()), signum or 0, np.int32)
        answer, self._result = self._result, _largest()(signals)
        if on_cpu:
            jax.block_until_ready(self._result)
        return None if answer is None else int(answer.addressable_shards[0].data[0]) or None


@functools.cache
def _largest() -> Callable[[np.ndarray], Any]:
    return jax.pmap(lambda x: jax.lax.pmax(x, "processes"), axis_name="processes")
