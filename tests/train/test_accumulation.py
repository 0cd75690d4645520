"""A batch in parts: the same as at once but for batch norm, each part normalised by itself, less memory."""

from dataclasses import replace
from functools import cache, partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qcjax import losses
from qcjax.config import AcdcConfig, EmidecConfig, Mnms2Config
from qcjax.data.batches import Batch
from qcjax.models.layers import BatchNorm, Conv, Dropout
from qcjax.runtime.devices import BROADCAST, REPLICATED, SHARDED, Devices
from qcjax.train import state as states
from qcjax.train import updates
from qcjax.train.networks import Networks
from qcjax.uncertainty.training import FoldTraining, VolumeNetwork
from tests.seeds import seed
from tests.slow import slow
from tests.train import drawn_cohorts

KEY, RATE = jax.random.key(seed()), np.float32(0.05)
LOSS = losses.SUPERVISED["paper"]
TX = states.sgd()


class Net(nn.Module):
    """Convolutions with dropout; the batch norm before them counts (`normed`), or only keeps its statistics."""

    normed: bool = False
    layers: int = 1
    features: int = 6
    axis_name: str | None = None
    classes: int = 4

    @nn.compact
    def logits(self, x, batch_stats=False, dropout=False, weight=None):
        normalised = BatchNorm(axis_name=self.axis_name, name="norm")(x, batch_stats, weight)
        x = normalised if self.normed else x
        for i in range(self.layers):
            x = jnp.tanh(Conv(self.features, name=f"conv_{i}")(x))
            x = Dropout(0.3, self.axis_name)(x, dropout)
        return (Conv(self.classes, (1, 1), name="last")(x).astype(jnp.float32),)

    def __call__(self, x, batch_stats=False, dropout=False, weight=None):
        return jax.nn.softmax(self.logits(x, batch_stats, dropout, weight)[0])


def batch_of(size, real, channels=1):
    rng = np.random.default_rng(3)
    image = rng.normal(size=(size, 8, 8, channels)).astype(np.float32)
    label = rng.integers(0, 4, (size, 8, 8)).astype(np.int32)
    return Batch(image, label, np.float32([1] * real + [0] * (size - real)))


@cache
def start_of(model, channels=1):
    return states.create(model.clone(axis_name=None), TX, KEY, jnp.zeros((1, 8, 8, channels)))


def supervised(batch, parts, count=1, steps=1, **options):
    """State and metrics after some steps, on so many devices."""
    devices = Devices(count)
    model = Net(axis_name=devices.axis_name, **options)
    update = updates.make_supervised_update(model, TX, LOSS, devices.axis_name, accumulate=parts)
    step = devices.compile(update, (REPLICATED, SHARDED, BROADCAST, BROADCAST))
    state = devices.replicate(start_of(model))
    for i in range(steps):
        state, metrics = step(state, devices.shard(batch), jax.random.fold_in(KEY, i), RATE)
    return jax.device_get(devices.unreplicate((state, metrics)))


@pytest.fixture(scope="module")
def at_once():
    return supervised(batch_of(8, 6), 1, steps=3)


@pytest.mark.parametrize(("parts", "count"), [(2, 1), (4, 1), (2, 2), pytest.param(4, 2, marks=slow)])
def test_without_batch_norm_the_parts_are_the_batch(at_once, parts, count):
    state, metrics = supervised(batch_of(8, 6), parts, count, steps=3)
    expected, before = at_once
    chex.assert_trees_all_close(metrics, before, rtol=1e-5)
    chex.assert_trees_all_close(state.params, expected.params, atol=1e-6)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected.params, start_of(Net()).params)
    assert max(jax.tree.leaves(moved)) > 1e-3, "three steps that leave the weights prove nothing"


def uncertainty(batch, parts):
    update = updates.make_uncertainty_update(Net(), TX, losses.SEGMENTATION, 3, accumulate=parts)
    return jax.jit(update)(start_of(Net()), batch, KEY, RATE, np.float32(2))


def autoencoder(batch, parts):
    update = updates.make_autoencoder_update(Net(), TX, "paper", accumulate=parts)
    return jax.jit(update)(start_of(Net(), 4), batch, KEY, RATE, np.bool_(False))


def refinement(batch, parts):
    r = start_of(Net(), 4).variables
    update = updates.make_refinement_update(Net(), Net(), TX, LOSS, accumulate=parts)
    labelled, ood = np.float32([1, 1, 1, 0, 0, 0]), np.float32([0, 0, 0, 1, 1, 0])
    joint = updates.RefinementBatch(batch.image, batch.label, labelled, ood, np.float32(0.5), r)
    return jax.jit(update)(start_of(Net()), joint, KEY, RATE)


