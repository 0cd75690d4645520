"""Layers shared by the networks. Channels last; 2-D or 3-D by the length of the kernel.

Written out where Flax's own layer is slow or counts differently: transposed convolutions (as sub-pixel
convolutions), batch norm (PyTorch's running variance, padded samples, several devices), dropout (fewer random
bits, masks that don't depend on the number of devices), max-pooling (a cheap gradient), and on a CPU the kernel's
gradient of wide convolutions, and 3-D convolutions (`conv_cpu`).
"""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer

from qcjax.models import conv_cpu
from qcjax.typing import Array


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

    Args of call: x (b, *space, c), any dtype; more inputs of the same space, as if concatenated to x's channels, each
    convolved by itself: under `vmap` one that is common to the samples is then convolved once. Returns
    (b, *space / stride, features).
    """

    features: int
    kernel: tuple[int, ...] = (3, 3)
    stride: tuple[int, ...] | None = None
    padding: int | None = None
    use_bias: bool = True
    kernel_init: Initializer = he_normal()
    random_bias: bool = False  # PyTorch's default instead of zeros
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        ndim, channels = len(self.kernel), [x.shape[-1] for x in inputs]
        fan_in = sum(channels) * prod(self.kernel)
        shape = (*self.kernel, sum(channels), self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        stride = self.stride or (1,) * ndim
        pads = tuple((k - 1) // 2 if self.padding is None else self.padding for k in self.kernel)
        parts = jnp.split(kernel, list(accumulate(channels))[:-1], axis=-2)
        terms = [convolve(x.astype(self.dtype), w, stride, pads) for x, w in zip(inputs, parts, strict=True)]
        y = reduce(jnp.add, terms)
        if self.use_bias:
            init = uniform_bias(fan_in) if self.random_bias else nn.initializers.zeros
            y = y + self.param("bias", init, (self.features,), jnp.float32).astype(self.dtype)
        return y


def convolve(x: Array, kernel: Array, stride: tuple[int, ...], pads: tuple[int, ...]) -> Array:
    """Convolution with symmetric padding, in the form that is fast on the backend at hand.

    x (b, *space, c), kernel (*size, c, k) -> (b, *space / stride, k).
    """
    if set(kernel.shape[:-2]) == set(stride) == {1} and not any(pads):
        return x @ kernel.reshape(kernel.shape[-2:])
    if conv_cpu.folds(kernel.shape):
        return conv_cpu.fold_depth(convolve, x, kernel, stride, pads)
    if conv_cpu.pays(x.shape, kernel.shape, stride, pads):
        return conv_cpu.conv(x, kernel, stride, pads)
    return conv_cpu.plain(x, kernel, stride, pads)


class ConvTranspose(nn.Module):
    """Transposed convolution in PyTorch's sense, as a convolution at the input's resolution.

    Three forms are needed and supported: kernel = stride (no padding), kernel 4 with stride 2 and padding 1,
    and kernel 3 with stride 1 and padding 1. The parameter is (*kernel, in, features), unflipped.

    Args of call: x (b, *space, c). Returns (b, *space · stride, features).
    Raises ValueError for another geometry.
    """

    features: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    use_bias: bool = True
    kernel_init: Initializer = he_normal(transposed=True)
    random_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        ndim, channels = len(self.kernel), x.shape[-1]
        shape = (*self.kernel, channels, self.features)
        w = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.kernel == self.stride:  # every output pixel sees one input pixel
            taps = w.reshape(prod(self.kernel), channels, self.features).transpose(1, 0, 2)
            y = x @ taps.reshape(channels, -1)
            y = depth_to_space(y, self.stride)
        elif self.kernel == (3,) * ndim and self.stride == (1,) * ndim:
            y = convolve(x, w[(slice(None, None, -1),) * ndim], (1,) * ndim, (1,) * ndim)
        elif self.kernel == (4,) * ndim and self.stride == (2,) * ndim:
            y = _transpose_4_2_1(x, w)
        else:
            raise ValueError(
                f"ConvTranspose: kernel {self.kernel} with stride {self.stride} is not supported"
            )
        if self.use_bias:
            fan_in = self.features * prod(self.kernel)
            init = uniform_bias(fan_in) if self.random_bias else nn.initializers.zeros
            y = y + self.param("bias", init, (self.features,), jnp.float32).astype(self.dtype)
        return y


def _transpose_4_2_1(x: Array, w: Array) -> Array:
    """Kernel 4, stride 2, padding 1: output 2j−1+p sees inputs j−1 and j, through taps 2+p and p (p = 0, 1)."""
    ndim, features = x.ndim - 2, w.shape[-1]
    for axis in range(ndim):  # (4) -> (tap of the window, phase)
        w = jnp.stack(
            [lax.slice_in_dim(w, 2, 4, axis=axis * 2), lax.slice_in_dim(w, 0, 2, axis=axis * 2)], axis * 2
        )
    phases = [2 * a + 1 for a in range(ndim)]
    taps = [2 * a for a in range(ndim)]
    w = w.transpose(*taps, 2 * ndim, *phases, 2 * ndim + 1).reshape(
        *(2,) * ndim, x.shape[-1], 2**ndim * features
    )
    # padded beforehand: XLA's gradient of a padded 2×2 convolution is ten times slower on a CPU
    x = jnp.pad(x, ((0, 0), *((1, 1),) * ndim, (0, 0)))
    y = convolve(x, w, (1,) * ndim, (0,) * ndim)
    y = depth_to_space(y, (2,) * ndim)
    return y[(slice(None), *(slice(1, -1),) * ndim)]


def depth_to_space(x: Array, factors: tuple[int, ...]) -> Array:
    """(b, *space, factors·c) -> (b, *space · factors, c); the factors vary slowest within the channels."""
    b, *space, c = x.shape
    ndim = len(factors)
    x = x.reshape(b, *space, *factors, c // prod(factors))
    order = [i for a in range(ndim) for i in (1 + a, 1 + ndim + a)]
    return x.transpose(0, *order, 1 + 2 * ndim).reshape(
        b, *(n * f for n, f in zip(space, factors, strict=True)), c // prod(factors)
    )


class BatchNorm(nn.Module):
    """Batch normalisation that counts as PyTorch does.

    The running variance is the unbiased one. Samples of weight 0 (padding) don't take part. Over several devices
    (`axis_name`) the statistics are those of the whole batch.

    Args of call: x (b, *space, c); `batch_stats`: normalise by this batch's statistics and update the running
    ones (else by the running ones); weight (b,), 0 or 1. Returns the same shape and dtype as x.
    """

    momentum: float = 0.9  # PyTorch's 0.1
    epsilon: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, batch_stats: bool, weight: Array | None = None) -> Array:
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
        if batch_stats:
            mean, var, count = self._statistics(x, weight)
            if not self.is_initializing():
                unbiased = var * count / jnp.maximum(count - 1, 1)
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * unbiased
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * lax.rsqrt(var + self.epsilon)
        return x * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)

    def _statistics(self, x: Array, weight: Array | None) -> tuple[Array, Array, Array]:
        axes = tuple(range(x.ndim - 1))
        x = x.astype(jnp.float32)
        pixels = float(prod(x.shape[1:-1]))
        if weight is None:
            count = jnp.float32(pixels * x.shape[0])
        else:
            x = x * weight.astype(jnp.float32).reshape(-1, *(1,) * (x.ndim - 1))
            count = pixels * weight.astype(jnp.float32).sum()
        sums = x.sum(axes), jnp.square(x).sum(axes), count
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
        first = lax.axis_index(self.axis_name) * (x.shape[0] * parts) if self.axis_name is not None else 0
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


def max_pool(x: Array) -> Array:
    """2×2 maximum, (b, h, w, c) -> (b, h/2, w/2, c); the gradient goes to the first of equal values."""
    a, b, c, d = x[:, ::2, ::2], x[:, ::2, 1::2], x[:, 1::2, ::2], x[:, 1::2, 1::2]
    top, bottom = jnp.where(a >= b, a, b), jnp.where(c >= d, c, d)
    return jnp.where(top >= bottom, top, bottom)


def upsample(x: Array) -> Array:
    """Nearest neighbour, (b, h, w, c) -> (b, 2h, 2w, c)."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def leaky_relu(slope: float) -> Callable[[Array], Array]:
    """x where positive, slope·x elsewhere."""
    return lambda x: jnp.where(x >= 0, x, jnp.asarray(slope, x.dtype) * x)
