"""How samples of a prediction differ: what a segmenter doesn't know, per voxel, image and case.

The measures are those of the uncertainty paper (Arega et al., UNSURE 2021): sample variance per voxel (Eq. 2), its
mean over an image (Eq. 4), and the Dice agreement within the samples (Eq. 6); and those of information theory, of which
the mutual information of prediction and weights is the part that more data could remove (Gal 2016, section 3.3).
Everything works on slices (b, h, w, c) and on volumes (b, s, h, w, c). Where cases are segmented slice by slice, sums
over slices add up to those of a case, with all of its slices taken as one image.
"""

import math
from functools import reduce
from operator import or_
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Integer

from qcjax.typing import AnyArray, Array, Bool, Float

Regions = tuple[tuple[int, ...], ...]  # classes that make up each structure
BORDER = 2  # voxels in plane: what lies as near to a border of the mean segmentation isn't away from borders


class Moments(NamedTuple):
    """What the measures need of some samples, so that others can be added without keeping any."""

    n: Array  # () how many samples
    mean: Array  # (b, *space, k)
    squares: Array  # (b, *space, k) sum of squared deviations from the mean
    entropy: Array  # (b, *space) mean of the samples' own entropies


class Uncertainty(NamedTuple):
    """The mean of n samples of each image, and measures of how they differ; maps are per voxel."""

    mean: Array  # (b, *space, k) μ, Eq. 1
    variance: Array  # (b, *space) σ², Eq. 2, mean over the classes
    entropy: Array  # (b, *space) predictive entropy: of μ, in nats
    expected_entropy: Array  # (b, *space) mean of the samples' entropies
    mutual_information: Array  # (b, *space) the difference of the two
    dice_within_samples: Array  # (b, structures), Eq. 6: mean Dice of μ's segmentation and each sample's
    pairwise_dice: Array  # (b, structures) mean Dice of each pair of samples


class Maps(NamedTuple):
    """What differs between samples, per voxel; see `Uncertainty`."""

    variance: Array  # (b, *space)
    entropy: Array  # (b, *space)
    mutual_information: Array  # (b, *space)


class Aggregates(NamedTuple):
    """Means of a map over parts of each image, (b,); NaN where an image has no such part."""

    whole: Array
    foreground: Array  # where the segmentation isn't background
    interior: Array  # away from the segmentation's borders


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


def moments(probabilities: Float[Array, "n b *space k"]) -> Moments:
    """The moments of n samples of class probabilities, (n, b, *space, k)."""
    mean = probabilities.mean(0)
    return Moments(
        jnp.float32(probabilities.shape[0]),
        mean,
        jnp.square(probabilities - mean[None]).sum(0),
        entropy(probabilities).mean(0),
    )


def combine(a: Moments, b: Moments) -> Moments:
    """The moments of the samples of both (Chan, Golub & LeVeque 1979)."""
    n = a.n + b.n
    difference = b.mean - a.mean
    return Moments(
        n,
        a.mean + difference * (b.n / n),
        a.squares + b.squares + jnp.square(difference) * (a.n * b.n / n),
        (a.entropy * a.n + b.entropy * b.n) / n,
    )


def maps(total: Moments) -> Maps:
    """What differs between all samples, per voxel (Eq. 2 of the uncertainty paper for the variance)."""
    predictive = entropy(total.mean)
    return Maps(
        variance=(total.squares / total.n).mean(-1),
        entropy=predictive,
        mutual_information=jnp.maximum(predictive - total.entropy, 0),
    )


def measure(
    total: Moments, labels: Integer[Array, "n b *space"], regions: Regions | None = None
) -> Uncertainty:
    """The measures of all samples: their moments, and their arg-maxes (n, b, *space), integers."""
    of_voxels = maps(total)
    k = total.mean.shape[-1]
    segmented = jnp.concatenate([total.mean.argmax(-1)[None].astype(labels.dtype), labels])
    within, pairwise = sample_dice(overlaps(segmented, regions or single(k)))
    return Uncertainty(
        mean=total.mean,
        variance=of_voxels.variance,
        entropy=of_voxels.entropy,
        expected_entropy=total.entropy,
        mutual_information=of_voxels.mutual_information,
        dice_within_samples=within,
        pairwise_dice=pairwise,
    )


def entropy(probabilities: Float[Array, "*batch k"]) -> Float[Array, "*batch"]:
    """−Σ p·log p in nats: (*batch, k) -> (*batch)."""
    return -jax.scipy.special.xlogy(probabilities, probabilities).sum(-1)


def single(classes: int) -> Regions:
    """Every class but the background as a structure of its own."""
    return tuple((c,) for c in range(1, classes))


