"""Updates, on one small convolution wherever the network doesn't matter."""

from functools import cache

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qcjax import losses
from qcjax.data.batches import Batch
from qcjax.models.layers import BatchNorm, Conv, Dropout
from qcjax.train import state as states
from qcjax.train import updates
from tests.seeds import seed

KEY, RATE = jax.random.key(seed()), jnp.float32(0.1)
LOSS = losses.SUPERVISED["paper"]


class Small(nn.Module):
    """A segmenter, or an autoencoder of 4 channels, of two convolutions."""

    classes: int = 4

    @nn.compact
    def logits(self, x, batch_stats=False, dropout=False, weight=None):
        x = nn.relu(BatchNorm(name="norm")(Conv(6, name="first")(x), batch_stats, weight))
        x = Conv(self.classes, (1, 1), name="last")(Dropout(0.3)(x, dropout))
        return (x.astype(jnp.float32),)

    def __call__(self, x, batch_stats=False, dropout=False, weight=None):
        return jax.nn.softmax(self.logits(x, batch_stats, dropout, weight)[0])


class Whole(nn.Module):
    """An R that gives back what it sees, but for a column of every class: so it never lacks one."""

    def __call__(self, probabilities):
        return probabilities.at[:, :, :4].set(jnp.eye(4))


MODEL = Small()
SGD = states.sgd()


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(4, 8, 8, 1)).astype(np.float32)
    label = rng.integers(0, 4, (4, 8, 8)).astype(np.int32)
    return Batch(jnp.asarray(image), jnp.asarray(label), jnp.ones(4))


@pytest.fixture(scope="module")
def start():
    return states.create(MODEL, SGD, KEY, jnp.zeros((1, 8, 8, 1)))


@pytest.fixture(scope="module")
def autoencoder():
    return jax.jit(MODEL.init)(jax.random.key(1), jnp.zeros((1, 8, 8, 4)))


@pytest.fixture(scope="module")
def supervised():
    return jax.jit(updates.make_supervised_update(MODEL, SGD, LOSS))


@pytest.fixture(scope="module")
def refinement():
    return jax.jit(updates.make_refinement_update(MODEL, Whole(), SGD, LOSS))


def refinement_batch(batch, autoencoder, labelled, unlabelled, alpha=1.0):
    labelled, unlabelled = (jnp.asarray(x, jnp.float32) for x in (labelled, unlabelled))
    return updates.RefinementBatch(
        batch.image, batch.label, labelled, unlabelled, jnp.float32(alpha), autoencoder
    )


def test_a_step_of_sgd_by_hand(batch, start, supervised):
    def loss(params):
        variables = {"params": params, "batch_stats": start.batch_stats}
        logits, _ = MODEL.apply(
            variables,
            batch.image,
            True,
            True,
            None,
            method="logits",
            mutable=["batch_stats"],
            rngs={"dropout": KEY},
        )
        return LOSS(logits[0], batch.label)

    value, grads = jax.value_and_grad(loss)(start.params)
    after, metrics = supervised(start, batch, KEY, RATE)
    assert after.step == 1
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-5)
    # Nesterov's first step goes (1 + 0.99) times the gradient
    expected = jax.tree.map(lambda p, g: p - 0.1 * 1.99 * (g + 3e-5 * p), start.params, grads)
    chex.assert_trees_all_close(after.params, expected, atol=1e-6)


def test_the_gradients_norm_is_clipped():
    params = {"w": jnp.array([3.0, 4.0])}
    tx = states.sgd(weight_decay=0.0, momentum=0.0, clip=12.0)
    for scale, expected in ((1.0, 5.0), (100.0, 12.0)):
        grads = jax.tree.map(lambda p, s=scale: s * p, params)
        direction, _ = tx.update(grads, tx.init(params), params)
        np.testing.assert_allclose(optax.tree.norm(direction), expected, rtol=1e-6)