def original_refinement(batch, parts):
    r = start_of(Net(), 4).variables
    update = updates.make_original_refinement_update(Net(), Net(), TX, accumulate=parts)
    best = np.eye(4, dtype=np.float32)[batch.label]
    case = updates.OriginalRefinementBatch(batch.image, batch.weight, best, np.float32(0.3), r)
    return jax.jit(update)(start_of(Net()), case, KEY, RATE)


@pytest.mark.parametrize("update", [uncertainty, autoencoder, refinement, original_refinement])
def test_every_update_can_take_its_batch_in_parts(update):
    batch = batch_of(6, 5)
    (one, whole), (other, in_parts) = update(batch, 1), update(batch, 3)
    chex.assert_trees_all_close(in_parts, whole, rtol=1e-5)
    chex.assert_trees_all_close(other.params, one.params, atol=1e-6)


def by_hand(batch, parts):
    """Loss, gradient's norm, and running statistics of `Net(normed=True)`, part after part, without dropout."""
    model, start = Net(normed=True), start_of(Net())
    rows = [slice(i, None, parts) for i in range(parts)]

    def loss(params):
        variables = {"params": params, "batch_stats": start.batch_stats}
        together = jnp.zeros((*batch.label.shape, 4))
        for part in rows:
            image, weight = batch.image[part], batch.weight[part]
            (logits,), _ = model.apply(
                variables, image, True, False, weight, method="logits", mutable=["batch_stats"]
            )
            together = together.at[part].set(logits)
        return LOSS(together, jnp.asarray(batch.label), jnp.asarray(batch.weight))

    value, grads = jax.jit(jax.value_and_grad(loss))(start.params)
    means, variances, samples = [], [], []
    for part in rows:
        real = batch.image[part][batch.weight[part] > 0]
        if len(real):
            means.append(real.mean())
            variances.append(real.var(ddof=1))
            samples.append(len(real))
    mean, variance = (np.average(x, weights=samples) for x in (means, variances))
    return value, optax.tree.norm(grads), 0.1 * mean, 0.9 + 0.1 * variance


@pytest.mark.parametrize(("real", "parts"), [(6, 2), (5, 2), (1, 2), (6, 3)])
def test_each_part_is_normalised_by_its_own_statistics(real, parts):
    """One real sample of two parts: the second is all padding, and moves nothing."""
    batch = batch_of(6, real)
    update = updates.make_supervised_update(Net(normed=True), TX, LOSS, dropout=False, accumulate=parts)
    state, metrics = jax.jit(update)(start_of(Net()), batch, KEY, RATE)
    value, norm, mean, variance = by_hand(batch, parts)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    np.testing.assert_allclose(state.batch_stats["norm"]["mean"][0], mean, atol=1e-6)
    np.testing.assert_allclose(state.batch_stats["norm"]["var"][0], variance, rtol=1e-5)


def test_a_part_that_is_all_padding_is_as_if_it_were_not_there():
    batch = batch_of(4, 4)._replace(weight=np.float32([1, 0, 1, 0]))
    (found, metrics), (kept, expected) = (
        jax.jit(updates.make_supervised_update(Net(normed=True), TX, LOSS, dropout=False, accumulate=parts))(
            start_of(Net()), x, KEY, RATE
        )
        for x, parts in ((batch, 2), (jax.tree.map(lambda x: x[::2], batch), 1))
    )
    chex.assert_trees_all_close(metrics, expected, rtol=1e-5)
    chex.assert_trees_all_close(found, kept, atol=1e-6)


def test_a_batch_of_padding_alone_moves_no_statistics():
    update = updates.make_supervised_update(Net(normed=True), TX, LOSS, accumulate=2)
    start = start_of(Net())
    state, metrics = jax.jit(update)(start, batch_of(4, 0), KEY, RATE)
    chex.assert_tree_all_finite((state, metrics))
    chex.assert_trees_all_equal(state.batch_stats, start.batch_stats)


def test_parts_are_normalised_alike_on_one_device_and_on_two():
    (one, metrics), (two, others) = (supervised(batch_of(8, 5), 2, n, normed=True) for n in (1, 2))
    chex.assert_trees_all_close(others, metrics, rtol=1e-5)
    chex.assert_trees_all_close(two, one, atol=1e-6)


