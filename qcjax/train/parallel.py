"""Devices: replicate, shard, run. Nothing else knows how many there are.

On one device a function is jitted; on several it is `pmap`ped over the axis "devices", each with its share of the
batch. `axis_name` goes to the models, losses and updates, which reduce over it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

AXIS = "devices"

REPLICATED, SHARDED, BROADCAST = "replicated", "sharded", "broadcast"


class Devices:
    """Some of this process's devices."""

    def __init__(self, count: int | None = None) -> None:
        """The first `count` devices, all by default.

        Raises ValueError if there are not as many.
        """
        found = jax.local_devices()
        if count is not None and not 1 <= count <= len(found):
            raise ValueError(f"--devices: {count} asked for, {len(found)} found ({found[0].platform})")
        self.devices = found[:count]

    @property
    def count(self) -> int:
        return len(self.devices)

    @property
    def axis_name(self) -> str | None:
        """What to reduce over: None on a single device."""
        return AXIS if self.count > 1 else None

    def batch_size(self, total: int) -> int:
        """The nearest batch size, upwards, that the devices can share evenly (the rest is padding)."""
        return -(-total // self.count) * self.count

    def replicate(self, tree: Any) -> Any:
        """A copy of the arrays on every device."""
        if self.count == 1:
            return jax.device_put(tree, self.devices[0])
        mesh = jax.sharding.Mesh(np.array(self.devices), (AXIS,))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
        stack = lambda x: np.broadcast_to(np.asarray(x)[None], (self.count, *np.shape(x)))  # noqa: E731
        return jax.tree.map(lambda x: jax.device_put(stack(x), sharding), tree)

    def unreplicate(self, tree: Any) -> Any:
        """The first device's copy."""
        return tree if self.count == 1 else jax.tree.map(lambda x: x[0], tree)

    def shard(self, tree: Any) -> Any:
        """Each leaf (b, ...) -> (devices, b / devices, ...), on the host; unchanged on a single device."""
        if self.count == 1:
            return tree
        return jax.tree.map(lambda x: np.reshape(x, (self.count, -1, *np.shape(x)[1:])), tree)

    def gather(self, tree: Any) -> Any:
        """The inverse of `shard`, as numpy arrays."""
        if self.count == 1:
            return jax.tree.map(np.asarray, tree)
        return jax.tree.map(lambda x: np.reshape(x, (-1, *np.shape(x)[2:])), tree)

    def compile(
        self, function: Callable[..., Any], axes: Sequence[str], donate: Sequence[int] = ()
    ) -> Callable[..., Any]:
        """Jit or pmap a function whose arguments are REPLICATED, SHARDED, or BROADCAST (the same host value)."""
        if self.count == 1:
            return jax.jit(function, donate_argnums=tuple(donate))
        in_axes = tuple(None if a == BROADCAST else 0 for a in axes)
        return jax.pmap(
            function, axis_name=AXIS, in_axes=in_axes, devices=self.devices, donate_argnums=tuple(donate)
        )
