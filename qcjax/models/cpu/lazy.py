"""What a layer passes on without computing it: its reader computes it, and again for the gradient.

Computed once, an activation would be kept from the forward to the backward pass beside what it is computed from, which
batch norm's gradient needs as well. Convolutions that read lazy inputs (`conv_cpu.conv`) keep the latter alone.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from qcjax.typing import AnyArray, Array, Float


@struct.dataclass
class Activation:
    """leaky_relu(factor · x + offset): x (b, *space, c), factor and offset (c,), in x's type."""

    x: AnyArray  # or what stands in for an array where JAX takes trees apart
    factor: AnyArray
    offset: AnyArray
    slope: float = struct.field(pytree_node=False)

    def value(self) -> Float[Array, "b *space c"]:
        """The activation itself, of the shape of `x`."""
        return jax.nn.leaky_relu(scaled(self.x, self.factor, self.offset), self.slope)


@struct.dataclass
class Concatenation:
    """Arrays and lazy ones of the same space that will be one array, side by side along the channels."""

    parts: tuple["Lazy", ...]

    def value(self) -> Float[Array, "b *space c"]:
        """The parts in one array: all of their channels, in their order."""
        return jnp.concatenate([value(part) for part in self.parts], -1)


def scaled(
    x: Float[Array, "*space c"], factor: Float[Array, " c"], offset: Float[Array, " c"]
) -> Float[Array, "*space c"]:
    """factor · x + offset, with a factor and an offset for each channel: the shape of x."""
    return x * _of_rank(x.ndim, factor) + _of_rank(x.ndim, offset)


def biased(x: Float[Array, "*space c"], bias: Float[Array, " c"] | None) -> Float[Array, "*space c"]:
    """x + bias, with a bias for each channel, or x itself without one: the shape of x."""
    return x if bias is None else x + _of_rank(x.ndim, bias)


def _of_rank(ndim: int, values: Array) -> Array:
    """A value for each channel, (c,), as (1, …, 1, c) of so many axes."""
    return values.reshape(*(1,) * (ndim - 1), -1)


Lazy = Array | Activation | Concatenation  # an array, or what will be one
Some = TypeVar("Some", bound=Lazy)


def is_computed(x: Lazy) -> bool:
    """Whether it is an array already."""
    return not isinstance(x, Activation | Concatenation)


def value(x: Lazy) -> Float[Array, "b *space c"]:
    """As an array, (b, *space, c)."""
    return x.value() if isinstance(x, Activation | Concatenation) else x


def shape(x: Lazy) -> tuple[int, ...]:
    """The shape that its value will have; nothing is computed."""
    return jax.eval_shape(value, x).shape


def astype(x: Lazy, dtype: Any) -> Lazy:
    """The same, with all that it is computed from in this type."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), x)


def images(x: Lazy, first: Any, count: int) -> Lazy:
    """Some images of the batch, from number `first` on, which may be traced."""

    def part(leaf: Array) -> Array:
        if leaf.ndim == 1:  # per channel
            return leaf
        return lax.dynamic_slice_in_dim(leaf, first, count)

    return jax.tree.map(part, x)


def slices(x: Some, first: int, count: int, step: int = 1) -> Some:
    """Some slices of volumes (b, s, h, w, c), folded into the batch: (b·count, h, w, c)."""

    def part(leaf: Array) -> Array:
        if leaf.ndim == 1:  # per channel
            return leaf
        some = lax.slice_in_dim(leaf, first, first + (count - 1) * step + 1, step, 1)
        return some.reshape(-1, *leaf.shape[2:])

    folded: Some = jax.tree.map(part, x)
    return folded
