"""The 2-D or 3-D U-Net of nnU-Net: the refinement paper's BN1 (Full et al., STACOM 2020)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qcjax.models.cpu import lazy
from qcjax.models.cpu.lazy import Activation, Concatenation, Lazy
from qcjax.models.layers import BatchNorm, Conv, ConvTranspose, Dropout, he_normal
from qcjax.typing import Array, Float, Weights

SLOPE = 0.01


class _ConvBlock(nn.Module):
    """Convolution, dropout, batch norm, leaky ReLU."""

    features: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dropout_rate: float
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(
        self, inputs: tuple[Lazy, ...], batch_stats: bool, dropout: bool, weight: Array | None
    ) -> Activation:
        conv = Conv(
            self.features,
            self.kernel,
            self.stride,
            kernel_init=he_normal(SLOPE),
            dtype=self.dtype,
            name="conv",
        )
        if dropout and self.dropout_rate > 0:
            x, bias = Dropout(self.dropout_rate, self.axis_name)(conv(*inputs), dropout), None
        else:
            x, bias = conv.apart(*inputs)
        norm = BatchNorm(axis_name=self.axis_name, name="norm")
        return Activation(x, *norm.factors(x, batch_stats, weight, bias), SLOPE)


class NnUNet(nn.Module):
    """U-Net with strided convolutions down, transposed ones up, and an output at every resolution.

    The defaults are the original's sizes: 7 stages, 29,968,992 parameters. `strides` has one entry per stage (the
    first is usually 1s) and its length per entry, 2 or 3, makes the network 2-D or 3-D. `dropout_stages` are the
    encoder stages (and the decoder stages at the same resolution) whose convolutions have dropout.

    Call: images (b, *space, c), the space divisible by the product of the strides; `batch_stats` normalises by the
    batch's statistics (training), `dropout` draws masks (training and MC-dropout), weight (b,) is 0 for padding.
    Returns class probabilities (b, *space, k), float32.
    """

    classes: int = 4
    width: int = 32
    max_width: int = 480
    strides: tuple[tuple[int, ...], ...] = ((1, 1), *((2, 2),) * 6)
    kernels: tuple[tuple[int, ...], ...] | None = None  # one per stage; 3 in every direction if None
    dropout_rate: float = 0.0
    dropout_stages: tuple[int, ...] = ()
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def logits(
        self,
        x: Float[Array, "b *space c"],
        batch_stats: bool = False,
        dropout: bool = False,
        weight: Weights | None = None,
    ) -> tuple[Float[Array, "b *_ k"], ...]:
        """As the call, but logits at every resolution, the finest first: (b, *space / 2^i, k), float32."""
        n, ndim = len(self.strides), len(self.strides[0])
        kernels = self.kernels or ((3,) * ndim,) * n
        ones = (1,) * ndim

        def stage(inputs: tuple[Lazy, ...], i: int, name: str, stride: tuple[int, ...]) -> Lazy:
            features = min(self.width * 2**i, self.max_width)
            rate = self.dropout_rate if i in self.dropout_stages else 0.0
            for j in range(2):
                block = _ConvBlock(
                    features,
                    kernels[i],
                    stride if j == 0 else ones,
                    rate,
                    self.axis_name,
                    self.dtype,
                    name=f"{name}_{i}_{j}",
                )
                inputs = (block(inputs, batch_stats, dropout, weight),)
            return inputs[0]

        y: Lazy = x.astype(self.dtype)
        skips = []
        for i in range(n):
            y = stage((y,), i, "down", self.strides[i])
            skips.append(y)
        outputs = []
        for i in reversed(range(n - 1)):
            stride = self.strides[i + 1]
            up = ConvTranspose(
                lazy.shape(skips[i])[-1],
                stride,
                stride,
                use_bias=False,
                kernel_init=he_normal(SLOPE, transposed=True),
                dtype=self.dtype,
                name=f"upsample_{i}",
            )(y)
            # what comes before the first dropout is common to all samples of a vmap over keys: convolved apart
            apart = dropout and self.dropout_rate > 0 and i < min(self.dropout_stages, default=0)
            joined = (up, skips[i]) if apart else (Concatenation((up, skips[i])),)
            y = stage(joined, i, "up", ones)
            head = Conv(
                self.classes,
                ones,
                use_bias=False,
                kernel_init=he_normal(SLOPE),
                dtype=self.dtype,
                name=f"head_{i}",
            )
            outputs.append(head(y).astype(jnp.float32))
        return tuple(reversed(outputs))

    def __call__(
        self, x: Array, batch_stats: bool = False, dropout: bool = False, weight: Array | None = None
    ) -> Array:
        return jax.nn.softmax(self.logits(x, batch_stats, dropout, weight)[0])
