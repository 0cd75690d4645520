from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax import losses
from qcjax.losses import SEGMENTATION, SUPERVISED, Sums

B, H, W, K = 3, 4, 6, 4


@pytest.fixture
def logits():
    return jnp.asarray(np.random.default_rng(0).normal(size=(B, H, W, K)), jnp.float32)


@pytest.fixture
def label():
    return jnp.asarray(np.random.default_rng(1).integers(0, K, (B, H, W)), jnp.int32)


def sums(intersection, prediction, target):
    return Sums(*(jnp.asarray(x, jnp.float32) for x in (intersection, prediction, target)))


def test_class_sums_by_hand():
    p = jnp.array([[[[0.25, 0.75], [0.5, 0.5]]]])  # one sample of 1 × 2 pixels, two classes
    y = jnp.array([[[[0.0, 1.0], [1.0, 0.0]]]])
    found = losses.class_sums(p, y)
    np.testing.assert_allclose(found.intersection, [[0.5, 0.75]])
    np.testing.assert_allclose(found.prediction, [[0.75, 1.25]])
    np.testing.assert_allclose(found.target, [[1, 1]])


def test_batch_sums_leave_padding_out():
    per_sample = sums([[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, 12]])
    found = losses.batch_sums(per_sample, jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(np.stack(found), [[1, 2], [5, 6], [9, 10]])


def test_generalised_dice_by_hand():
    # w = 1/4², 1/2², 1/1²; numerator 2·(3/16 + 1/4 + 1), denominator (5 + 4)/16 + (2 + 2)/4 + (2 + 1)
    found = losses.generalised_dice_loss(sums([3, 1, 1], [5, 2, 2], [4, 2, 1]))
    np.testing.assert_allclose(found, 1 - 2.875 / 4.5625, rtol=1e-6)


def test_generalised_dice_gives_an_absent_class_the_largest_weight_present():
    # w = 1/16, 1/4 and, for the absent one, 1/4
    found = losses.generalised_dice_loss(sums([3, 1, 0], [5, 2, 3], [4, 2, 0]))
    np.testing.assert_allclose(found, 1 - 2 * (3 / 16 + 1 / 4) / (9 / 16 + 4 / 4 + 3 / 4), rtol=1e-6)


def test_generalised_dice_without_background_is_that_of_the_other_classes():
    whole = sums([3, 1, 1], [5, 2, 2], [4, 2, 1])
    part = Sums(*(x[1:] for x in whole))
    found = losses.generalised_dice_loss(whole, jnp.array(False))
    np.testing.assert_allclose(found, losses.generalised_dice_loss(part), rtol=1e-6)


def test_generalised_dice_is_independent_of_the_scale_of_the_image():
    small = sums([3, 1, 1], [5, 2, 2], [4, 2, 1])
    large = Sums(*(1e6 * x for x in small))
    np.testing.assert_allclose(
        losses.generalised_dice_loss(large), losses.generalised_dice_loss(small), rtol=1e-5
    )


def test_weighted_dice_by_hand():
    found = losses.weighted_dice_loss(sums([9, 1, 2, 3], [9, 2, 4, 4], [9, 4, 4, 8]))
    np.testing.assert_allclose(found, 1 - 2 * (1 / 4 + 2 / 4 + 3 / 2) / (6 / 4 + 8 / 4 + 12 / 2), rtol=1e-6)


def test_weighted_dice_ignores_the_background():
    one, other = (
        sums([9, 1, 2, 3], [9, 2, 4, 4], [9, 4, 4, 8]),
        sums([1, 1, 2, 3], [5, 2, 4, 4], [2, 4, 4, 8]),
    )
    assert losses.weighted_dice_loss(one) == losses.weighted_dice_loss(other)


def test_soft_dice_original_by_hand():
    s = sums([9, 1, 2, 0], [9, 2, 4, 0], [9, 4, 4, 0])
    expected = -np.mean([2 / 6, 4 / 8, 1e-5 / (1e-5 + 1e-8)])
    np.testing.assert_allclose(losses.soft_dice_loss_original(s), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.soft_dice_loss_rv_original(s), -1e-5 / (1e-5 + 1e-8), rtol=1e-5)


def test_monitoring_dice_original_by_hand():
    s = sums([3, 1], [4, 2], [4, 2])
    np.testing.assert_allclose(losses.monitoring_dice_loss_original(s), 1 - 8 / 12, rtol=1e-5)
    np.testing.assert_allclose(
        losses.monitoring_dice_loss_original(s, jnp.array(True)), 1 / 3 + 1 / 2, rtol=1e-5
    )


def test_cross_entropies_by_hand():
    p = jnp.array([[[[0.25, 0.75]]]])
    y = jnp.array([[[[0.0, 1.0]]]])
    np.testing.assert_allclose(losses.cross_entropy(jnp.log(p), y), [[[-np.log(0.75)]]], rtol=1e-6)
    np.testing.assert_allclose(losses.cross_entropy_original(p, y), [[[-np.log(0.750001)]]], rtol=1e-6)
    np.testing.assert_allclose(losses.squared_error(p, y), [[[0.0625]]], rtol=1e-6)


def test_deep_supervision_weights():
    expected = [0.5161, 0.2581, 0.1290, 0.0645, 0.0323, 0]
    np.testing.assert_allclose(losses.deep_supervision_weights(6), expected, atol=5e-5)
    assert sum(losses.deep_supervision_weights(4)) == pytest.approx(1)
    assert losses.deep_supervision_weights(1) == (1.0,)


def test_deep_supervision_adds_the_scales_up(logits, label):
    loss = SUPERVISED["paper"]
    half, quarter = logits[:, ::2, ::2], logits[:, :1, :1]
    found = losses.deep_supervision(loss, (logits, half, quarter), label)
    expected = 2 / 3 * loss(logits, label) + 1 / 3 * loss(half, label[:, 1::2, 1::2])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (4, 6)])
