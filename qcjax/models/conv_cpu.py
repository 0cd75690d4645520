"""Convolutions in forms that are fast on a CPU: the 3×3 one's weight gradient, and the 3-D one.

XLA on a CPU computes the weight gradient as a convolution whose kernel is the whole image, up to seven times slower
than the convolution itself: 0.96 s against 0.14 s for 48 -> 48 channels, 256×256, batch 4, on one thread (PyTorch:
0.19 s). Here it is one matrix product per strip of rows, 0.14 s: the same sum in another order.

Its 3-D convolutions are several times slower than its 2-D ones, the gradient of a strided one thirty times. Here they
are sums of 2-D ones: a training step of a 3-D U-Net takes a fifth of the time.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from qcjax.typing import Array

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
MIN_PIXELS = 4096  # of an image; below, the gain is less than the longer compilation
MIN_FEATURES = 32  # of the output; with fewer the two gradients are equally fast on two threads
STRIP_PIXELS = 2048  # the strips' operands then stay in a core's cache


def pays(
    shape: tuple[int, ...],
    features: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pads: tuple[int, ...],
) -> bool:
    """Whether `conv3x3` is the convolution asked for, and the faster one: on a CPU, for a large image, many features.

    shape: (b, *space, c) of the input.
    """
    same_size = kernel == (3, 3) and stride == (1, 1) and pads == (1, 1)
    large = same_size and features >= MIN_FEATURES and shape[1] * shape[2] >= MIN_PIXELS
    return large and jax.default_backend() == "cpu"


@jax.custom_vjp
def conv3x3(x: Array, kernel: Array) -> Array:
    """Convolution with stride 1 and padding 1: x (b, h, w, c), kernel (3, 3, c, k) -> (b, h, w, k).

    Differentiable in reverse mode only.
    """
    return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=DIMENSIONS)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv3x3(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    grad_x = conv3x3(grad, kernel[::-1, ::-1].swapaxes(2, 3))
    return grad_x, kernel_gradient(x, grad).astype(kernel.dtype)


conv3x3.defvjp(_forward, _backward)


def kernel_gradient(x: Array, grad: Array) -> Array:
    """Gradient of the kernel from the input x (b, h, w, c) and the output's gradient (b, h, w, k).

    Tap (i, j) is the sum over pixels of x[row, column + j − 1] · grad[row + 1 − i, column]. With the three shifts of
    the columns side by side in x's channels and those of the rows in the gradient's, all nine taps are one product
    of 3c × pixels with pixels × 3k. Returns (3, 3, c, k), float32.
    """
    batch, height, width, c = x.shape
    k = grad.shape[-1]
    rows = _strip_rows(height, width)

    def add_sample(b: Any, total: Array) -> Array:
        padded = jnp.pad(lax.dynamic_index_in_dim(grad, b, 0, keepdims=False), ((1, 1), (0, 0), (0, 0)))

        def add_strip(s: Any, total: Array) -> Array:
            first = s * rows
            strip = lax.dynamic_slice(x, (b, first, 0, 0), (1, rows, width, c))[0]
            strip = jnp.pad(strip, ((0, 0), (1, 1), (0, 0)))
            halo = lax.dynamic_slice(padded, (first, 0, 0), (rows + 2, width, k))
            columns = jnp.concatenate([strip[:, j : j + width] for j in range(3)], -1)
            lines = jnp.concatenate([halo[2 - i : 2 - i + rows] for i in range(3)], -1)
            return total + jnp.einsum("hwc,hwk->ck", columns, lines, preferred_element_type=jnp.float32)

        return lax.fori_loop(0, height // rows, add_strip, total)

    taps = lax.fori_loop(0, batch, add_sample, jnp.zeros((3 * c, 3 * k), jnp.float32))
    return taps.reshape(3, c, 3, k).transpose(2, 0, 1, 3)


def _strip_rows(height: int, width: int) -> int:
    """The most rows that divide the height and have at most STRIP_PIXELS."""
    return max(r for r in range(1, height + 1) if height % r == 0 and (r == 1 or r * width <= STRIP_PIXELS))


def folds(kernel: tuple[int, ...]) -> bool:
    """Whether a convolution with a kernel of this shape, (*size, c, k), is to be done by `fold_depth`: 3-D on a CPU."""
    return len(kernel) == 5 and jax.default_backend() == "cpu"


def fold_depth(conv: Any, x: Array, kernel: Array, stride: tuple[int, ...], pads: tuple[int, ...]) -> Array:
    """The 3-D convolution as a sum of 2-D ones, one per slice of the kernel, the slices folded into the batch.

    x (b, s, h, w, c), kernel (i, j, l, c, k).
    """
    batch, depth = x.shape[:2]
    size = kernel.shape[0]
    slices = (depth + 2 * pads[0] - size) // stride[0] + 1
    if pads[0]:
        x = jnp.pad(x, ((0, 0), (pads[0], pads[0]), (0, 0), (0, 0), (0, 0)))

    def tap(i: int) -> Array:
        part = x if size == 1 and stride[0] == 1 else x[:, i : i + (slices - 1) * stride[0] + 1 : stride[0]]
        part = part.reshape(batch * slices, *part.shape[2:])
        return conv(part, kernel[i], stride[1:], pads[1:])

    y = tap(0)
    for i in range(1, size):
        y = y + tap(i)
    return y.reshape(batch, slices, *y.shape[1:])
