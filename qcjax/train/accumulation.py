"""Gradient accumulation: a batch that goes through the network in parts, for devices that can't hold it at once.

The losses are of sums over the whole batch, so the mean of the parts' gradients would be the gradient of another loss.
Instead the parts' logits, which take little memory, are put together again before the loss. What takes much, the
activations, is there for one part at a time: the backward pass computes them anew, which costs one more forward pass.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from qcjax.models.layers import Dropout
from qcjax.typing import Array, Float, Key, Weights

Logits = tuple[Array, ...]
Apply = Callable[[Any, Any, Array, Array, Array], tuple[Logits, Any]]


def logits_in_parts(
    apply: Apply,
    params: Any,
    batch_stats: Any,
    x: Float[Array, "b *rest"],
    weight: Weights,
    key: Key[Array, "*samples"],
    parts: int,
    axis_name: str | None = None,
    batch_axis: int = 0,
) -> tuple[Logits, Any]:
    """Logits of a batch, differentiable in `params`, of which the activations of one part exist at a time.

    Part i holds rows i, i + parts, i + 2·parts, …, so that each has its share of what lies side by side in a batch, and
    of padding. Dropout draws what it draws for the batch as a whole. Batch norm can't do as much: each part is
    normalised by its own statistics (over all devices), and the running ones move by the mean of the parts' changes,
    weighted by their real samples.

    Args:
      apply: (params, batch_stats, x, weight, key) -> (logits, changed batch_stats); closes over no array.
      x: (b, ...), of one device.
      weight: (b,), 0 for padding.
      key: one, or as many as `apply` wants.
      batch_axis: of the logits.

    Returns the logits of the whole batch, and the changed batch_stats.

    Raises:
      ValueError: b is no multiple of `parts`.
    """
    if x.shape[0] % parts:
        raise ValueError(
            f"--accumulate: {parts} parts of a batch of {x.shape[0]} per device found, expected a multiple of {parts}"
        )

    def of_part(
        i: int, params: Any, batch_stats: Any, x: Array, weight: Array, key: Array, done: Array
    ) -> tuple[Logits, Any]:
        # Weights are never negative, but for all that the compiler knows a part's rows and its dropout must wait for
        # `done`. A barrier doesn't do: on a CPU XLA drops it before it removes what is computed twice, and schedules.
        never = weight[0] < 0
        rows = jnp.where(never, done.astype(x.dtype), x[i::parts])
        with _placed(jnp.where(never, done.astype(jnp.int32), i), parts):
            return apply(params, batch_stats, rows, weight[i::parts], key)

    @jax.custom_vjp
    def run(params: Any, batch_stats: Any, x: Array, weight: Array, key: Array) -> tuple[Logits, Any]:
        found, changed, done = [], [], jnp.float32(0)
        for i in range(parts):
            logits, stats = of_part(i, params, batch_stats, x, weight, key, done)
            found.append(logits)
            changed.append(stats)
            done = _touched(logits)
        together = tuple(_interleaved(scale, batch_axis) for scale in zip(*found, strict=True))
        return together, _mean_change(batch_stats, changed, weight, parts, axis_name)

    def forward(*arguments: Any) -> Any:
        return run(*arguments), arguments

    def backward(arguments: Any, cotangents: Any) -> Any:
        params, batch_stats, x, weight, key = arguments
        of_logits = cotangents[0]
        total, done = None, _touched(of_logits)
        for i in range(parts):

            def logits(params: Any, i: int = i, done: Array = done) -> Logits:
                return of_part(i, params, batch_stats, x, weight, key, done)[0]

            _, pull_back = jax.vjp(logits, params)
            (gradient,) = pull_back(tuple(_rows(c, i, parts, batch_axis) for c in of_logits))
            done = _touched(gradient)
            total = gradient if total is None else jax.tree.map(jnp.add, total, gradient)
        return total, None, None, None, None

    run.defvjp(forward, backward)
    logits, changed = run(params, batch_stats, x, weight, key)
    return logits, lax.stop_gradient(changed)


def _placed(index: Array, parts: int) -> AbstractContextManager[Any]:
    """Within it, dropout knows which rows of the batch it sees."""

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, Dropout) and context.method_name == "__call__":
            kwargs = {**kwargs, "part": (index, parts)}
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def _touched(tree: Any) -> Array:
    """A number that isn't known before every array of a tree is: ()."""
    return sum((x.reshape(-1)[0].astype(jnp.float32) for x in jax.tree.leaves(tree)), jnp.float32(0))


def _rows(x: Array, index: int, parts: int, axis: int) -> Array:
    return x[(*(slice(None),) * axis, slice(index, None, parts))]


def _interleaved(parts: tuple[Array, ...], axis: int) -> Array:
    """The inverse of `_rows`, of all parts."""
    shape = parts[0].shape
    return jnp.stack(parts, axis + 1).reshape(*shape[:axis], -1, *shape[axis + 1 :])


def _mean_change(
    batch_stats: Any, changed: list[Any], weight: Array, parts: int, axis_name: str | None
) -> Any:
    samples = jnp.stack([weight[i::parts].sum() for i in range(parts)])
    if axis_name is not None:
        samples = lax.psum(samples, axis_name)
    shares = samples / jnp.maximum(samples.sum(), 1)

    def moved(old: Array, *new: Array) -> Array:
        # under `vmap` over keys the new statistics have an axis of samples before those of the old
        old = jnp.broadcast_to(old, new[0].shape)
        return old + sum(share * (x - old) for share, x in zip(shares, new, strict=True))

    return jax.tree.map(moved, batch_stats, *changed)
