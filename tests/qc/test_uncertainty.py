"""Measures of uncertainty, by hand on a few voxels and against numpy on a small network's samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.models import AcdcUNet, NnUNet
from qcjax.qc import uncertainty

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def network():
    """A small 3-D network with dropout in its deepest stage, its weights, and two volumes."""
    strides, kernels = ((1, 1, 1), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    model = NnUNet(4, 4, 8, strides, kernels, dropout_rate=0.3, dropout_stages=(2,))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 16, 16, 1)), jnp.float32)
    return model, jax.jit(model.init)(KEY, images), images


@pytest.fixture(scope="module")
def samples(network):
    model, variables, images = network
    keys = jnp.stack([jax.random.fold_in(KEY, n) for n in range(5)])
    one = jax.jit(lambda key: model.apply(variables, images, False, True, rngs={"dropout": key}))
    return np.stack([one(key) for key in keys]).astype(np.float64)


def test_the_measures_are_those_of_separate_passes(network, samples):
    found = uncertainty.mc_predict(*network, KEY, 5)
    mean = samples.mean(0)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.variance, samples.var(0).mean(-1), atol=1e-7)
    np.testing.assert_allclose(found.entropy, -(mean * np.log(mean)).sum(-1), atol=1e-5)
    np.testing.assert_allclose(
        found.expected_entropy, -(samples * np.log(samples)).sum(-1).mean(0), atol=1e-5
    )
    np.testing.assert_allclose(found.mutual_information, found.entropy - found.expected_entropy, atol=1e-6)
    assert float(found.variance.max()) > 1e-5, "the samples don't differ"


def test_chunks_bound_the_memory_and_change_nothing(network):
    whole, pieces = (uncertainty.mc_predict(*network, KEY, 5, chunk=c) for c in (None, 2))
    for name, a, b in zip(whole._fields, whole, pieces, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)


def test_dice_within_samples_by_numpy(network, samples):
    regions = ((1, 2), (3,))
    found = uncertainty.mc_predict(*network, KEY, 5, regions=regions)

    def dice(a, b):
        both, sizes = 2.0 * (a & b).sum(), a.sum() + b.sum()
        return both / sizes if sizes else 1.0

    labels, mean = samples.argmax(-1), samples.mean(0).argmax(-1)
    for image in range(2):
        for r, ids in enumerate(regions):
            member = np.isin(labels[:, image], ids)
            within = np.mean([dice(np.isin(mean[image], ids), m) for m in member])
            pairs = np.mean([dice(member[i], member[j]) for i in range(5) for j in range(i)])
            np.testing.assert_allclose(found.dice_within_samples[image, r], within, atol=1e-6)
            np.testing.assert_allclose(found.pairwise_dice[image, r], pairs, atol=1e-6)


def test_two_samples_by_hand():
    """p = (1, 0) and (0, 1): μ = ½, σ² = ¼ per class, H(μ) = log 2, no sample is in doubt."""
    p = jnp.array([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])  # (2 samples, 1 image, 1 voxel, 2 classes)
    found = uncertainty.measure(uncertainty.moments(p), p.argmax(-1))
    np.testing.assert_allclose(found.mean, [[[0.5, 0.5]]])
    np.testing.assert_allclose(found.variance, [[0.25]])
    np.testing.assert_allclose(found.mutual_information, [[np.log(2)]], rtol=1e-6)
    np.testing.assert_allclose(found.dice_within_samples, [[0.5]])  # μ's arg-max is the background
    np.testing.assert_allclose(found.pairwise_dice, [[0.0]])


def test_a_structure_in_no_sample_agrees_perfectly():
    p = jax.nn.one_hot(jnp.zeros((3, 1, 4), int), 3)
    found = uncertainty.measure(uncertainty.moments(p), p.argmax(-1))
    np.testing.assert_array_equal(found.dice_within_samples, [[1.0, 1.0]])
    np.testing.assert_array_equal(found.pairwise_dice, [[1.0, 1.0]])


def test_a_single_sample_has_no_variance(network):
    found = uncertainty.mc_predict(*network, KEY, 1)
    assert float(found.variance.max()) == 0
    assert float(found.mutual_information.max()) < 1e-5
    np.testing.assert_array_equal(found.dice_within_samples, 1)


def test_the_other_segmenter_has_dropout_too():
    model = AcdcUNet(width=4)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 1)), jnp.float32)
    variables = jax.jit(model.init)(KEY, images)
    found = uncertainty.mc_predict(model, variables, images, KEY, 3)
    assert found.mean.shape == (1, 32, 32, 4)
    assert float(found.variance.mean()) > 1e-6


def test_aggregates_by_hand():
    labels = np.zeros((1, 1, 9, 9), int)
    labels[..., 6:] = 2
    values = np.zeros((1, 1, 9, 9))
    values[..., 5] = 1.0  # at the border
    values[..., 8] = 0.5  # away from it by three columns
    mask = np.ones_like(labels, bool)
    mask[..., 0, :] = False
    found = uncertainty.aggregate(jnp.asarray(values), jnp.asarray(labels), jnp.asarray(mask))
    np.testing.assert_allclose(found.whole, [1.5 / 9], rtol=1e-6)
    np.testing.assert_allclose(found.foreground, [0.5 / 3], rtol=1e-6)
    np.testing.assert_allclose(found.interior, [0.5 / 5], rtol=1e-6)  # columns 0 to 3, and 8


def test_no_foreground_has_no_mean_over_it():
    found = uncertainty.aggregate(jnp.ones((1, 4, 4)), jnp.zeros((1, 4, 4), int))
    assert np.isnan(found.foreground[0])
    assert float(found.whole[0]) == 1


@pytest.mark.parametrize(("samples", "chunk"), [(0, None), (3, 0)])
def test_numbers_that_make_no_sense(network, samples, chunk):
    with pytest.raises(ValueError, match="expected at least 1"):
        uncertainty.mc_predict(*network, KEY, samples, chunk)
