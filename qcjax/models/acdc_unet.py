"""The 2-D U-Net of Isensee et al. (ACDC challenge, STACOM 2017): the refinement paper's BN2."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qcjax.models.layers import BatchNorm, Conv, Dropout, max_pool, upsample
from qcjax.typing import Array, Float, Weights

SLOPE = 0.01
DROPOUT = 0.3


class _Stage(nn.Module):
    """Twice: convolution 3×3, leaky ReLU, then batch norm."""

    features: int
    random_bias: bool
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, batch_stats: bool, weight: Array | None) -> Array:
        for j in range(2):
            x = Conv(self.features, random_bias=self.random_bias, dtype=self.dtype, name=f"conv_{j}")(x)
            x = BatchNorm(axis_name=self.axis_name, name=f"norm_{j}")(
                jax.nn.leaky_relu(x, SLOPE), batch_stats, weight
            )
        return x


class AcdcUNet(nn.Module):
    """U-Net with max-pooling, dropout, and the logits of two coarser resolutions added to the output's.

    The defaults are the original's sizes: width 48, 17,661,372 parameters. `random_bias` draws biases as PyTorch
    does by default (the authors' code) instead of zeros.

    Call: images (b, h, w, c), h and w divisible by 16; `batch_stats` normalises by the batch's statistics
    (training), `dropout` draws masks (training and MC-dropout), weight (b,) is 0 for padding.
    Returns class probabilities (b, h, w, k), float32.
    """

    classes: int = 4
    width: int = 48
    dropout_rate: float = DROPOUT
    random_bias: bool = False
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
        """As the call, but logits; a tuple of one, because there is one output."""

        def stage(x: Array, i: int, name: str) -> Array:
            return _Stage(
                self.width * 2**i, self.random_bias, self.axis_name, self.dtype, name=f"{name}_{i}"
            )(x, batch_stats, weight)

        def drop(x: Array) -> Array:
            return Dropout(self.dropout_rate, self.axis_name)(x, dropout)

        def head(x: Array, name: str) -> Array:
            conv = Conv(self.classes, (1, 1), random_bias=self.random_bias, dtype=self.dtype, name=name)
            return conv(x).astype(jnp.float32)

        x = x.astype(self.dtype)
        skips = []
        for i in range(5):
            if i > 0:
                x = max_pool(x)
            x = stage(drop(x) if i > 1 else x, i, "down")
            skips.append(x)
        decoder = {}
        for i in reversed(range(4)):
            x = stage(drop(jnp.concatenate([upsample(x), skips[i]], -1)), i, "up")
            decoder[i] = x
        coarse = upsample(head(decoder[2], "head_2")) + head(decoder[1], "head_1")
        return (head(decoder[0], "head_0") + upsample(coarse),)

    def __call__(
        self, x: Array, batch_stats: bool = False, dropout: bool = False, weight: Array | None = None
    ) -> Array:
        return jax.nn.softmax(self.logits(x, batch_stats, dropout, weight)[0])