def temporary_bytes(parts, samples=None):
    model = Net(normed=True, layers=4, features=24)
    if samples is None:
        update = updates.make_supervised_update(model, TX, LOSS, accumulate=parts)
        arguments = (KEY, RATE)
    else:
        update = updates.make_uncertainty_update(model, TX, LOSS, samples, accumulate=parts)
        arguments = (KEY, RATE, RATE)
    state = states.shapes(model, TX, KEY, jnp.zeros((1, 8, 8, 1)))
    image = np.zeros((8, 32, 32, 1), np.float32)
    batch = Batch(image, image[..., 0].astype(np.int32), np.ones(8, np.float32))
    return jax.jit(update).lower(state, batch, *arguments).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("samples", [None, 2])
def test_parts_need_less_memory(samples):
    """The activations of a quarter of the batch instead of all of them; what the loss needs stays."""
    assert temporary_bytes(4, samples) < 0.45 * temporary_bytes(1, samples)


def test_a_batch_that_parts_do_not_share_evenly_is_refused():
    update = updates.make_supervised_update(Net(), TX, LOSS, accumulate=4)
    with pytest.raises(ValueError, match="--accumulate: 4 parts of a batch of 6 per device found"):
        jax.eval_shape(update, start_of(Net()), batch_of(6, 6), KEY, RATE)


@pytest.mark.parametrize("config", [Mnms2Config, AcdcConfig, EmidecConfig])
@pytest.mark.parametrize("parts", [0, -2])
def test_less_than_one_part_is_refused(config, parts):
    with pytest.raises(ValueError, match=f"--accumulate: {parts} found, expected at least 1"):
        config(accumulate=parts)


class SeenError(Exception):
    pass


@pytest.fixture
def seen(monkeypatch):
    """Instead of a forward pass in parts: an error with their number."""

    def stop(apply, params, batch_stats, x, weight, key, parts, *args):
        raise SeenError(x.shape[0], parts)

    monkeypatch.setattr(updates, "logits_in_parts", stop)
    return partial(pytest.raises, SeenError)


def test_the_option_reaches_every_step_and_the_batches(make_arm, seen):
    arm = make_arm()
    config = replace(arm.networks.config, accumulate=3)
    networks = Networks(config, "nnunet", Devices(2))
    plan = replace(arm, networks=networks).plan(2, 4, 1)
    assert plan.indices.shape == (2, 6) and plan.weight.sum() == 8
    one = Networks(config, "nnunet", Devices(1))
    batch = one.take(arm.data.slices, plan.indices[0], plan.weight[0])
    state, r = arm.state(), arm.state("autoencoder")
    best = np.zeros((*batch.label.shape, 4), np.float32)
    for step, arguments in (
        (one.supervised_step, (state, batch, KEY, RATE)),
        (one.autoencoder_step, (r, batch, KEY, RATE, np.bool_(False))),
        (one.refinement_step, (state, batch, plan.weight[0], RATE, r.variables, KEY, RATE)),
        (one.original_refinement_step, (state, batch, best, RATE, r.variables, KEY, RATE)),
    ):
        with seen(match=r"\(6, 3\)"):
            jax.eval_shape(step, *arguments)


def test_the_option_reaches_the_monitor_and_its_batches(tmp_path, seen):
    training = drawn_cohorts.monitor_training(tmp_path / "monitor", Devices(1), accumulate=2)
    plan = training.plan(1)
    assert plan.indices.shape == (3, 6) and plan.weight.sum() == 15
    label = np.zeros((6, 64, 64), np.uint8)
    state = states.create(training.network, training.tx, KEY, jnp.zeros((1, 64, 64, 4)))
    with seen(match=r"\(6, 2\)"):
        jax.eval_shape(training._step, state, Batch(label, label, plan.weight[0]), KEY, RATE, np.bool_(True))


def test_the_option_reaches_the_volumes_and_their_batches(tmp_path, seen):
    config = replace(drawn_cohorts.VOLUMES, accumulate=2)
    network, cohort = VolumeNetwork(config, Devices(1)), drawn_cohorts.volumes()
    training = FoldTraining(
        network, "proposed", 0, cohort, cohort.volumes, np.arange(5) < 1, tmp_path / "run"
    )
    plan = training.plan(1)
    assert plan.indices.shape == (2, 4) and plan.weight.sum() == 6
    state = states.create(network.model, network.tx, KEY, jnp.zeros((1, *config.patch, 1)))
    batch = network.take(cohort.volumes, plan.indices[0], plan.weight[0])
    with seen(match=r"\(4, 2\)"):
        jax.eval_shape(network.step("proposed"), state, batch, KEY, RATE, RATE)
