"""Layers shared by the networks. Channels last; 2-D or 3-D by the length of the kernel.

Written out where Flax's own layer is slow or counts differently: transposed convolutions (as sub-pixel
convolutions), batch norm (PyTorch's running variance, padded samples, several devices), dropout (fewer random
bits, masks that don't depend on the number of devices), max-pooling (a cheap gradient), and on a CPU the kernel's
gradient of large convolutions, and 3-D convolutions (`conv`).
"""

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer

from qcjax.models.cpu import conv, lazy, subpixel
from qcjax.models.cpu.lazy import Lazy
from qcjax.runtime.devices import first_of_share
from qcjax.typing import AnyArray, Array, Float, Weights


def he_normal(slope: float = 0.0, transposed: bool = False) -> Initializer:
    """He et al. 2015 for leaky ReLUs: normal, variance 2 / ((1 + slope²)·fan-in).

    With `transposed` the fan-in counts output channels, as PyTorch does for transposed convolutions.
    """
    return _variance_scaling(slope, transposed, "normal")


def he_uniform(slope: float = 0.0, transposed: bool = False) -> Initializer:
    """The same variance, uniform: PyTorch's `kaiming_uniform_`."""
    return _variance_scaling(slope, transposed, "uniform")


def _variance_scaling(slope: float, transposed: bool, distribution: Any) -> Initializer:
    in_axis, out_axis = (-1, -2) if transposed else (-2, -1)
    return jax.nn.initializers.variance_scaling(
        2.0 / (1.0 + slope**2), "fan_in", distribution, in_axis=in_axis, out_axis=out_axis
    )


def uniform_bias(fan_in: int) -> Initializer:
    """PyTorch's default bias of a convolution: uniform within ±1/√fan-in."""
    bound = fan_in**-0.5

    def init(key: Array, shape: Sequence[Any], dtype: Any = None, out_sharding: Any = None) -> Array:
        return jax.random.uniform(key, shape, dtype or jnp.float32, -bound, bound)

    return init


