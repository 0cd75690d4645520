"""What must not enter an update or a loss: each of these would broadcast, and learn something else without a word."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from qcjax import interop, losses
from qcjax.models import NnUNet
from qcjax.segmentation.weights import packed_weights
from qcjax.train import updates
from tests.train.test_updates import (  # noqa: F401 - fixtures
    KEY,
    LOSS,
    MODEL,
    RATE,
    SGD,
    Whole,
    autoencoder,
    batch,
    refinement_batch,
    start,
)
from tests.unchecked import unchecked

supervised = updates.make_supervised_update(MODEL, SGD, LOSS)
refinement = updates.make_refinement_update(MODEL, Whole(), SGD, LOSS)


def refused(update, *args):
    with unchecked(), pytest.raises(AssertionError):
        jax.eval_shape(update, *args)


def test_a_weight_per_pixel_or_of_another_batch(batch, start):  # noqa: F811
    for weight in (jnp.ones((4, 1)), jnp.ones(1), jnp.ones(())):
        refused(supervised, start, batch._replace(weight=weight), KEY, RATE)


def test_a_learning_rate_per_channel(batch, start):  # noqa: F811
    refused(supervised, start, batch, KEY, jnp.full(6, 0.1))


def test_an_alpha_per_slice(batch, start, autoencoder):  # noqa: F811
    joint = refinement_batch(batch, autoencoder, [1, 1, 0, 0], [0, 0, 1, 1])
    refused(refinement, start, joint._replace(alpha=jnp.ones(4)), KEY, RATE)
    refused(refinement, start, joint._replace(unlabelled=jnp.ones(1)), KEY, RATE)


def test_a_state_that_would_change_its_type(batch, start):  # noqa: F811
    half = replace(start, params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), start.params))
    with jax.numpy_dtype_promotion("standard"):
        refused(supervised, half, batch, KEY, RATE)


def test_a_target_or_a_mask_of_another_grid():
    p = jnp.full((2, 4, 4, 3), 1 / 3)
    for target, mask in (
        (jnp.ones((2, 4, 4, 1)), None),
        (jnp.ones((1, 4, 4, 3)), None),
        (p, jnp.ones(4, bool)),
    ):
        with unchecked(), pytest.raises(AssertionError):
            losses.class_sums(p, target, mask)


def test_weights_that_are_not_finite():
    network = NnUNet(width=4, max_width=8, strides=((1, 1), (2, 2)))
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1))))
    variables = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
    state = interop.to_torch(network, variables)
    name = next(k for k in state if k.endswith("conv.bias"))
    with pytest.raises(ValueError, match=f"NaN or infinite numbers in {name}"):
        interop.from_torch(network, state | {name: np.full_like(state[name], np.nan)})
    flat = traverse_util.flatten_dict(variables)
    flat[next(iter(flat))][:] = 7e4  # finite in float32, infinite in float16
    with np.errstate(over="ignore"), pytest.raises(AssertionError):
        packed_weights([traverse_util.unflatten_dict(flat)])


def test_an_epoch_is_traced_once(batch, start, autoencoder):  # noqa: F811
    """Other batches, rates, keys and α are arrays to the compiled step, not constants."""
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(refinement, n=1))
    state = start
    for k in range(3):
        joint = refinement_batch(batch, autoencoder, [1, 1, 0, 0], [0, 0, 1, k % 2], alpha=1 / (k + 1))
        state, _ = step(state, joint, jax.random.fold_in(KEY, k), jnp.float32(0.1 * 0.9**k))
    assert state.step == 3


class Variants(chex.TestCase):
    """A loss is the same compiled or not, of arrays on a device or on the host."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_of_a_loss(self):
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
        label = rng.integers(0, 3, (2, 4, 4)).astype(np.int32)
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        y = np.eye(3)[label]
        w = 1 / y.sum((0, 1, 2)) ** 2
        dice = 1 - 2 * (w * (p * y).sum((0, 1, 2))).sum() / (w * (p + y).sum((0, 1, 2))).sum()
        expected = dice - np.log((p * y).sum(-1)).mean()
        found = self.variant(lambda x, label: LOSS(jnp.asarray(x), jnp.asarray(label)))(logits, label)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
