"""Augmentation on the device: (key, image, label) -> (image, label), one sample at a time, to be vmapped."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from qcjax.data.batches import Batch
from qcjax.typing import Array, Float, Integer, Keys, PRNGKey


@dataclass(frozen=True)
class Augmentation:
    """Random changes of place and size; the defaults are those of the refinement paper's code."""

    mirror: float = 0.5  # probability, for each axis
    rotation_deg: float = 30.0  # uniform within ±
    scale: tuple[float, float] = (
        0.7,
        1.4,
    )  # of the coordinates: below 1 enlarges; half of the draws each way
    placement: float = 0.1  # shift, uniform within ± this share of the side


# of ground-truth masks for an autoencoder: they keep their sides, and nearly their size
REFINEMENT_MASKS = Augmentation(mirror=0.0, rotation_deg=15.0, scale=(0.85, 1.15))
MONITORING_MASKS = Augmentation(mirror=0.0, rotation_deg=30.0, scale=(0.85, 1.15))


def augment(
    key: PRNGKey, image: Float[Array, "h w"], label: Integer[Array, "h w"], options: Augmentation
) -> tuple[Float[Array, "h w"], Integer[Array, "h w"]]:
    """Mirror, rotate, scale and shift a slice: image (h, w), label (h, w) -> the same shapes.

    Images by cubic convolution (Keys 1981, a = −½), labels by nearest neighbour; 0 outside.
    """
    h, w = image.shape
    row, column = coordinates(key, h, w, options)
    return sample_cubic(image, row, column), sample_nearest(label, row, column)


def coordinates(
    key: PRNGKey, h: int, w: int, options: Augmentation
) -> tuple[Float[Array, "{h} {w}"], Float[Array, "{h} {w}"]]:
    """Where in a slice each pixel of the augmented one comes from: rows (h, w) and columns (h, w), in pixels."""
    keys = jax.random.split(key, 5)
    flip = jnp.where(jax.random.bernoulli(keys[0], options.mirror, (2,)), -1.0, 1.0)
    angle = jnp.deg2rad(
        jax.random.uniform(keys[1], (), minval=-options.rotation_deg, maxval=options.rotation_deg)
    )
    low, high = options.scale
    share = jax.random.uniform(keys[2], ())
    shrink = jax.random.bernoulli(keys[3], 0.5)
    if low < 1 < high:
        scale = jnp.where(shrink, low + share * (1.0 - low), 1.0 + share * (high - 1.0))
    else:
        scale = low + share * (high - low)
    shift = jax.random.uniform(keys[4], (2,), minval=-options.placement, maxval=options.placement)
    y, x = jnp.meshgrid(_centred(h), _centred(w), indexing="ij")
    y, x = y * flip[0], x * flip[1]
    cos, sin = jnp.cos(angle) * scale, jnp.sin(angle) * scale
    row = cos * y - sin * x + (h - 1) / 2 + shift[0] * h
    column = sin * y + cos * x + (w - 1) / 2 + shift[1] * w
    return row, column


def _centred(n: int) -> Array:
    """Places of n pixels from their centre, in pixels."""
    return jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2


def augment_batch(keys: Keys, batch: Batch, options: Augmentation) -> Batch:
    """`augment` for every sample of a batch, with a key each."""
    image, label = jax.vmap(lambda k, i, y: augment(k, i, y, options))(keys, batch.image[..., 0], batch.label)
    return Batch(image[..., None], label, batch.weight)


def sample_nearest(
    label: Integer[Array, "h w"], row: Float[Array, "*at"], column: Float[Array, "*at"]
) -> Integer[Array, "*at"]:
    """Labels (h, w) at rows and columns of any shape, by nearest neighbour; 0 outside."""
    h, w = label.shape
    r, c = jnp.round(row).astype(jnp.int32), jnp.round(column).astype(jnp.int32)
    inside = (r >= 0) & (r < h) & (c >= 0) & (c < w)
    return jnp.where(inside, label.reshape(-1)[jnp.clip(r, 0, h - 1) * w + jnp.clip(c, 0, w - 1)], 0)


def sample_cubic(
    image: Float[Array, "h w"], row: Float[Array, "*at"], column: Float[Array, "*at"]
) -> Float[Array, "*at"]:
    """An image (h, w) at rows and columns of any shape, by cubic convolution; 0 outside."""
    h, w = image.shape
    padded = jnp.pad(image, 2).reshape(-1)  # neighbours outside are 0
    r0, c0 = jnp.floor(row), jnp.floor(column)
    rows, columns = _keys(row - r0), _keys(column - c0)
    r = (
        jnp.clip(r0.astype(jnp.int32), -1, h - 1) + 1
    )  # index of the first of 4 neighbours, in the padded image
    c = jnp.clip(c0.astype(jnp.int32), -1, w - 1) + 1
    value = jnp.zeros_like(row)
    for i in range(4):
        line = jnp.zeros_like(row)
        for j in range(4):
            line = line + columns[j] * padded[(r + i) * (w + 4) + c + j]
        value = value + rows[i] * line
    inside = (row >= -1) & (row < h) & (column >= -1) & (column < w)
    return jnp.where(inside, value, 0)


def _keys(t: Array) -> tuple[Array, Array, Array, Array]:
    """Weights of the neighbours at −1, 0, 1, 2 for a fraction t in [0, 1)."""
    t2, t3 = t * t, t * t * t
    return -0.5 * t + t2 - 0.5 * t3, 1 - 2.5 * t2 + 1.5 * t3, 0.5 * t + 2 * t2 - 1.5 * t3, 0.5 * (t3 - t2)