def overlaps(
    segmentations: Integer[Array, "m b *space"], regions: Regions
) -> Float[Array, "b structures m m"]:
    """How many voxels each two of m segmentations of an image share, per structure; on the diagonal, their sizes."""

    def of_image(labels: Array) -> Array:  # (m, voxels)
        inside = [reduce(or_, [labels == c for c in classes]) for classes in regions]
        member = jnp.stack(inside).astype(jnp.float32)  # sums of 0 and 1 are exact
        return member @ member.swapaxes(1, 2)

    flat = segmentations.reshape(*segmentations.shape[:2], -1).swapaxes(0, 1)
    return lax.map(of_image, flat)  # one image at a time, which bounds the memory


def sample_dice(
    overlap: Float[AnyArray, "*batch structures m m"],
) -> tuple[Float[AnyArray, "*batch structures"], Float[AnyArray, "*batch structures"]]:
    """DiceWithinSamples (Eq. 6) and the mean Dice of each pair of samples, from `overlaps`, on device or host.

    The first of the m segmentations is that of the samples' mean. Dice is 1 where neither has the structure; the mean
    over the pairs of a single sample is 1.
    """
    xp = overlap.__array_namespace__()
    sizes = xp.diagonal(overlap, axis1=-2, axis2=-1)
    both = sizes[..., :, None] + sizes[..., None, :]
    dice = xp.where(both > 0, 2 * overlap / xp.maximum(both, 1), 1.0)
    samples = dice[..., 1:, 1:]
    i, j = np.triu_indices(samples.shape[-1], 1)
    pairwise = samples[..., i, j].mean(-1) if len(i) else xp.ones_like(samples[..., 0, 0])
    return dice[..., 0, 1:].mean(-1), pairwise


def aggregate(
    values: Float[Array, "b *space"],
    labels: Integer[Array, "b *space"],
    mask: Bool[Array, "b *space"] | None = None,
    border: int = BORDER,
) -> Aggregates:
    """Image-level uncertainty: means of a map over the whole image, the foreground, and away from borders.

    Args:
      values: (b, *space), such as the variance (its mean over the whole image is Eq. 4).
      labels: (b, *space) the segmentation, integers.
      mask: (b, *space) False for padding, which doesn't count.
      border: in voxels in plane; `interior` has no other label as near as that.
    """
    real = jnp.ones(values.shape, bool) if mask is None else mask
    window = (1,) * (labels.ndim - 2) + (2 * border + 1,) * 2
    strides = (1,) * labels.ndim
    labels = labels.astype(jnp.int32)
    high = lax.reduce_window(labels, jnp.int32(-1), lax.max, window, strides, "SAME")
    low = lax.reduce_window(labels, jnp.iinfo(jnp.int32).max, lax.min, window, strides, "SAME")
    axes = tuple(range(1, values.ndim))

    def over(part: Array) -> Array:
        count = part.sum(axes, dtype=jnp.float32)
        return jnp.where(count > 0, jnp.where(part, values, 0).sum(axes) / jnp.maximum(count, 1), jnp.nan)

    return Aggregates(over(real), over(real & (labels > 0)), over(real & (high == low)))


def slice_sums(total: Moments, labels: Integer[Array, "n b h w"]) -> SliceSums:
    """The sums of b slices, from the moments of their n samples and the samples' arg-maxes, (n, b, h, w)."""
    found = maps(total)
    segmented = total.mean.argmax(-1)
    foreground = segmented > 0
    both = jnp.concatenate([segmented[None].astype(labels.dtype), labels])
    axes = (1, 2)
    return SliceSums(
        pixels=jnp.full(labels.shape[1], math.prod(labels.shape[2:]), jnp.float32),
        foreground=foreground.sum(axes, dtype=jnp.float32),
        variance=found.variance.sum(axes),
        variance_foreground=jnp.where(foreground, found.variance, 0).sum(axes),
        entropy=found.entropy.sum(axes),
        mutual_information=found.mutual_information.sum(axes),
        overlap=overlaps(both, single(total.mean.shape[-1])),
    )


def case_measures(slices: SliceSums) -> CaseMeasures:
    """The measures of one case from the sums of its slices, on the host."""
    whole = SliceSums(*(np.asarray(x, np.float64).sum(0) for x in slices))
    within, pairwise = sample_dice(whole.overlap)
    return CaseMeasures(
        variance=float(whole.variance / whole.pixels),
        variance_foreground=float(whole.variance_foreground / whole.foreground)
        if whole.foreground
        else math.nan,
        entropy=float(whole.entropy / whole.pixels),
        mutual_information=float(whole.mutual_information / whole.pixels),
        dice_within_samples=within,
        pairwise_dice=pairwise,
    )
