"""Convolutions in forms that are fast on a CPU: a 2-D one's weight gradient, and the 3-D one.

XLA on a CPU computes the weight gradient as a convolution whose kernel is the whole image, up to seven times slower
than the convolution itself. Here it is matrix products, strip by strip of the image's rows: one for each row of the
kernel where the image keeps its size, else one for all. It is the same sum in another order. On two threads, batch 20,
in ms (XLA's, ours): 32 -> 32 channels at 256×256 1874, 315; 512 -> 256 at 32×32 1058, 266;
480 -> 480 at 16×16 154, 139; with stride 2, 32 -> 64 at 256×256 1148, 202.

Its 3-D convolutions are several times slower than its 2-D ones, the gradient of a strided one thirty times. Here they
are sums of 2-D ones: a training step of a 3-D U-Net takes a fifth of the time.
"""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from qcjax.models.cpu import lazy, subpixel
from qcjax.models.cpu.lazy import Lazy
from qcjax.typing import Array, Float

SPATIAL = {2: "HW", 3: "DHW"}
MIN_FEATURES = 32  # of the output; with fewer the two gradients are equally fast on two threads
MIN_SIZE = 2**15  # features times pixels of an image; up to that XLA's is as fast and compiles sooner
STRIP_PIXELS = 2048  # the strips' operands then stay in a core's cache
Pair = tuple[int, ...]  # of the rows and the columns


def pays(
    shape: tuple[int, ...], kernel: tuple[int, ...], stride: Pair, pads: Pair, computed: bool = True
) -> bool:
    """Whether to take `conv` for the plain convolution: on a CPU, for large outputs.

    With many features it is faster; where the input isn't `computed` yet, it needs less memory.
    shape: (b, h, w, c) of the input; kernel: (*size, c, k).
    """
    size, features = kernel[:-2], kernel[-1]
    if len(size) != 2 or (size == (1, 1) and computed) or jax.default_backend() != "cpu":
        return False
    rows, columns = (
        (n + 2 * p - m) // s + 1 for n, p, m, s in zip(shape[1:-1], pads, size, stride, strict=True)
    )
    return (features >= MIN_FEATURES or not computed) and features * rows * columns > MIN_SIZE


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(
    x: Lazy, kernel: Float[Array, "*size c k"], stride: tuple[int, ...], pads: tuple[int, ...]
) -> Float[Array, "b *out k"]:
    """Convolution with symmetric padding: x (b, *space, c), kernel (*size, c, k) -> (b, *space / stride, k).

    Differentiable in reverse mode only. What is kept for the gradient of a lazy x is what it is computed from.
    """
    return _of_values(lazy.value(x), kernel, stride, pads)


def _of_values(x: Array, kernel: Array, stride: tuple[int, ...], pads: tuple[int, ...]) -> Array:
    return (_fold_depth if len(stride) == 3 else plain)(x, kernel, stride, pads)


def plain(
    x: Float[Array, "b *space c"],
    kernel: Float[Array, "*size c k"],
    stride: tuple[int, ...],
    pads: tuple[int, ...],
) -> Float[Array, "b *out k"]:
    """The same as XLA does it, with XLA's gradients; 2-D or 3-D, on any backend."""
    sees_itself_alone = set(kernel.shape[:-2]) == set(stride) == {1} and not any(pads)
    if sees_itself_alone:
        return x @ kernel.reshape(kernel.shape[-2:])
    space = SPATIAL[len(stride)]
    dimensions = f"N{space}C", f"{space}IO", f"N{space}C"
    return lax.conv_general_dilated(x, kernel, stride, [(p, p) for p in pads], dimension_numbers=dimensions)


def _forward(
    x: Lazy, kernel: Array, stride: tuple[int, ...], pads: tuple[int, ...]
) -> tuple[Array, tuple[Lazy, Array]]:
    return conv(x, kernel, stride, pads), (x, kernel)


def _backward(
    stride: tuple[int, ...], pads: tuple[int, ...], saved: tuple[Lazy, Array], grad: Array
) -> tuple[Lazy, Array]:
    x, kernel = saved
    values, to_parts = jax.vjp(lazy.value, x)
    grad_x = _input_gradient(values, kernel, stride, pads, grad)
    if len(stride) == 3:
        grad_kernel = jnp.stack([_tap_gradient(i, x, k, stride, pads, grad) for i, k in enumerate(kernel)])
    else:
        grad_kernel = kernel_gradient(x, grad, kernel.shape[:2], stride, pads)
    return to_parts(grad_x)[0], grad_kernel.astype(kernel.dtype)


conv.defvjp(_forward, _backward)


def _input_gradient(
    x: Array, kernel: Array, stride: tuple[int, ...], pads: tuple[int, ...], grad: Array
) -> Array:
    if (*kernel.shape[:-2], *stride, *pads) == (4, 4, 2, 2, 1, 1) and not (x.shape[1] % 2 or x.shape[2] % 2):
        return subpixel.transposed(plain, grad, kernel.swapaxes(-2, -1))
    (grad_x,) = jax.vjp(lambda x: _of_values(x, kernel, stride, pads), x)[1](grad)
    return grad_x


