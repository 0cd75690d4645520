"""Uncertainty of cases from sums over their slices: by hand, against whole volumes, on one device and on eight."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax import losses
from qcjax.data.batches import Slices
from qcjax.inference.predictor import Predictor
from qcjax.models import AcdcUNet, MaskAutoencoder, NnUNet
from qcjax.qc import slice_uncertainty, uncertainty
from qcjax.runtime.devices import Devices

SAMPLES = 4
KEY = jax.random.key(4)
PLACES = np.array([[7, 0], [7, 1], [7, 2], [9, 0], [9, 1], [8, 0]], np.uint32)  # slices of three cases
STRIDES = ((1, 1), (2, 2))


def network(axis_name=None):
    return NnUNet(width=4, strides=STRIDES, dropout_rate=0.3, dropout_stages=(0, 1), axis_name=axis_name)


def predictor(count):
    devices = Devices(count)
    name = devices.axis_name
    autoencoder = MaskAutoencoder(width=2, latent=4, axis_name=name)
    return Predictor(network(name), autoencoder, losses.SUPERVISED["paper"], devices, batch=4)


@pytest.fixture(scope="module")
def slices():
    image = np.random.default_rng(0).normal(size=(6, 16, 16)).astype(np.float32)
    return Slices(image, np.zeros(image.shape, np.uint8))


@pytest.fixture(scope="module")
def variables(slices):
    found = jax.jit(network().init)(jax.random.key(0), slices.image[:1, ..., None])
    return jax.tree.map(np.asarray, found)


@pytest.fixture(scope="module")
def measure(slices, variables):
    """(predictor, order, chunk, on_batch) -> the sums of the slices, in that order."""

    def sums(predictor, order=range(6), chunk=None, on_batch=lambda: None):
        place, order = predictor.devices.replicate, np.asarray(order)
        return predictor.uncertainty(
            place(variables), place(slices), order, PLACES[order], KEY, SAMPLES, chunk, on_batch
        )

    return sums


@pytest.fixture(scope="module")
def one_device():
    return predictor(1)


@pytest.fixture(scope="module")
def on_one(measure, one_device):
    return measure(one_device)


@partial(jax.jit, static_argnums=0)
def of(function, p):
    return function(uncertainty.moments(p), p.argmax(-1).astype(jnp.uint8))


def part(sums, rows):
    return slice_uncertainty.SliceSums(*(np.asarray(x)[rows] for x in sums))


def same(a, b):
    for name, x, y in zip(a._fields, a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_case_of_one_slice_is_what_mc_predict_gives(on_one, slices, variables):
    found = slice_uncertainty.case_measures(part(on_one, [5]))
    key = jax.random.fold_in(jax.random.fold_in(KEY, 8), 0)
    image = jnp.asarray(slices.image[5][None, ..., None])
    expected = uncertainty.mc_predict(network(), variables, image, key, SAMPLES)
    assert float(expected.variance.mean()) > 1e-5, "the samples don't differ"
    assert 0 < found.dice_within_samples.min() < 1
    for name in ("variance", "entropy", "mutual_information"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name).mean(), rtol=1e-4)
    np.testing.assert_allclose(found.dice_within_samples, expected.dice_within_samples[0], atol=1e-5)
    np.testing.assert_allclose(found.pairwise_dice, expected.pairwise_dice[0], atol=1e-5)
    foreground = expected.variance[expected.mean.argmax(-1) > 0].mean()
    np.testing.assert_allclose(found.variance_foreground, foreground, rtol=1e-4)


def test_a_case_is_measured_as_one_volume():
    """Three slices in which the structures differ in size: not the mean of the slices' measures."""
    logits = np.random.default_rng(1).normal(size=(SAMPLES, 3, 8, 8, 3)) + [2, 0, 0]
    logits[:, 1, ..., 1] += 2
    p = jax.nn.softmax(jnp.asarray(logits, jnp.float32))
    expected = of(uncertainty.measure, p[:, None])  # (samples, 1, slices, h, w, classes)
    sums = of(slice_uncertainty.slice_sums, p)
    found = slice_uncertainty.case_measures(sums)
    np.testing.assert_allclose(found.dice_within_samples, expected.dice_within_samples[0], atol=1e-5)
    np.testing.assert_allclose(found.pairwise_dice, expected.pairwise_dice[0], atol=1e-5)
    np.testing.assert_allclose(found.variance, expected.variance.mean(), rtol=1e-5)
    of_slices = [slice_uncertainty.case_measures(part(sums, [i])).dice_within_samples for i in range(3)]
    assert np.abs(np.mean(of_slices, 0) - found.dice_within_samples).max() > 0.01


def test_what_else_is_in_the_batch_makes_no_difference(on_one, measure, one_device):
    """Two batches of four with padding, in another order, the samples in pieces of three and one."""
    order, batches = [5, 3, 0, 4, 2], []
    found = measure(one_device, order, 3, lambda: batches.append(1))
    same(found, part(on_one, order))
    assert len(batches) == 2


def test_one_device_and_eight_agree(on_one, measure):
    same(measure(predictor(8)), on_one)


def test_sums_by_hand():
    """Two slices of one row: the mean's segmentation and two samples; structure 1 in one slice, 2 in none."""
    p = np.zeros((2, 2, 1, 4, 3), np.float32)  # (samples, slices, h, w, classes)
    p[..., 0] = 1
    p[:, 0, 0, :2] = (0, 1, 0)  # both samples: two pixels
    p[1, 0, 0, 2] = (0.2, 0.8, 0)  # the second: a third; the mean keeps the background there
    sums = of(slice_uncertainty.slice_sums, p)
    np.testing.assert_array_equal(sums.foreground, [2, 0])
    np.testing.assert_array_equal(sums.overlap[0, 0], [[2, 2, 2], [2, 2, 2], [2, 2, 3]])
    found = slice_uncertainty.case_measures(sums)
    np.testing.assert_allclose(found.dice_within_samples, [(1 + 4 / 5) / 2, 1])
    np.testing.assert_allclose(found.pairwise_dice, [4 / 5, 1])
    variance = 2 * 0.4**2 / 3  # 1 and 0.2, 0 and 0.8, 0 and 0
    np.testing.assert_allclose(found.variance, variance / 8, rtol=1e-5)
    assert found.variance_foreground == 0
    mean, doubt = (0.6, 0.4), (0.2, 0.8)
    predictive, own = (-sum(x * math.log(x) for x in q) for q in (mean, doubt))
    np.testing.assert_allclose(found.entropy, predictive / 8, rtol=1e-5)
    np.testing.assert_allclose(found.mutual_information, (predictive - own / 2) / 8, rtol=1e-5)
    empty = slice_uncertainty.case_measures(part(sums, [1]))
    assert math.isnan(empty.variance_foreground) and empty.variance == 0


def test_which_segmenters_have_dropout():
    assert slice_uncertainty.has_dropout(AcdcUNet(width=2))
    assert not slice_uncertainty.has_dropout(AcdcUNet(width=2, dropout_rate=0.0))
    assert not slice_uncertainty.has_dropout(NnUNet())
    assert not slice_uncertainty.has_dropout(NnUNet(dropout_rate=0.1))
    assert slice_uncertainty.has_dropout(NnUNet(dropout_rate=0.1, dropout_stages=(6,)))
