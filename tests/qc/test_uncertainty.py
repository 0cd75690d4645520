"""Measures of uncertainty by hand, on a few voxels and slices."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from qcjax.qc import uncertainty

SAMPLES = 4


@partial(jax.jit, static_argnums=0)
def of(function, p):
    return function(uncertainty.moments(p), p.argmax(-1).astype(jnp.uint8))


def part(sums, rows):
    return uncertainty.SliceSums(*(np.asarray(x)[rows] for x in sums))


def test_two_samples_by_hand():
    """p = (1, 0) and (0, 1): μ = ½, σ² = ¼ per class, H(μ) = log 2, no sample is in doubt."""
    p = jnp.array([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])  # (2 samples, 1 image, 1 voxel, 2 classes)
    found = of(uncertainty.measure, p)
    np.testing.assert_allclose(found.mean, [[[0.5, 0.5]]])
    np.testing.assert_allclose(found.variance, [[0.25]])
    np.testing.assert_allclose(found.mutual_information, [[np.log(2)]], rtol=1e-6)
    np.testing.assert_allclose(found.dice_within_samples, [[0.5]])  # μ's arg-max is the background
    np.testing.assert_allclose(found.pairwise_dice, [[0.0]])


def test_a_structure_in_no_sample_agrees_perfectly():
    p = jax.nn.one_hot(jnp.zeros((3, 1, 4), int), 3)
    found = of(uncertainty.measure, p)
    np.testing.assert_array_equal(found.dice_within_samples, [[1.0, 1.0]])
    np.testing.assert_array_equal(found.pairwise_dice, [[1.0, 1.0]])


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


def test_a_case_is_measured_as_one_volume():
    """Three slices in which the structures differ in size: not the mean of the slices' measures."""
    logits = np.random.default_rng(1).normal(size=(SAMPLES, 3, 8, 8, 3)) + [2, 0, 0]
    logits[:, 1, ..., 1] += 2
    p = jax.nn.softmax(jnp.asarray(logits, jnp.float32))
    expected = of(uncertainty.measure, p[:, None])  # (samples, 1, slices, h, w, classes)
    sums = of(uncertainty.slice_sums, p)
    found = uncertainty.case_measures(sums)
    np.testing.assert_allclose(found.dice_within_samples, expected.dice_within_samples[0], atol=1e-5)
    np.testing.assert_allclose(found.pairwise_dice, expected.pairwise_dice[0], atol=1e-5)
    np.testing.assert_allclose(found.variance, expected.variance.mean(), rtol=1e-5)
    of_slices = [uncertainty.case_measures(part(sums, [i])).dice_within_samples for i in range(3)]
    assert np.abs(np.mean(of_slices, 0) - found.dice_within_samples).max() > 0.01


def test_sums_by_hand():
    """Two slices of one row: the mean's segmentation and two samples; structure 1 in one slice, 2 in none."""
    p = np.zeros((2, 2, 1, 4, 3), np.float32)  # (samples, slices, h, w, classes)
    p[..., 0] = 1
    p[:, 0, 0, :2] = (0, 1, 0)  # both samples: two pixels
    p[1, 0, 0, 2] = (0.2, 0.8, 0)  # the second: a third; the mean keeps the background there
    sums = of(uncertainty.slice_sums, p)
    np.testing.assert_array_equal(sums.foreground, [2, 0])
    np.testing.assert_array_equal(sums.overlap[0, 0], [[2, 2, 2], [2, 2, 2], [2, 2, 3]])
    found = uncertainty.case_measures(sums)
    np.testing.assert_allclose(found.dice_within_samples, [(1 + 4 / 5) / 2, 1])
    np.testing.assert_allclose(found.pairwise_dice, [4 / 5, 1])
    variance = 2 * 0.4**2 / 3  # 1 and 0.2, 0 and 0.8, 0 and 0
    np.testing.assert_allclose(found.variance, variance / 8, rtol=1e-5)
    assert found.variance_foreground == 0
    mean, doubt = (0.6, 0.4), (0.2, 0.8)
    predictive, own = (-sum(x * math.log(x) for x in q) for q in (mean, doubt))
    np.testing.assert_allclose(found.entropy, predictive / 8, rtol=1e-5)
    np.testing.assert_allclose(found.mutual_information, (predictive - own / 2) / 8, rtol=1e-5)
    empty = uncertainty.case_measures(part(sums, [1]))
    assert math.isnan(empty.variance_foreground) and empty.variance == 0