def kernel_gradient(
    x: Lazy, grad: Float[Array, "b rows columns k"], size: Pair, stride: Pair, pads: Pair
) -> Float[Array, "height width c k"]:
    """Gradient of the kernel from the input x (b, h, w, c) and the output's gradient (b, rows, columns, k).

    A strip is some rows of one image, or some whole images. Returns (*size, c, k), float32.
    """
    batch, c, (height, width, k) = grad.shape[0], lazy.shape(x)[-1], grad.shape[1:]
    keeps_size = stride == (1, 1) and all(2 * p + 1 == n for p, n in zip(pads, size, strict=True))
    taps = _split_taps if keeps_size else _gathered_taps
    rows = largest_divisor(height, STRIP_PIXELS // width)
    images = largest_divisor(batch, STRIP_PIXELS // (height * width)) if rows == height else 1

    def add_images(b: Any, total: Array) -> Array:
        some_x = lazy.value(lazy.images(x, b * images, images))
        some_grad = lax.dynamic_slice_in_dim(grad, b * images, images)
        factors = taps(some_x, some_grad, rows, size, stride, pads)

        def add_strip(s: Any, total: Array) -> Array:
            seen, grads = factors(s)
            products = [
                jnp.einsum("nhwc,nhwk->ck", seen, g, preferred_element_type=jnp.float32) for g in grads
            ]
            return total + jnp.stack(products)

        return lax.fori_loop(0, height // rows, add_strip, total)

    shape = (size[0], size[1] * c, k) if keeps_size else (1, size[0] * size[1] * c, k)
    return lax.fori_loop(0, batch // images, add_images, jnp.zeros(shape, jnp.float32)).reshape(*size, c, k)


def _split_taps(x: Array, grad: Array, rows: int, size: Pair, stride: Pair, pads: Pair) -> Any:
    """A convolution that keeps the size: strip -> the factors of its products, one for each row of the kernel.

    Tap (i, j) is the sum over pixels of x[row, column + j − p] · grad[row + p − i, column]. The shifts of the columns
    are side by side in x's channels; those of the rows are slices of the gradient, which needn't be copied together.
    """
    width = x.shape[2]
    padded = jnp.pad(grad, ((0, 0), (pads[0],) * 2, (0, 0), (0, 0)))

    def factors(s: Any) -> tuple[Array, list[Array]]:
        strip = lax.dynamic_slice_in_dim(x, s * rows, rows, 1)
        strip = jnp.pad(strip, ((0, 0), (0, 0), (pads[1],) * 2, (0, 0)))
        halo = lax.dynamic_slice_in_dim(padded, s * rows, rows + size[0] - 1, 1)
        columns = [strip[:, :, j : j + width] for j in range(size[1])]
        return jnp.concatenate(columns, -1), [halo[:, i : i + rows] for i in reversed(range(size[0]))]

    return factors


def _gathered_taps(x: Array, grad: Array, rows: int, size: Pair, stride: Pair, pads: Pair) -> Any:
    """Any convolution: strip -> what each output pixel sees, all taps side by side, and its gradient, alone."""
    width = grad.shape[2]
    padded = jnp.pad(x, ((0, 0), (pads[0],) * 2, (pads[1],) * 2, (0, 0)))
    last_row, last_column = (rows - 1) * stride[0] + 1, (width - 1) * stride[1] + 1

    def factors(s: Any) -> tuple[Array, list[Array]]:
        strip = lax.dynamic_slice_in_dim(padded, s * rows * stride[0], last_row + size[0] - 1, 1)
        seen = [
            strip[:, i : i + last_row : stride[0], j : j + last_column : stride[1]]
            for i in range(size[0])
            for j in range(size[1])
        ]
        return jnp.concatenate(seen, -1), [lax.dynamic_slice_in_dim(grad, s * rows, rows, 1)]

    return factors


def largest_divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`; 1 if need be."""
    return max(d for d in range(1, n + 1) if n % d == 0 and (d == 1 or d <= most))


def folds(kernel: tuple[int, ...]) -> bool:
    """Whether a convolution with a kernel of this shape, (*size, c, k), is for `conv` at any size: 3-D on a CPU."""
    return len(kernel) == 5 and jax.default_backend() == "cpu"


def _fold_depth(x: Array, kernel: Array, stride: tuple[int, ...], pads: tuple[int, ...]) -> Array:
    """The 3-D convolution as a sum of 2-D ones, one per slice of the kernel, the slices folded into the batch."""
    batch, depth = x.shape[:2]
    size = kernel.shape[0]
    slices = (depth + 2 * pads[0] - size) // stride[0] + 1
    if pads[0]:
        x = jnp.pad(x, ((0, 0), (pads[0], pads[0]), (0, 0), (0, 0), (0, 0)))
    parts = (lazy.slices(x, i, slices, stride[0]) for i in range(size))
    y = reduce(jnp.add, (plain(part, k, stride[1:], pads[1:]) for part, k in zip(parts, kernel, strict=True)))
    return y.reshape(batch, slices, *y.shape[1:])


def _tap_gradient(
    i: int, x: Lazy, kernel: Array, stride: tuple[int, ...], pads: tuple[int, ...], grad: Array
) -> Array:
    """The kernel of slice i of a volume's: that of a 2-D convolution of the slices that it sees."""
    depth = lazy.shape(x)[1]
    seeing = [s for s in range(grad.shape[1]) if 0 <= s * stride[0] + i - pads[0] < depth]
    if not seeing:
        return jnp.zeros(kernel.shape)
    seen = lazy.slices(x, seeing[0] * stride[0] + i - pads[0], len(seeing), stride[0])
    grad, plane = lazy.slices(grad, seeing[0], len(seeing)), (stride[1:], pads[1:])
    if pays(lazy.shape(seen), kernel.shape, *plane, lazy.is_computed(x)):
        return kernel_gradient(seen, grad, kernel.shape[:2], *plane)
    return jax.vjp(lambda kernel: plain(lazy.value(seen), kernel, *plane), kernel)[1](grad)[0]