def test_clipping_comes_before_weight_decay_and_adam_decays_in_the_gradient():
    params, grads = {"w": jnp.array([2.0])}, {"w": jnp.array([50.0])}
    tx = states.sgd(weight_decay=0.5, momentum=0.0, clip=12.0)
    direction, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(direction["w"], [12 + 0.5 * 2])
    tx = states.adam(weight_decay=1.0)
    direction, _ = tx.update({"w": jnp.array([-2.0])}, tx.init(params), params)
    np.testing.assert_allclose(
        direction["w"], [0.0], atol=1e-6
    )  # decoupled decay would not cancel the gradient
    clipped = states.adam(weight_decay=0.0, clip=1.0)
    _, state = clipped.update(grads, clipped.init(params), params)
    (moments,) = (s for s in state if hasattr(s, "mu"))
    np.testing.assert_allclose(moments.mu["w"], [0.1])


def test_padding_changes_nothing(batch, start, supervised, refinement, autoencoder):
    weight = jnp.array([1.0, 1, 1, 0])
    junk = Batch(batch.image.at[3].set(50), batch.label.at[3].set(1), weight)
    one = supervised(start, batch._replace(weight=weight), KEY, RATE)
    other = supervised(start, junk, KEY, RATE)
    chex.assert_trees_all_close(one, other, atol=1e-6)
    three = jax.tree.map(lambda x: x[:3], batch)
    chex.assert_trees_all_close(one, supervised(start, three, KEY, RATE), atol=1e-6)
    parts = ([1, 1, 0, 0], [0, 0, 1, 0])
    one = refinement(start, refinement_batch(batch, autoencoder, *parts), KEY, RATE)
    other = refinement(start, refinement_batch(junk, autoencoder, *parts), KEY, RATE)
    chex.assert_trees_all_close(one, other, atol=1e-6)


def test_labels_of_ood_slices_are_not_looked_at(batch, start, refinement, autoencoder):
    parts = ([1, 1, 0, 0], [0, 0, 1, 1])
    one = refinement(start, refinement_batch(batch, autoencoder, *parts), KEY, RATE)
    relabelled = batch._replace(label=batch.label.at[2:].set(0))
    other = refinement(start, refinement_batch(relabelled, autoencoder, *parts), KEY, RATE)
    chex.assert_trees_all_equal(one, other)


