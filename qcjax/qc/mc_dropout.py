"""MC-dropout: samples of a segmenter's prediction, vmapped over their number (uncertainty paper, section 2).

Each image has a key of its own, so its samples depend neither on what else is in the batch nor on the device that it is
on. What the samples say is measured in `qc.uncertainty`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from qcjax.qc.uncertainty import Moments, Regions, Uncertainty, combine, measure, moments
from qcjax.typing import Array, Float, PRNGKey, Shaped, Variables


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


def draw(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b *space c"],
    keys: Shaped[Array, "b ..."],
    numbers: Integer[Array, " n"],
) -> Float[Array, "n b *space k"]:
    """The samples of these numbers: (n, b, *space, k). What lies before the first dropout is computed once.

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


def drawn(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b *space c"],
    keys: Shaped[Array, "b ..."],
    numbers: Integer[Array, " n"],
) -> tuple[Moments, Integer[Array, "n b *space"]]:
    """What the measures need of these samples: their moments, and their arg-maxes; arguments as those of `draw`."""
    probabilities = draw(model, variables, images, keys, numbers)
    return moments(probabilities), probabilities.argmax(-1).astype(jnp.uint8)


def mc_predict(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b *space c"],
    keys: Shaped[Array, "b ..."],
    samples: int,
    chunk: int | None = None,
    regions: Regions | None = None,
) -> Uncertainty:
    """Draw dropout samples of a prediction, batch norm on its running statistics, and measure how they differ.

    Args:
      model: a segmenter with dropout that reduces over no devices (no `axis_name`).
      images: (b, *space, c).
      keys: (b,) such as `jax.random.split(key, b)`.
      samples: how many, n.
      chunk: how many at once, which bounds the memory; all of them if None. It changes the results by rounding only.
      regions: structures as unions of classes, such as ((2, 3, 4), (3, 4)); every class but the background if None.

    Raises:
      ValueError: no sample, or no chunk.
    """
    if samples < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"samples {samples} and chunk {chunk} found, expected at least 1 of each")
    total, labels = None, []
    size = min(chunk or samples, samples)
    for first in range(0, samples, size):
        numbers = np.arange(first, min(first + size, samples), dtype=np.uint32)
        part, segmented = _drawn(model)(variables, images, keys, numbers)
        total = part if total is None else _combined()(total, part)
        labels.append(segmented)
    assert total is not None
    return _measured(regions)(total, jnp.concatenate(labels))


@cache
def _drawn(model: nn.Module) -> Callable[..., Any]:
    return jax.jit(lambda variables, images, keys, numbers: drawn(model, variables, images, keys, numbers))


@cache
def _combined() -> Callable[..., Any]:
    return jax.jit(combine)


@cache
def _measured(regions: Regions | None) -> Callable[..., Any]:
    return jax.jit(lambda total, labels: measure(total, labels, regions))