def test_downsampling_takes_every_pixel_from_the_middle_of_its_block(label, shape):
    found = losses.downsample_label(label, shape)
    rows, columns = H // shape[0], W // shape[1]
    np.testing.assert_array_equal(found, label[:, rows // 2 :: rows, columns // 2 :: columns])
    assert found.shape == (B, *shape)


def everything(logits, label, weight):
    target = jax.nn.one_hot(label, K)
    return {
        "paper": SUPERVISED["paper"](logits, label, weight),
        "original": SUPERVISED["original"](logits, label, weight),
        "autoencoder": losses.autoencoder_loss("paper", logits, target, False, weight),
        "early": losses.autoencoder_loss("paper", logits, target, True, weight),
        "mixed": losses.autoencoder_loss("mixed", logits, target, False, weight),
        "autoencoder original": losses.autoencoder_loss("original", logits, target, False, weight),
        "monitoring": losses.autoencoder_loss("monitoring_original", logits, target, True, weight),
        "refinement original": losses.refinement_loss_original(logits, target, weight),
        "refinement": losses.weighted_dice_loss(
            losses.batch_sums(losses.class_sums(jax.nn.softmax(logits), target), weight)
        ),
    }


def test_padding_changes_no_loss(logits, label):
    alone = everything(logits[:2], label[:2], jnp.ones(2))
    padded = everything(logits, label, jnp.array([1.0, 1.0, 0.0]))
    other = everything(logits.at[2].set(1e3), label.at[2].set(0), jnp.array([1.0, 1.0, 0.0]))
    chex.assert_trees_all_close(alone, padded, rtol=1e-6)
    chex.assert_trees_all_close(padded, other, rtol=1e-6)


def test_mixed_loss_of_one_slice_is_the_papers_and_else_counts_every_slice(logits, label):
    def loss(preset, n):
        return losses.autoencoder_loss(preset, logits[:n], jax.nn.one_hot(label[:n], K))

    np.testing.assert_allclose(loss("mixed", 1), loss("paper", 1), rtol=1e-6)
    target = jax.nn.one_hot(label, K)
    mse = losses.pixel_mean(losses.squared_error(jax.nn.softmax(logits), target))
    slices = [losses.autoencoder_loss("paper", x[None], y[None]) for x, y in zip(logits, target, strict=True)]
    errors = [
        losses.pixel_mean(losses.squared_error(jax.nn.softmax(x), y))
        for x, y in zip(logits, target, strict=True)
    ]
    by_slice = np.mean(slices) - np.mean(errors)
    np.testing.assert_allclose(loss("mixed", B), (loss("paper", B) - mse + by_slice) / 2 + mse, rtol=1e-5)


def test_early_epochs_change_the_autoencoders_loss(logits, label):
    found = everything(logits, label, jnp.ones(B))
    assert found["early"] != found["autoencoder"]


@pytest.mark.parametrize("case", ["one class", "only padding", "certain"])
def test_losses_and_gradients_stay_finite(logits, label, case):
    weight = jnp.zeros(B) if case == "only padding" else jnp.ones(B)
    label = jnp.zeros_like(label) if case == "one class" else label
    logits = 200 * logits if case == "certain" else logits
    chex.assert_tree_all_finite(everything(logits, label, weight))
    jacobian = jax.jit(jax.jacobian(lambda x: everything(x, label, weight)))(logits)
    chex.assert_tree_all_finite(jacobian)


def test_per_sample_parts_make_up_the_loss_of_the_batch(logits, label):
    for loss in SUPERVISED.values():
        parts, entropy = loss.per_sample(logits, label)
        whole = loss.dice(Sums(*(x.sum(0) for x in parts))) + entropy.mean()
        np.testing.assert_allclose(whole, loss(logits, label), rtol=1e-5)


def test_perfect_prediction_costs_nothing(label):
    logits = 100 * jax.nn.one_hot(label, K)
    np.testing.assert_allclose(SUPERVISED["paper"](logits, label), 0, atol=1e-5)
    np.testing.assert_allclose(SUPERVISED["original"](logits, label), -1, atol=1e-4)


def test_refinement_original_learns_the_right_ventricle_alone(logits, label):
    target = jax.nn.one_hot(label, K)
    swapped = target[..., jnp.array([2, 0, 1, 3])]  # any labels but the RV's
    one = losses.refinement_loss_original(logits, target)
    assert one == losses.refinement_loss_original(logits, swapped)
    p = np.asarray(jax.nn.softmax(logits))[..., 3]
    y = np.asarray(target)[..., 3]
    dice = -(2 * (p * y).sum() + 1e-5) / (p.sum() + y.sum() + 1e-5)
    np.testing.assert_allclose(one, dice - (y * np.log(p + 1e-6)).mean(), rtol=1e-5)


def test_unknown_preset_of_the_autoencoder_is_refused(logits, label):
    with pytest.raises(KeyError, match="nonsense"):
        losses.autoencoder_loss("nonsense", logits, jax.nn.one_hot(label, K))


def test_lambda_dice_and_lambda_ce_weigh_the_two_parts():
    logits = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    label = jnp.asarray(np.arange(32).reshape(2, 4, 4) % 3, jnp.int32)
    parts = [
        replace(SEGMENTATION, lambda_dice=a, lambda_ce=b)(logits, label) for a, b in ((1.0, 0.0), (0.0, 1.0))
    ]
    target = jax.nn.one_hot(label, 3)
    np.testing.assert_allclose(parts[1], -(target * jax.nn.log_softmax(logits)).sum(-1).mean(), rtol=1e-6)
    found = replace(SEGMENTATION, lambda_dice=0.5, lambda_ce=2.0)(logits, label)
    np.testing.assert_allclose(found, 0.5 * parts[0] + 2 * parts[1], rtol=1e-6)
    np.testing.assert_allclose(SEGMENTATION(logits, label), parts[0] + parts[1], rtol=1e-6)
