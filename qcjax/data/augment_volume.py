"""Augmentation of volumes on the device: place and size, intensities, and random patches.

Slices are several times farther apart than pixels, so all slices of a volume move together in plane; nothing is
interpolated across them. Every sample has a key of its own.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from qcjax.data.augment import Augmentation, coordinates, sample_cubic, sample_nearest
from qcjax.data.batches import Batch
from qcjax.typing import Array, Bool, Float, Integer, Keys, PRNGKey

FOREGROUND_SHARE = 1 / 3  # of patches that are sure to show foreground, as nnU-Net oversamples it


@dataclass(frozen=True)
class VolumeAugmentation(Augmentation):
    """Random changes of a volume: those in plane of `Augmentation`, and of z-scored intensities."""

    mirror_slices: float = 0.0  # probability that base and apex change places
    intensity: float = 0.2  # probability of each of the following
    noise: float = 0.3  # Gaussian, its sd uniform from 0 to this
    brightness: float = 0.3  # added, uniform within ±
    contrast: tuple[float, float] = (0.75, 1.25)  # factor about the mean
    gamma: tuple[float, float] = (0.7, 1.5)  # exponent between the extremes; mean and sd stay


def augment_volume(
    key: PRNGKey,
    image: Float[Array, "s h w"],
    label: Integer[Array, "s h w"],
    mask: Bool[Array, "s h w"],
    options: VolumeAugmentation,
) -> tuple[Float[Array, "s h w"], Integer[Array, "s h w"], Bool[Array, "s h w"]]:
    """Change one volume: image (s, h, w), label (s, h, w), mask (s, h, w) -> the same shapes.

    Images by cubic convolution, labels and masks by nearest neighbour. What comes from outside is 0 in the image, as
    padding is, and False in the mask.
    """
    in_plane, across, intensities = jax.random.split(key, 3)
    _, h, w = image.shape
    row, column = coordinates(in_plane, h, w, options)
    over_slices = (0, None, None)
    image = jax.vmap(sample_cubic, over_slices)(image, row, column)
    label = jax.vmap(sample_nearest, over_slices)(label, row, column)
    mask = jax.vmap(sample_nearest, over_slices)(mask.astype(jnp.int32), row, column) > 0
    if options.mirror_slices > 0:
        flip = jax.random.bernoulli(across, options.mirror_slices)
        image, label, mask = (jnp.where(flip, x[::-1], x) for x in (image, label, mask))
    if options.intensity > 0:
        image = change_intensities(intensities, image, mask, options)
    return jnp.where(mask, image, 0), label, mask


def change_intensities(
    key: PRNGKey, image: Float[Array, "s h w"], mask: Bool[Array, "s h w"], options: VolumeAugmentation
) -> Float[Array, "s h w"]:
    """Noise, brightness, contrast and gamma, each or none of them: image (s, h, w) -> the same shape.

    The mean, sd and extremes that contrast and gamma refer to are those where the mask is True.
    """
    scalars, voxels = jax.random.split(key)
    low = jnp.array([0.0, -options.brightness, options.contrast[0], options.gamma[0]])
    high = jnp.array([options.noise, options.brightness, options.contrast[1], options.gamma[1]])
    chance, place = jax.random.uniform(scalars, (2, 4))
    apply = chance < options.intensity
    spread, shift, factor, exponent = low + place * (high - low)
    count = jnp.maximum(mask.sum(dtype=jnp.float32), 1)

    def moments(x: Array) -> tuple[Array, Array]:
        mean = jnp.where(mask, x, 0).sum() / count
        return mean, jnp.sqrt(jnp.where(mask, (x - mean) ** 2, 0).sum() / count)

    image = jnp.where(apply[0], image + spread * jax.random.normal(voxels, image.shape), image)
    image = jnp.where(apply[1], image + shift, image)
    mean, sd = moments(image)
    image = jnp.where(apply[2], (image - mean) * factor + mean, image)
    sd = jnp.where(apply[2], sd * factor, sd)

    darkest, brightest = jnp.where(mask, image, jnp.inf).min(), jnp.where(mask, image, -jnp.inf).max()
    share = jnp.clip((image - darkest) / jnp.maximum(brightest - darkest, 1e-6), 0, 1)
    bent = share**exponent
    bent_mean, bent_sd = moments(bent)
    bent = (bent - bent_mean) * sd / jnp.maximum(bent_sd, 1e-6) + mean
    return jnp.where(apply[3] & mask.any(), bent, image)


def augment_volumes(keys: Keys, batch: Batch, options: VolumeAugmentation) -> Batch:
    """`augment_volume` for every sample of a batch (b, s, h, w, 1), with a key each: keys (b,)."""
    mask = jnp.ones(batch.label.shape, bool) if batch.mask is None else batch.mask
    image, label, mask = jax.vmap(lambda k, i, y, m: augment_volume(k, i, y, m, options))(
        keys, batch.image[..., 0], batch.label, mask
    )
    return Batch(image[..., None], label, batch.weight, mask)


def random_patches(
    keys: Keys, batch: Batch, patch: tuple[int, int, int], foreground: float = FOREGROUND_SHARE
) -> Batch:
    """A random window of each volume of a batch, with a key each: (b, s, h, w, 1) -> (b, *patch, 1).

    Anywhere in the volume; with probability `foreground`, as far as the borders let it, centred on a random voxel of
    the foreground, if there is one. A batch of the patch's own shape comes back as it is.

    Args:
      patch: (s, h, w), in voxels.

    Raises:
      ValueError: a patch that is larger than the volumes.
    """
    shape = batch.label.shape[1:]
    if tuple(patch) == shape:
        return batch
    if len(patch) != 3 or any(p > n for p, n in zip(patch, shape, strict=True)):
        raise ValueError(f"found patch {patch}; expected at most the volumes' shape {shape}")

    size, room = jnp.array(patch), jnp.array(shape) - jnp.array(patch)

    def first(key: PRNGKey, label: Array) -> Array:
        chance, rank, *place = jax.random.uniform(key, (5,))
        anywhere = jnp.floor(jnp.stack(place) * (room + 1).astype(jnp.float32)).astype(jnp.int32)
        voxel, found = _foreground_voxel(rank, label)
        start = jnp.where((chance < foreground) & found, voxel - size // 2, anywhere)
        return jnp.clip(start, 0, room)

    starts = jax.vmap(first)(keys, batch.label)

    def cut(x: Array) -> Array:
        return jax.vmap(lambda v, start: jax.lax.dynamic_slice(v, tuple(start), patch))(x, starts)

    mask = None if batch.mask is None else cut(batch.mask)
    return Batch(cut(batch.image[..., 0])[..., None], cut(batch.label), batch.weight, mask)


def _foreground_voxel(rank: Array, label: Array) -> tuple[Array, Array]:
    """The index (3,) of the voxel at a rank in [0, 1) among those of the foreground, and whether there is any."""
    s, h, w = label.shape
    lines = (label > 0).reshape(s * h, w)
    upto = jnp.cumsum(lines.sum(axis=1))
    place = jnp.minimum(jnp.floor(rank * upto[-1].astype(jnp.float32)).astype(jnp.int32), upto[-1] - 1)
    line = jnp.argmax(upto > place)
    within = place - (upto[line] - lines[line].sum())
    column = jnp.argmax(jnp.cumsum(lines[line]) > within)
    return jnp.stack([line // h, line % h, column]), upto[-1] > 0