def test_refinement_without_ood_slices_and_alpha_0_is_a_supervised_step(
    batch, start, supervised, refinement, autoencoder
):
    plain, metrics = supervised(start, batch, KEY, RATE)
    found, parts = refinement(start, refinement_batch(batch, autoencoder, [1] * 4, [0] * 4, 0.0), KEY, RATE)
    chex.assert_trees_all_close(found, plain, atol=1e-6)
    np.testing.assert_allclose(parts["supervised"], metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(parts["loss"], metrics["loss"], rtol=1e-6)


def test_the_refinement_loss_is_the_sum_of_its_parts(batch, start, refinement, autoencoder):
    for alpha in (1.0, 0.25):
        joint = refinement_batch(batch, autoencoder, [1, 1, 0, 0], [0, 0, 1, 1], alpha)
        _, parts = refinement(start, joint, KEY, RATE)
        assert parts["semi_supervised"] > 0.01
        np.testing.assert_allclose(
            parts["loss"], alpha * parts["semi_supervised"] + parts["supervised"], rtol=1e-6
        )


def test_the_pseudo_ground_truth_is_rs_arg_max(batch, start, autoencoder):
    """Without labelled slices and dropout the loss can be computed apart."""
    update = jax.jit(updates.make_refinement_update(MODEL, Whole(), SGD, LOSS, dropout=False))
    joint = refinement_batch(batch, autoencoder, [0] * 4, [1] * 4)
    _, parts = update(start, joint, KEY, RATE)
    p, _ = MODEL.apply(start.variables, batch.image, True, mutable=["batch_stats"])
    target = jax.nn.one_hot(Whole().apply(autoencoder, p).argmax(-1), 4)
    sums = losses.batch_sums(losses.class_sums(p, target))
    np.testing.assert_allclose(parts["semi_supervised"], losses.weighted_dice_loss(sums), rtol=1e-5)
    assert parts["rebuilt_whole"] == 1


class Given(nn.Module):
    """An R whose output is given in place of its weights."""

    def __call__(self, probabilities):
        return self.get_variable("given", "rebuilt")


def test_slices_that_r_rebuilds_without_a_structure_are_not_learnt_from(batch, start):
    update = jax.jit(updates.make_refinement_update(MODEL, Given(), SGD, LOSS, dropout=False))
    rebuilt = np.asarray(jax.nn.one_hot(batch.label, 4)).copy()  # all structures in every slice
    for i, label in ((1, 3), (2, 2)):  # no right ventricle; no myocardium
        rebuilt[i, ..., 0] += rebuilt[i, ..., label]
        rebuilt[i, ..., label] = 0
    counted = jnp.array([1.0, 1.0, 1.0, 0.0])
    p, _ = MODEL.apply(start.variables, batch.image, True, False, counted, mutable=["batch_stats"])

    def step(unlabelled):
        r = {"given": {"rebuilt": rebuilt}}
        return update(start, refinement_batch(batch, r, [0] * 4, unlabelled), KEY, RATE)

    _, parts = step([1, 1, 1, 0])
    first = losses.Sums(*(x[0] for x in losses.class_sums(p, jnp.asarray(rebuilt))))
    np.testing.assert_allclose(parts["semi_supervised"], losses.weighted_dice_loss(first), rtol=1e-5)
    assert float(parts["rebuilt_whole"]) == pytest.approx(1 / 3)
    after, parts = step([0, 1, 1, 0])
    assert parts["loss"] == parts["grad_norm"] == parts["rebuilt_whole"] == 0
    decay = 1 - RATE * 3e-5 * 1.99  # all that is left: weight decay, through Nesterov's momentum
    chex.assert_trees_all_close(after.params, jax.tree.map(lambda x: x * decay, start.params), rtol=1e-6)


def test_a_structure_of_weight_0_may_be_lacking_in_what_r_rebuilds(batch, start):
    weights = (0.0, 0.5, 0.5, 0.0)
    make = updates.make_refinement_update
    update = jax.jit(make(MODEL, Given(), SGD, LOSS, dropout=False, weights=weights))
    rebuilt = np.asarray(jax.nn.one_hot(batch.label, 4)).copy()
    rebuilt[1, ..., 0] += rebuilt[1, ..., 3]
    rebuilt[1, ..., 3] = 0
    counted = jnp.array([1.0, 1.0, 0.0, 0.0])
    p, _ = MODEL.apply(start.variables, batch.image, True, False, counted, mutable=["batch_stats"])
    given = refinement_batch(batch, {"given": {"rebuilt": rebuilt}}, [0] * 4, [1, 1, 0, 0])
    _, parts = update(start, given, KEY, RATE)
    sums = losses.Sums(*(x[:2].sum(0) for x in losses.class_sums(p, jnp.asarray(rebuilt))))
    expected = losses.weighted_dice_loss(sums, weights)
    np.testing.assert_allclose(parts["semi_supervised"], expected, rtol=1e-5)
    assert float(parts["rebuilt_whole"]) == 1


def test_r_gets_no_gradient(batch, start, autoencoder):
    """Its output is a target: the loss does not change with R's weights to first order."""
    plain = optax.identity()
    refinement = updates.make_refinement_update(MODEL, MODEL, plain, LOSS)

    def loss(r):
        joint = refinement_batch(batch, r, [1, 1, 0, 0], [0, 0, 1, 1])
        return refinement(start.replace(opt_state=plain.init(start.params)), joint, KEY, RATE)[1]["loss"]

    original = updates.make_original_refinement_update(MODEL, MODEL, plain)

    def loss_original(r):
        case = updates.OriginalRefinementBatch(
            batch.image, batch.weight, jax.nn.one_hot(batch.label, 4), jnp.float32(0.5), r
        )
        return original(start.replace(opt_state=plain.init(start.params)), case, KEY, RATE)[1]["loss"]

    for function in (loss, loss_original):
        gradient = jax.jit(jax.grad(function))(autoencoder)
        assert all(not np.any(x) for x in jax.tree.leaves(gradient))


def test_the_authors_pseudo_ground_truth_is_a_blend(batch, start, autoencoder):
    update = jax.jit(updates.make_original_refinement_update(MODEL, MODEL, SGD, dropout=False))
    best = jax.nn.one_hot(batch.label, 4)
    p, _ = MODEL.apply(start.variables, batch.image, True, mutable=["batch_stats"])
    logits = jnp.log(p)
    rebuilt = MODEL.apply(autoencoder, p)
    for blend in (0.0, 0.3, 1.0):
        case = updates.OriginalRefinementBatch(
            batch.image, batch.weight, best, jnp.float32(blend), autoencoder
        )
        _, metrics = update(start, case, KEY, RATE)
        target = jax.nn.one_hot((blend * best + (1 - blend) * rebuilt).argmax(-1), 4)
        np.testing.assert_allclose(
            metrics["loss"], losses.refinement_loss_original(logits, target), rtol=1e-5
        )


def test_the_autoencoders_step_and_its_early_epochs(batch):
    tx = states.adam()
    start = states.create(MODEL, tx, KEY, jnp.zeros((1, 8, 8, 4)))
    update = jax.jit(updates.make_autoencoder_update(MODEL, tx, "paper", dropout=False))
    target = jax.nn.one_hot(batch.label, 4)
    (logits,), _ = MODEL.apply(start.variables, target, True, method="logits", mutable=["batch_stats"])
    for early in (True, False):
        after, metrics = update(start, batch, KEY, RATE, np.bool_(early))
        expected = losses.autoencoder_loss("paper", logits, target, early)
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
        assert after.step == 1


def test_training_lowers_the_loss(batch, start, supervised):
    """With seeds 0 to 99 by 0.14 to 0.73."""
    state, history = start, []
    for i in range(30):
        state, metrics = supervised(state, batch, jax.random.fold_in(KEY, i), np.float32(0.02))
        history.append(float(metrics["loss"]))
    assert np.mean(history[-5:]) < np.mean(history[:5]) - 0.05


def test_one_hot_argmax_by_hand():
    p = jnp.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    np.testing.assert_array_equal(updates.one_hot_argmax(p), [[0, 1, 0], [1, 0, 0]])


class Dropped(Small):
    """With dropout before its one convolution, so that the gradient can be written by hand."""

    @nn.compact
    def logits(self, x, batch_stats=False, dropout=False, weight=None):
        BatchNorm(name="norm")(x, batch_stats, weight)
        return (Conv(self.classes, (1, 1), name="last")(Dropout(0.25)(x, dropout)),)


@cache
def uncertainty_update(model, samples, **options):
    """Compiled once for all tests."""
    return jax.jit(updates.make_uncertainty_update(model, SGD, losses.SEGMENTATION, samples, **options))


def test_one_sample_without_its_variance_is_the_supervised_update(batch, start):
    supervised = jax.jit(updates.make_supervised_update(MODEL, SGD, losses.SEGMENTATION))
    expected, metrics = supervised(start, batch, KEY, RATE)
    found, parts = uncertainty_update(MODEL, 1)(start, batch, KEY, RATE, jnp.float32(0))
    chex.assert_trees_all_close(found, expected, atol=1e-7)
    np.testing.assert_allclose(parts["loss"], metrics["loss"], rtol=1e-6)
    assert parts["variance"] == 0


def test_alpha_weighs_the_variance_of_the_samples(batch, start):
    update = uncertainty_update(MODEL, 3)
    _, without = update(start, batch, KEY, RATE, jnp.float32(0))
    _, with_it = update(start, batch, KEY, RATE, jnp.float32(3))
    assert without["variance"] > 1e-5
    np.testing.assert_allclose(with_it["loss"], without["loss"] + 3 * without["variance"], rtol=1e-6)
    _, summed = uncertainty_update(MODEL, 3, over_classes="sum")(start, batch, KEY, RATE, jnp.float32(3))
    np.testing.assert_allclose(summed["variance"], 4 * without["variance"], rtol=1e-5)


def test_the_samples_share_one_update_of_the_running_statistics(batch, start):
    after, _ = uncertainty_update(MODEL, 3)(start, batch, KEY, RATE, jnp.float32(3))
    once, _ = uncertainty_update(MODEL, 1)(start, batch, KEY, RATE, jnp.float32(0))
    # the only norm lies before the dropout: its statistics don't depend on the sample
    chex.assert_trees_all_close(after.batch_stats, once.batch_stats, atol=1e-7)


def test_the_mean_of_the_losses_is_not_the_loss_of_the_mean(batch, start):
    _, mean = uncertainty_update(MODEL, 3)(start, batch, KEY, RATE, jnp.float32(0))
    _, each = uncertainty_update(MODEL, 3, loss_of="each")(start, batch, KEY, RATE, jnp.float32(0))
    assert each["segmentation"] > mean["segmentation"], "the loss is convex in the probabilities"


def test_padded_voxels_change_nothing(batch, start):
    update = uncertainty_update(MODEL, 2)
    mask = jnp.ones((4, 8, 8), bool).at[:, 6:].set(False)
    junk = batch._replace(label=batch.label.at[:, 6:].set(1), mask=mask)
    one, first = update(start, batch._replace(mask=mask), KEY, RATE, jnp.float32(3))
    other, second = update(start, junk, KEY, RATE, jnp.float32(3))
    chex.assert_trees_all_equal((one, first), (other, second))


def variance_by_hand(kernel, bias, x, masks):
    """σ² averaged over classes and voxels, and its gradient with respect to kernel and bias, in numpy."""
    logits = masks * x @ kernel + bias  # (n, voxels, k)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    n, voxels, k = p.shape
    deviation = p - p.mean(0)
    value = (deviation**2).sum() / (n * voxels * k)
    of_p = 2 * deviation / (n * voxels * k)  # Σ deviations = 0, so the mean adds nothing
    of_logits = p * (of_p - (of_p * p).sum(-1, keepdims=True))
    return value, np.einsum("nvc,nvk->ck", masks * x, of_logits), of_logits.sum((0, 1))


def test_the_variance_terms_gradient_by_hand_and_by_finite_differences(batch):
    model, samples, key = Dropped(), 4, jax.random.key(5)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 8, 8, 3)).astype(np.float32)
    params = {
        "last": {
            "kernel": rng.normal(size=(1, 1, 3, 4)).astype(np.float32),
            "bias": rng.normal(size=4).astype(np.float32),
        },
        "norm": {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)},
    }
    keys = [key, *(jax.random.fold_in(key, n) for n in range(1, samples))]
    ones = jnp.ones((4, 8, 8, 3))

    plain = optax.identity()
    start = states.from_variables(
        {"params": params, "batch_stats": {"norm": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}}, plain
    )
    update = jax.jit(
        updates.make_uncertainty_update(
            model,
            plain,
            losses.SegmentationLoss(lambda s: s.target.sum() * 0, lambda z, p, y: 0 * z[..., 0]),
            samples,
        )
    )
    data = Batch(jnp.asarray(x), batch.label, batch.weight)

    def step(values):
        return update(start.replace(params=values), data, key, jnp.float32(1), jnp.float32(1))

    after, metrics = step(params)
    found = jax.tree.map(lambda p, q: np.asarray(p - q), params, after.params)["last"]

    # the dropout that the network drew, seen through a kernel of ones
    seen = {"last": {"kernel": np.eye(3, 4, dtype=np.float32)[None, None], "bias": np.zeros(4, np.float32)}}
    variables = {"params": seen | {"norm": params["norm"]}, "batch_stats": start.batch_stats}

    def masks(k):
        logits = model.apply(variables, ones, False, True, method="logits", rngs={"dropout": k})[0]
        return np.asarray(logits)[..., :3]

    stack = np.stack([masks(k) for k in keys]).reshape(samples, -1, 3).astype(np.float64)
    flat = x.reshape(-1, 3).astype(np.float64)
    kernel, bias = (
        params["last"]["kernel"][0, 0].astype(np.float64),
        params["last"]["bias"].astype(np.float64),
    )
    value, of_kernel, of_bias = variance_by_hand(kernel, bias, flat, stack)
    np.testing.assert_allclose(metrics["variance"], value, rtol=1e-5)
    np.testing.assert_allclose(found["kernel"][0, 0], of_kernel, atol=1e-6)
    np.testing.assert_allclose(found["bias"], of_bias, atol=1e-6)

    for c, k in ((0, 0), (1, 2), (2, 3)):
        moved = np.zeros_like(kernel)
        moved[c, k] = 1e-5
        up, down = (variance_by_hand(kernel + s * moved, bias, flat, stack)[0] for s in (1, -1))
        np.testing.assert_allclose(found["kernel"][0, 0, c, k], (up - down) / 2e-5, atol=1e-6)
