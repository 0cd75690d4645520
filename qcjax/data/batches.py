"""Slices of a cohort as arrays on the device, and the order in which an epoch takes them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qcjax.runtime.devices import first_of_share
from qcjax.typing import AnyArray, Array, Float, Integer, Key, PRNGKey


class Slices(NamedTuple):
    """All slices of some cases, in the cases' order."""

    image: AnyArray  # (n, h, w) float32
    label: AnyArray  # (n, h, w) uint8; zeros where there is no truth


class Batch(NamedTuple):
    """What an update learns from."""

    image: AnyArray  # (b, *space, 1) float32; the space is (h, w) or (s, h, w)
    label: AnyArray  # (b, *space) int32
    weight: AnyArray  # (b,) 1, or 0 for padding
    mask: AnyArray | None = None  # (b, *space) True for real voxels, False for padding; None: all are real


class Plan(NamedTuple):
    """Which slices each step of an epoch takes; the last batch is padded with weight 0."""

    indices: np.ndarray  # (steps, b) int32
    weight: np.ndarray  # (steps, b) float32


def epoch_plan(n: int, batch: int, seed: int, epoch: int, shuffle: bool = True) -> Plan:
    """The order of an epoch, a function of (seed, epoch) alone."""
    order = np.random.default_rng([seed, epoch]).permutation(n) if shuffle else np.arange(n)
    return in_batches(order, batch)


def padded(plan: Plan, multiple: int) -> Plan:
    """Every batch filled up with padding to a multiple that devices can share."""
    extra = -plan.indices.shape[1] % multiple
    return Plan(*(np.pad(x, ((0, 0), (0, extra))) for x in plan))


def in_batches(indices: Sequence[int] | Integer[np.ndarray, " n"], batch: int) -> Plan:
    """Given slices in batches of a fixed size."""
    indices = np.asarray(indices, np.int32)
    steps = -(-len(indices) // batch)
    weight = np.zeros(steps * batch, np.float32)
    weight[: len(indices)] = 1
    padded = np.zeros(steps * batch, np.int32)
    padded[: len(indices)] = indices
    return Plan(padded.reshape(steps, batch), weight.reshape(steps, batch))


def cycled(indices: Integer[np.ndarray, " n"], batch: int, steps: int, seed: int, epoch: int) -> Plan:
    """`steps` batches that go round and round the given slices, reshuffled every round.

    Raises ValueError where there is nothing to go round.
    """
    if not len(indices):
        raise ValueError("no slices found, expected at least one to fill batches with")
    rng = np.random.default_rng([seed, epoch, 1])
    rounds = -(-steps * batch // len(indices))
    order = np.concatenate([rng.permutation(indices) for _ in range(rounds)])[: steps * batch]
    return Plan(order.astype(np.int32).reshape(steps, batch), np.ones((steps, batch), np.float32))


def side_by_side(
    labelled: Plan, other: Plan, multiple: int
) -> tuple[Integer[np.ndarray, "steps b"], Float[np.ndarray, "steps b"], Float[np.ndarray, "steps b"]]:
    """Two plans' batches joined, filled up to a multiple: indices, and the weight of either part, (steps, b) each.

    The weight of the one part is 0 where a row is of the other, or padding.
    """
    indices = np.concatenate([labelled.indices, other.indices], 1)
    is_labelled = np.concatenate([labelled.weight, np.zeros_like(other.weight)], 1)
    is_ood = np.concatenate([np.zeros_like(labelled.weight), other.weight], 1)
    weights = padded(Plan(indices, is_labelled), multiple), padded(Plan(indices, is_ood), multiple)
    return weights[0].indices, weights[0].weight, weights[1].weight


def take(slices: Slices, indices: Integer[AnyArray, " b"], weight: Float[AnyArray, " b"]) -> Batch:
    """Gather a batch on the device: indices (b,) -> images (b, h, w, 1), labels (b, h, w)."""
    return batch_of(Slices(slices.image[indices], slices.label[indices]), weight)


def batch_of(slices: Slices, weight: Float[AnyArray, " b"]) -> Batch:
    """All of some slices as a batch: images (b, h, w, 1), labels (b, h, w)."""
    return Batch(slices.image[..., None], slices.label.astype(jnp.int32), weight)


def sample_keys(key: PRNGKey, count: int, axis_name: str | None) -> Key[Array, "{count}"]:
    """A key per sample from its place in the whole batch, so that the number of devices doesn't matter."""
    places = first_of_share(count, axis_name) + jnp.arange(count)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(places)