class Conv(nn.Module):
    """Convolution with PyTorch's symmetric padding of half a kernel (or of `padding`).

    Args of call: x (b, *space, c), any dtype, perhaps lazy; more inputs of the same space, as if concatenated to x's
    channels, each convolved by itself: under `vmap` one that is common to the samples is then convolved once. Returns
    (b, *space / stride, features). `apart` returns the same without its bias, and the bias, (features,) or None.
    """

    features: int
    kernel: tuple[int, ...] = (3, 3)
    stride: tuple[int, ...] | None = None
    padding: int | None = None
    use_bias: bool = True
    kernel_init: Initializer = he_normal()
    random_bias: bool = False  # PyTorch's default instead of zeros
    dtype: Any = jnp.float32

    def __call__(self, *inputs: Lazy) -> Array:
        y, bias = self.apart(*inputs)
        return lazy.biased(y, bias)

    @nn.compact
    def apart(self, *inputs: Lazy) -> tuple[Float[Array, "b *out k"], Float[AnyArray, " k"] | None]:
        """The sum without the bias, and the bias: see the class."""
        ndim, channels = len(self.kernel), [lazy.shape(x)[-1] for x in inputs]
        fan_in = sum(channels) * prod(self.kernel)
        shape = (*self.kernel, sum(channels), self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        stride = self.stride or (1,) * ndim
        pads = tuple((k - 1) // 2 if self.padding is None else self.padding for k in self.kernel)
        parts = jnp.split(kernel, list(accumulate(channels))[:-1], axis=-2)
        terms = [
            convolve(lazy.astype(x, self.dtype), w, stride, pads) for x, w in zip(inputs, parts, strict=True)
        ]
        y = reduce(jnp.add, terms)
        if not self.use_bias:
            return y, None
        init = uniform_bias(fan_in) if self.random_bias else nn.initializers.zeros
        return y, self.param("bias", init, (self.features,), jnp.float32).astype(self.dtype)


def convolve(
    x: Lazy, kernel: Float[Array, "*size c k"], stride: tuple[int, ...], pads: tuple[int, ...]
) -> Float[Array, "b *out k"]:
    """Convolution with symmetric padding, in the form that is fast on the backend at hand.

    x (b, *space, c), kernel (*size, c, k) -> (b, *space / stride, k).
    """
    given = lazy.shape(x), kernel.shape, stride, pads, lazy.is_computed(x)
    if conv.folds(kernel.shape) or conv.pays(*given):
        return conv.conv(x, kernel, stride, pads)
    return conv.plain(lazy.value(x), kernel, stride, pads)


class ConvTranspose(nn.Module):
    """Transposed convolution in PyTorch's sense, as a convolution at the input's resolution.

    Three forms are needed and supported: kernel = stride (no padding), kernel 4 with stride 2 and padding 1,
    and kernel 3 with stride 1 and padding 1. The parameter is (*kernel, in, features), unflipped.

    Args of call: x (b, *space, c), perhaps lazy. Returns (b, *space · stride, features).
    Raises ValueError for another geometry.
    """

    features: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    use_bias: bool = True
    kernel_init: Initializer = he_normal(transposed=True)
    random_bias: bool = False
    dtype: Any = jnp.float32

    def __call__(self, x: Lazy) -> Array:
        y, bias = self.apart(x)
        return lazy.biased(y, bias)

    @nn.compact
    def apart(self, x: Lazy) -> tuple[Float[Array, "b *out k"], Float[AnyArray, " k"] | None]:
        """The result without its bias, and the bias, (features,) or None."""
        ndim, channels = len(self.kernel), lazy.shape(x)[-1]
        shape = (*self.kernel, channels, self.features)
        w = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        x = lazy.astype(x, self.dtype)
        if self.kernel == self.stride:  # every output pixel sees one input pixel
            taps = w.reshape(prod(self.kernel), channels, self.features).transpose(1, 0, 2)
            y = convolve(x, taps.reshape(*(1,) * ndim, channels, -1), (1,) * ndim, (0,) * ndim)
            y = subpixel.depth_to_space(y, self.stride)
        elif self.kernel == (3,) * ndim and self.stride == (1,) * ndim:
            y = convolve(x, w[(slice(None, None, -1),) * ndim], (1,) * ndim, (1,) * ndim)
        elif self.kernel == (4,) * ndim and self.stride == (2,) * ndim:
            y = subpixel.transposed(convolve, lazy.value(x), w)
        else:
            raise ValueError(
                f"ConvTranspose: kernel {self.kernel} with stride {self.stride} is not supported"
            )
        if not self.use_bias:
            return y, None
        fan_in = self.features * prod(self.kernel)
        init = uniform_bias(fan_in) if self.random_bias else nn.initializers.zeros
        return y, self.param("bias", init, (self.features,), jnp.float32).astype(self.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation that counts as PyTorch does.

    The running variance is the unbiased one. Samples of weight 0 (padding) don't take part. Over several devices
    (`axis_name`) the statistics are those of the whole batch.

    Args of call: x (b, *space, c); `batch_stats`: normalise by this batch's statistics and update the running
    ones (else by the running ones); weight (b,), 0 or 1. Returns the same shape and dtype as x. `factors` returns
    what to multiply x by and what to add then, each (c,), in x's type; with `bias` (c,) as if of x + bias.
    """

    momentum: float = 0.9  # PyTorch's 0.1
    epsilon: float = 1e-5
    axis_name: str | None = None

    def __call__(self, x: Array, batch_stats: bool, weight: Array | None = None) -> Array:
        factor, offset = self.factors(x, batch_stats, weight)
        return lazy.scaled(x, factor, offset)

    @nn.compact
    def factors(
        self,
        x: Float[Array, "b *space c"],
        batch_stats: bool,
        weight: Weights | None = None,
        bias: Float[Array, " c"] | None = None,
    ) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """Factor and offset: see the class."""
        c = x.shape[-1]
        added = 0.0 if bias is None else bias.astype(jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        shift = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
        if batch_stats:
            mean, var, count = self._statistics(x, weight)
            if not self.is_initializing():
                unbiased = var * count / jnp.maximum(count - 1, 1)
                biased = mean + added
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * biased
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * unbiased
        else:
            mean, var = running_mean.value - added, running_var.value
        factor = scale * lax.rsqrt(var + self.epsilon)
        return factor.astype(x.dtype), (shift - mean * factor).astype(x.dtype)

    def _statistics(self, x: Array, weight: Array | None) -> tuple[Array, Array, Array]:
        space = tuple(range(1, x.ndim - 1))
        x = x.astype(jnp.float32)
        weight = jnp.ones(len(x)) if weight is None else weight.astype(jnp.float32)
        # image by image first, so that no weighted copy of x is made
        total, squares = ((weight[:, None] * a.sum(space)).sum(0) for a in (x, jnp.square(x)))
        sums = total, squares, float(prod(x.shape[1:-1])) * weight.sum()
        if self.axis_name is not None:
            sums = lax.psum(sums, self.axis_name)
        total, squares, count = sums
        count = jnp.maximum(count, 1)
        mean = total / count
        return mean, jnp.maximum(squares / count - jnp.square(mean), 0), count


class Dropout(nn.Module):
    """Dropout whose mask is a function of the key and the sample's place in the whole batch.

    So it is the same on one device and on many. The rate is rounded to 1/65536, the scale to match.

    Args of call: x (b, ...), `dropout`: on or off, `part`: which of how many interleaved parts of the batch x is
    (`train.accumulation`). Needs the RNG stream "dropout" when on.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, dropout: bool, part: tuple[Array | int, int] = (0, 1)) -> Array:
        if not dropout or self.rate == 0:
            return x
        index, parts = part
        first = first_of_share(x.shape[0] * parts, self.axis_name)
        key = self.make_rng("dropout")
        places = first + index + parts * jnp.arange(x.shape[0])
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(places)
        dtype: Any = jnp.uint8 if float(self.rate * 256).is_integer() else jnp.uint16
        levels = 2 ** (8 * jnp.dtype(dtype).itemsize)
        threshold = min(round(self.rate * levels), levels - 1)
        bits = jax.vmap(lambda k: _bits(k, x.shape[1:], dtype))(keys)
        keep = bits >= jnp.asarray(threshold, dtype)
        return jnp.where(keep, x * jnp.asarray(levels / (levels - threshold), x.dtype), 0)


def _bits(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Random bits, several elements out of each 32-bit word: a third of the cost of drawing them one by one."""
    per_word = 4 // jnp.dtype(dtype).itemsize
    size = prod(shape)
    words = jax.random.bits(key, (-(-size // per_word),), jnp.uint32)
    return lax.bitcast_convert_type(words, dtype).reshape(-1)[:size].reshape(shape)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """2×2 maximum, (b, h, w, c) -> (b, h/2, w/2, c); the gradient goes to the first of equal values."""
    a, b, c, d = x[:, ::2, ::2], x[:, ::2, 1::2], x[:, 1::2, ::2], x[:, 1::2, 1::2]
    top, bottom = jnp.where(a >= b, a, b), jnp.where(c >= d, c, d)
    return jnp.where(top >= bottom, top, bottom)


def upsample(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Nearest neighbour, (b, h, w, c) -> (b, 2h, 2w, c)."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
