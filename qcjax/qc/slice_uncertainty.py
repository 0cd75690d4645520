"""Uncertainty of cases that are segmented slice by slice, as sums over slices that add up to those of a case.

The measures are those of `qc.uncertainty` with all slices of a case taken as one image, so Dice coefficients are of
whole volumes; but a batch holds any slices, of any case, and nothing larger than a few numbers leaves the device.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Integer

from qcjax.qc.uncertainty import Moments, maps
from qcjax.typing import AnyArray, Array, Float, PRNGKey, Shaped, Variables


class SliceSums(NamedTuple):
    """Sums over the pixels of each of b slices, of some samples of it."""

    pixels: AnyArray  # (b,) how many
    foreground: AnyArray  # (b,) how many aren't background in the mean's segmentation
    variance: AnyArray  # (b,)
    variance_foreground: AnyArray  # (b,)
    entropy: AnyArray  # (b,)
    mutual_information: AnyArray  # (b,)
    overlap: (
        AnyArray  # (b, structures, 1 + n, 1 + n) pixels that two segmentations share; the mean's is the first
    )


class CaseMeasures(NamedTuple):
    """The measures of uncertainty of a whole case."""

    variance: float  # mean over all of its slices (Eq. 4 of the uncertainty paper)
    variance_foreground: float  # mean over the foreground of the mean's segmentation; NaN where there is none
    entropy: float
    mutual_information: float
    dice_within_samples: Float[np.ndarray, " structures"]  # Eq. 6
    pairwise_dice: Float[np.ndarray, " structures"]


def has_dropout(segmenter: nn.Module) -> bool:
    """Whether samples of it can differ."""
    rate = getattr(segmenter, "dropout_rate", 0.0)
    return bool(rate) and getattr(segmenter, "dropout_stages", None) != ()


def slice_keys(key: PRNGKey, places: Integer[Array, "b numbers"]) -> Shaped[Array, "b ..."]:
    """A key for each slice from the numbers that tell it apart, (b, numbers) -> (b,)."""

    def one(numbers: Array) -> Array:
        found = key
        for number in numbers:
            found = jax.random.fold_in(found, number)
        return found

    return jax.vmap(one)(places)


def draw_slices(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b *space c"],
    keys: Shaped[Array, "b ..."],
    numbers: Integer[Array, " n"],
) -> Float[Array, "n b *space k"]:
    """The samples of these numbers, each slice (or volume) by a key of its own: (n, b, *space, k).

    So a slice's samples don't depend on what else is in the batch, nor on the device that it is on: they are those of
    `uncertainty.mc_predict` of that slice alone. What lies before the first dropout is computed once.

    Args:
      model: a segmenter with dropout that reduces over no devices (no `axis_name`).
      images: (b, *space, c).
      keys: (b,).
      numbers: (n,) such as 0 to 4, or 5 to 9.
    """

    def sample(image: Array, key: PRNGKey) -> Array:
        return model.apply(variables, image[None], False, True, rngs={"dropout": key})[0]

    of_number = jax.vmap(lambda n: jax.vmap(lambda key: jax.random.fold_in(key, n))(keys))(numbers)
    return jax.vmap(jax.vmap(sample), (None, 0))(images, of_number)


def slice_sums(total: Moments, labels: Integer[Array, "n b h w"]) -> SliceSums:
    """The sums of b slices, from the moments of their n samples and the samples' arg-maxes, (n, b, h, w)."""
    found = maps(total)
    segmented = total.mean.argmax(-1)
    foreground = segmented > 0
    structures = jnp.arange(1, total.mean.shape[-1])[:, None, None]
    both = jnp.concatenate([segmented[None].astype(labels.dtype), labels])
    flat = both.reshape(*both.shape[:2], -1).swapaxes(0, 1)  # (b, 1 + n, pixels)

    def overlap(segmentations: Array) -> Array:  # (1 + n, pixels)
        member = (segmentations == structures).astype(
            jnp.float32
        )  # of each structure; sums of 0 and 1 are exact
        return member @ member.swapaxes(1, 2)

    axes = (1, 2)
    return SliceSums(
        pixels=jnp.full(flat.shape[0], flat.shape[-1], jnp.float32),
        foreground=foreground.sum(axes, dtype=jnp.float32),
        variance=found.variance.sum(axes),
        variance_foreground=jnp.where(foreground, found.variance, 0).sum(axes),
        entropy=found.entropy.sum(axes),
        mutual_information=found.mutual_information.sum(axes),
        overlap=lax.map(overlap, flat),  # one slice at a time, which bounds the memory
    )


def case_measures(slices: SliceSums) -> CaseMeasures:
    """The measures of one case from the sums of its slices, on the host."""
    whole = SliceSums(*(np.asarray(x, np.float64).sum(0) for x in slices))
    dice = _dice(whole.overlap)
    samples = dice[:, 1:, 1:]
    pairs = np.triu_indices(samples.shape[-1], 1)
    return CaseMeasures(
        variance=float(whole.variance / whole.pixels),
        variance_foreground=float(whole.variance_foreground / whole.foreground)
        if whole.foreground
        else math.nan,
        entropy=float(whole.entropy / whole.pixels),
        mutual_information=float(whole.mutual_information / whole.pixels),
        dice_within_samples=dice[:, 0, 1:].mean(-1),
        pairwise_dice=samples[:, *pairs].mean(-1) if len(pairs[0]) else np.ones(len(samples)),
    )


def _dice(overlap: np.ndarray) -> np.ndarray:
    """Dice of each two of m segmentations, (structures, m, m), 1 where neither has the structure, from overlaps."""
    size = np.diagonal(overlap, axis1=1, axis2=2)
    sizes = size[:, :, None] + size[:, None, :]
    return np.divide(2 * overlap, sizes, out=np.ones_like(sizes), where=sizes > 0)
