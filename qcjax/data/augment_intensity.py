"""Random changes of a slice's intensities, on the device: (key, image) -> image, one sample at a time, to be vmapped.

What differs from scanner to scanner: shading by the coils, noise, sharpness, brightness, contrast, resolution, and
gamma. The kinds and ranges are nnU-Net's (Isensee et al., Nature Methods 2021); the bias field is ours. Images are
z-scored slices, so that brightness and noise are in standard deviations of the image.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from qcjax.typing import Array, Float, PRNGKey, Scalar

BLUR_RADIUS = 4  # pixels: more than three standard deviations of the widest blur
INVERTED = 0.3  # share of the changes of gamma that are made to the negative
TINY = 1e-6


@dataclass(frozen=True)
class Change:
    """How often something is changed, and between which limits its strength is drawn evenly."""

    probability: float
    low: float
    high: float


@dataclass(frozen=True)
class Intensity:
    """Every change of intensities; one of probability 0 is left out."""

    bias_field: Change = Change(0.4, 0.0, 0.3)
    """Logarithm of a smooth gain, of second order in the place: the standard deviation of its coefficients."""
    noise: Change = Change(0.2, 0.0, 0.3)
    """Gaussian noise: its standard deviation."""
    blur: Change = Change(0.2, 0.4, 1.2)
    """Gaussian blur: its standard deviation in pixels."""
    brightness: Change = Change(0.4, -0.4, 0.4)
    """What is added."""
    contrast: Change = Change(0.4, 0.65, 1.5)
    """What deviations from the mean are multiplied by; values stay in the image's range."""
    low_resolution: Change = Change(0.2, 0.5, 1.0)
    """Share of the pixels along each axis that are left, before they are interpolated linearly."""
    gamma: Change = Change(0.4, 0.65, 1.5)
    """The exponent of the values scaled to 0 to 1; mean and standard deviation stay."""


def change_intensity(key: PRNGKey, image: Float[Array, "h w"], options: Intensity) -> Float[Array, "h w"]:
    """A slice (h, w) of mean about 0 and standard deviation about 1, changed as a scanner might: (h, w)."""
    for number, (name, change) in enumerate(_CHANGES.items()):
        wanted: Change = getattr(options, name)
        if wanted.probability > 0:
            of_chance, of_strength, of_change = jax.random.split(jax.random.fold_in(key, number), 3)
            strength = jax.random.uniform(of_strength, (), minval=wanted.low, maxval=wanted.high)
            happens = jax.random.bernoulli(of_chance, wanted.probability)
            image = jnp.where(happens, change(of_change, image, strength), image)
    return image


def bias_field(key: PRNGKey, image: Float[Array, "h w"], strength: Scalar) -> Float[Array, "h w"]:
    """The image above its least value times exp of a polynomial of second order, coefficients of sd `strength`."""
    h, w = image.shape
    y, x = jnp.meshgrid(jnp.linspace(-1, 1, h), jnp.linspace(-1, 1, w), indexing="ij")
    terms = jnp.stack([x, y, x * y, x * x - 1 / 3, y * y - 1 / 3])
    field = jnp.tensordot(strength * jax.random.normal(key, (len(terms),)), terms, 1)
    least = image.min()
    return (image - least) * jnp.exp(field) + least


def noise(key: PRNGKey, image: Float[Array, "h w"], strength: Scalar) -> Float[Array, "h w"]:
    """An image with Gaussian noise of standard deviation `strength`."""
    return image + strength * jax.random.normal(key, image.shape)


def blur(key: PRNGKey, image: Float[Array, "h w"], strength: Scalar) -> Float[Array, "h w"]:
    """Through a Gaussian of standard deviation `strength`, in pixels; the edge is repeated outside."""
    offsets = jnp.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=jnp.float32)
    kernel = jnp.exp(-0.5 * jnp.square(offsets / jnp.maximum(strength, TINY)))
    kernel = kernel / kernel.sum()
    h, w = image.shape
    padded = jnp.pad(image, BLUR_RADIUS, mode="edge")
    rows = jnp.tensordot(kernel, jnp.stack([padded[i : i + h] for i in range(len(offsets))]), 1)
    return jnp.tensordot(kernel, jnp.stack([rows[:, i : i + w] for i in range(len(offsets))]), 1)


def brightness(key: PRNGKey, image: Float[Array, "h w"], strength: Scalar) -> Float[Array, "h w"]:
    """Brighter by `strength`."""
    return image + strength


def contrast(key: PRNGKey, image: Float[Array, "h w"], strength: Scalar) -> Float[Array, "h w"]:
    """Deviations from the mean times `strength`, within the image's own range."""
    mean = image.mean()
    return jnp.clip((image - mean) * strength + mean, image.min(), image.max())


def low_resolution(key: PRNGKey, image: Float[Array, "h w"], strength: Scalar) -> Float[Array, "h w"]:
    """As if of `strength` times as many pixels along each axis: the nearest are taken, and interpolated linearly."""
    return _coarser(_coarser(image, strength).T, strength).T


def _coarser(image: Array, share: Array) -> Array:
    """Along the first axis."""
    n = image.shape[0]
    at = (jnp.arange(n, dtype=jnp.float32) + 0.5) * share - 0.5  # in pixels of the coarser grid
    first = jnp.floor(at)
    between = (at - first)[:, None]

    def taken(coarse: Array) -> Array:
        coarse = jnp.clip(coarse, 0, jnp.maximum(jnp.round(n * share) - 1, 0))
        nearest = jnp.round((coarse + 0.5) / share - 0.5).astype(jnp.int32)
        return jnp.take(image, jnp.clip(nearest, 0, n - 1), axis=0)

    return (1 - between) * taken(first) + between * taken(first + 1)


def gamma(key: PRNGKey, image: Float[Array, "h w"], strength: Scalar) -> Float[Array, "h w"]:
    """Values scaled to 0 to 1 to the power of `strength`, or their negative; mean and standard deviation stay."""
    sign = jnp.where(jax.random.bernoulli(key, INVERTED), -1.0, 1.0)
    signed = image * sign
    least = signed.min()
    extent = signed.max() - least
    changed = jnp.power(jnp.maximum((signed - least) / (extent + TINY), TINY), strength)
    changed = (changed - changed.mean()) / (changed.std() + TINY)
    return sign * (changed * signed.std() + signed.mean())


_CHANGES = {
    "bias_field": bias_field,
    "noise": noise,
    "blur": blur,
    "brightness": brightness,
    "contrast": contrast,
    "low_resolution": low_resolution,
    "gamma": gamma,
}
