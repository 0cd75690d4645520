"""The convolutional autoencoder of masks: R of the monitoring paper (Galati & Zuluaga, FIMH 2021)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qcjax.models.cpu import lazy
from qcjax.models.layers import BatchNorm, Conv, ConvTranspose, Dropout, he_normal, he_uniform
from qcjax.typing import Array, Float, Weights

SLOPE = 0.2
# (channels as a multiple of the width, kernel, stride)
ENCODER = ((1, 4, 2), (1, 4, 2), (1, 4, 2), (1, 3, 1), (2, 4, 2), (2, 3, 1), (4, 4, 2), (2, 3, 1), (1, 3, 1))
DECODER = ((1, 4, 2), (2, 3, 1), (4, 3, 1), (2, 4, 2), (2, 3, 1), (1, 4, 2), (1, 3, 1), (1, 4, 2), (1, 4, 2))
REDUCTION = 64  # the latent space has 1/64 of the input's height and width


class MaskAutoencoder(nn.Module):
    """Rebuilds a mask from a latent space of h/64 × w/64 × `latent`.

    The defaults are the paper's sizes: 779,176 parameters. `initialisation` is "he_normal" (paper) or "he_uniform"
    (the authors' code, with PyTorch's random biases).

    Call: class probabilities or a one-hot mask (b, h, w, k), h and w divisible by 64; `batch_stats` normalises by
    the batch's statistics (training), `dropout` draws masks (training), weight (b,) is 0 for padding.
    Returns class probabilities (b, h, w, k), float32.
    """

    classes: int = 4
    width: int = 32
    latent: int = 100
    dropout_rate: float = 0.5
    initialisation: str = "he_normal"
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
        """As the call, but logits; a tuple of one, as the segmenters have it.

        Raises ValueError where h or w is no multiple of 64, or the classes don't match.
        """
        if x.shape[1] % REDUCTION or x.shape[2] % REDUCTION or x.shape[3] != self.classes:
            raise ValueError(
                f"MaskAutoencoder: input of shape {x.shape} found, expected (b, h, w, {self.classes}) "
                f"with h and w multiples of {REDUCTION}"
            )
        uniform = self.initialisation == "he_uniform"
        he = he_uniform if uniform else he_normal
        options = dict(random_bias=uniform, dtype=self.dtype)

        def block(layer: Conv | ConvTranspose, x: Array, name: str) -> Array:
            x, bias = layer.apart(x)
            norm = BatchNorm(axis_name=self.axis_name, name=f"{name}_norm")
            factor, offset = norm.factors(x, batch_stats, weight, bias)
            x = jax.nn.leaky_relu(lazy.scaled(x, factor, offset), SLOPE)
            return Dropout(self.dropout_rate, self.axis_name)(x, dropout)

        def conv(features: int, k: int, s: int, name: str) -> Conv:
            return Conv(features, (k, k), (s, s), padding=1, kernel_init=he(), **options, name=name)

        def up(features: int, k: int, s: int, name: str) -> ConvTranspose:
            return ConvTranspose(
                features, (k, k), (s, s), kernel_init=he(transposed=True), **options, name=name
            )

        x = x.astype(self.dtype)
        for i, (multiple, k, s) in enumerate(ENCODER):
            x = block(conv(multiple * self.width, k, s, f"encoder_{i}"), x, f"encoder_{i}")
        x = conv(self.latent, 4, 2, "latent")(x)
        for i, (multiple, k, s) in enumerate(DECODER):
            x = block(up(multiple * self.width, k, s, f"decoder_{i}"), x, f"decoder_{i}")
        return (up(self.classes, 4, 2, "head")(x).astype(jnp.float32),)

    def __call__(
        self, x: Array, batch_stats: bool = False, dropout: bool = False, weight: Array | None = None
    ) -> Array:
        return jax.nn.softmax(self.logits(x, batch_stats, dropout, weight)[0])
