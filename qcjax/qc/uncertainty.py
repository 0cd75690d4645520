"""What a segmenter doesn't know: MC-dropout samples of its prediction, and measures of how they differ.

The measures are those of the uncertainty paper (Arega et al., UNSURE 2021): sample variance per voxel (Eq. 2), its
mean over an image (Eq. 4), and the Dice agreement within the samples (Eq. 6); and those of information theory, of which
the mutual information of prediction and weights is the part that more data could remove (Gal 2016, section 3.3).
Everything works on slices (b, h, w, c) and on volumes (b, s, h, w, c).
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Integer

from qcjax.typing import Array, Bool, Float, PRNGKey, Shaped, Variables

Regions = tuple[tuple[int, ...], ...]  # classes that make up each structure
Membership = Bool[Array, "structures classes"]  # which classes make up a structure
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


def mc_predict(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b *space c"],
    key: PRNGKey,
    samples: int,
    chunk: int | None = None,
    regions: Regions | None = None,
) -> Uncertainty:
    """Draw dropout samples of a prediction, batch norm on its running statistics, and measure how they differ.

    Args:
      model: a segmenter with dropout.
      images: (b, *space, c).
      samples: how many, n.
      chunk: how many at once, which bounds the memory; all of them if None. It changes the results by rounding only.
      regions: structures as unions of classes, such as ((2, 3, 4), (3, 4)); every class but the background if None.

    Raises:
      ValueError: no sample, or no chunk.
    """
    if samples < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"samples {samples} and chunk {chunk} found, expected at least 1 of each")
    keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(samples))
    total, labels = None, []
    size = min(chunk or samples, samples)
    for first in range(0, samples, size):
        part, segmented = _drawn(model)(variables, images, keys[first : first + size])
        total = part if total is None else _combined()(total, part)
        labels.append(segmented)
    assert total is not None
    return _measured(regions)(total, jnp.concatenate(labels))


def draw(
    model: nn.Module, variables: Variables, images: Float[Array, "b *space c"], keys: Shaped[Array, "n ..."]
) -> Float[Array, "n b *space k"]:
    """A dropout sample for each key: (n, b, *space, k). What lies before the first dropout is computed once."""

    def sample(key: PRNGKey) -> Array:
        return model.apply(variables, images, False, True, rngs={"dropout": key})  # type: ignore[return-value]

    return jax.vmap(sample)(keys)


def moments(probabilities: Float[Array, "n b *space k"]) -> Moments:
    """The moments of n samples of class probabilities, (n, b, *space, k)."""
    mean = probabilities.mean(0)
    return Moments(
        jnp.float32(probabilities.shape[0]),
        mean,
        jnp.square(probabilities - mean).sum(0),
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
    table = _membership(regions or tuple((c,) for c in range(1, k)), k)
    segmented = total.mean.argmax(-1)
    within = jax.vmap(lambda sample: region_dice(segmented, sample, table))(labels).mean(0)
    return Uncertainty(
        mean=total.mean,
        variance=of_voxels.variance,
        entropy=of_voxels.entropy,
        expected_entropy=total.entropy,
        mutual_information=of_voxels.mutual_information,
        dice_within_samples=within,
        pairwise_dice=pairwise_dice(labels, table),
    )


def entropy(probabilities: Float[Array, "*batch k"]) -> Float[Array, "*batch"]:
    """−Σ p·log p in nats: (*batch, k) -> (*batch)."""
    return -jax.scipy.special.xlogy(probabilities, probabilities).sum(-1)


def region_dice(
    a: Integer[Array, "b *space"], b: Integer[Array, "b *space"], membership: Membership
) -> Float[Array, "b structures"]:
    """Dice of each structure of two label maps (b, *space), 1 where neither has it: (b, structures).

    membership: (structures, classes) bool, which classes make up a structure.
    """
    x, y = ((membership[:, m]) for m in (a, b))  # (structures, b, *space)
    axes = tuple(range(2, x.ndim))
    both = 2 * (x & y).sum(axes, dtype=jnp.float32)
    sizes = x.sum(axes, dtype=jnp.float32) + y.sum(axes, dtype=jnp.float32)
    return jnp.where(sizes > 0, both / jnp.maximum(sizes, 1), 1.0).T


def pairwise_dice(
    labels: Integer[Array, "n b *space"], membership: Membership
) -> Float[Array, "b structures"]:
    """Mean Dice of all pairs of n samples (n, b, *space), 1 for a single sample: (b, structures)."""
    n = labels.shape[0]
    if n == 1:
        return jnp.ones((labels.shape[1], membership.shape[0]))
    total = jnp.float32(0)
    for i in range(1, n):  # pairs at a distance of i
        total = total + jax.vmap(lambda a, b: region_dice(a, b, membership))(labels[i:], labels[:-i]).sum(0)
    return total / (n * (n - 1) / 2)


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
        count = part.sum(axes)
        return jnp.where(count > 0, jnp.where(part, values, 0).sum(axes) / jnp.maximum(count, 1), jnp.nan)

    return Aggregates(over(real), over(real & (labels > 0)), over(real & (high == low)))


def _membership(regions: Sequence[Sequence[int]], classes: int) -> Array:
    table = np.zeros((len(regions), classes), bool)
    for row, ids in zip(table, regions, strict=True):
        row[list(ids)] = True
    return jnp.asarray(table)


@cache
def _drawn(model: nn.Module) -> Callable[..., Any]:
    def drawn(variables: Variables, images: Array, keys: Array) -> tuple[Moments, Array]:
        probabilities = draw(model, variables, images, keys)
        return moments(probabilities), probabilities.argmax(-1).astype(jnp.uint8)

    return jax.jit(drawn)


@cache
def _combined() -> Callable[..., Any]:
    return jax.jit(combine)


@cache
def _measured(regions: Regions | None) -> Callable[..., Any]:
    return jax.jit(lambda total, labels: measure(total, labels, regions))
