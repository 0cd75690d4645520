"""Strided convolutions turned round: each phase of the output's grid is a channel at the input's resolution."""

from collections.abc import Callable
from math import prod
from typing import Any

import jax.numpy as jnp
from jax import lax

from qcjax.typing import Array, Float


def transposed(
    convolve: Callable[..., Any], x: Float[Array, "b *space c"], w: Float[Array, "*size c k"]
) -> Float[Array, "b *out k"]:
    """Transposed convolution with kernel 4, stride 2, padding 1 in every direction.

    Output 2j−1+p sees inputs j−1 and j, through taps 2+p and p (p = 0, 1).

    Args:
      convolve: (x, kernel, stride, pads) -> the convolution.
      x: (b, *space, c).
      w: (*size, c, k), unflipped. Returns (b, *2·space, k).
    """
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


def depth_to_space(x: Float[Array, "b *space fc"], factors: tuple[int, ...]) -> Float[Array, "b *out c"]:
    """(b, *space, factors·c) -> (b, *space · factors, c); the factors vary slowest within the channels."""
    b, *space, c = x.shape
    ndim = len(factors)
    x = x.reshape(b, *space, *factors, c // prod(factors))
    order = [i for a in range(ndim) for i in (1 + a, 1 + ndim + a)]
    return x.transpose(0, *order, 1 + 2 * ndim).reshape(
        b, *(n * f for n, f in zip(space, factors, strict=True)), c // prod(factors)
    )
