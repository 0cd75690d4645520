"""Dropout samples: those of separate passes, whatever the batch, the chunks and the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax import losses
from qcjax.data.batches import Slices
from qcjax.inference.predictor import Predictor
from qcjax.models import AcdcUNet, MaskAutoencoder, NnUNet
from qcjax.qc import mc_dropout, uncertainty
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


def part(sums, rows):
    return uncertainty.SliceSums(*(np.asarray(x)[rows] for x in sums))


def same(a, b):
    for name, x, y in zip(a._fields, a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_case_of_one_slice_is_what_mc_predict_gives(on_one, slices, variables):
    found = uncertainty.case_measures(part(on_one, [5]))
    key = jax.random.fold_in(jax.random.fold_in(KEY, 8), 0)
    image = jnp.asarray(slices.image[5][None, ..., None])
    expected = mc_dropout.mc_predict(network(), variables, image, key[None], SAMPLES)
    assert float(expected.variance.mean()) > 1e-5, "the samples don't differ"
    assert 0 < found.dice_within_samples.min() < 1
    for name in ("variance", "entropy", "mutual_information"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name).mean(), rtol=1e-4)
    np.testing.assert_allclose(found.dice_within_samples, expected.dice_within_samples[0], atol=1e-5)
    np.testing.assert_allclose(found.pairwise_dice, expected.pairwise_dice[0], atol=1e-5)
    foreground = expected.variance[expected.mean.argmax(-1) > 0].mean()
    np.testing.assert_allclose(found.variance_foreground, foreground, rtol=1e-4)


def test_what_else_is_in_the_batch_makes_no_difference(on_one, measure, one_device):
    """Two batches of four with padding, in another order, the samples in pieces of three and one."""
    order, batches = [5, 3, 0, 4, 2], []
    found = measure(one_device, order, 3, lambda: batches.append(1))
    same(found, part(on_one, order))
    assert len(batches) == 2


def test_one_device_and_eight_agree(on_one, measure):
    same(measure(predictor(8)), on_one)


def test_which_segmenters_have_dropout():
    assert mc_dropout.has_dropout(AcdcUNet(width=2))
    assert not mc_dropout.has_dropout(AcdcUNet(width=2, dropout_rate=0.0))
    assert not mc_dropout.has_dropout(NnUNet())
    assert not mc_dropout.has_dropout(NnUNet(dropout_rate=0.1))
    assert mc_dropout.has_dropout(NnUNet(dropout_rate=0.1, dropout_stages=(6,)))


@pytest.fixture(scope="module")
def volumes():
    """A small 3-D network with dropout in its deepest stage, its weights, two volumes, and a key for each."""
    strides, kernels = ((1, 1, 1), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    model = NnUNet(4, 4, 8, strides, kernels, dropout_rate=0.3, dropout_stages=(2,))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 16, 16, 1)), jnp.float32)
    return model, jax.jit(model.init)(KEY, images), images, jax.random.split(KEY, 2)


@pytest.fixture(scope="module")
def samples(volumes):
    """(5, 2, s, h, w, k): each volume and each sample in a pass of its own."""
    model, variables, images, keys = volumes
    one = jax.jit(lambda image, key: model.apply(variables, image, False, True, rngs={"dropout": key}))
    drawn = [[one(x[None], jax.random.fold_in(key, n))[0] for x, key in zip(images, keys, strict=True)]
             for n in range(5)]  # fmt: skip
    return np.array(drawn, np.float64)


def test_the_measures_are_those_of_separate_passes(volumes, samples):
    found = mc_dropout.mc_predict(*volumes, 5)
    mean = samples.mean(0)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.variance, samples.var(0).mean(-1), atol=1e-7)
    np.testing.assert_allclose(found.entropy, -(mean * np.log(mean)).sum(-1), atol=1e-5)
    np.testing.assert_allclose(
        found.expected_entropy, -(samples * np.log(samples)).sum(-1).mean(0), atol=1e-5
    )
    np.testing.assert_allclose(found.mutual_information, found.entropy - found.expected_entropy, atol=1e-6)
    assert float(found.variance.max()) > 1e-5, "the samples don't differ"


def test_chunks_bound_the_memory_and_change_nothing(volumes):
    whole, pieces = (mc_dropout.mc_predict(*volumes, 5, chunk=c) for c in (None, 2))
    for name, a, b in zip(whole._fields, whole, pieces, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=name)


def test_dice_within_samples_by_numpy(volumes, samples):
    regions = ((1, 2), (3,))
    found = mc_dropout.mc_predict(*volumes, 5, regions=regions)

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


def test_a_single_sample_has_no_variance(volumes):
    found = mc_dropout.mc_predict(*volumes, 1)
    assert float(found.variance.max()) == 0
    assert float(found.mutual_information.max()) < 1e-5
    np.testing.assert_array_equal(found.dice_within_samples, 1)


def test_the_other_segmenter_has_dropout_too():
    model = AcdcUNet(width=4)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 1)), jnp.float32)
    variables = jax.jit(model.init)(KEY, images)
    found = mc_dropout.mc_predict(model, variables, images, KEY[None], 3)
    assert found.mean.shape == (1, 32, 32, 4)
    assert float(found.variance.mean()) > 1e-6


@pytest.mark.parametrize(("samples", "chunk"), [(0, None), (3, 0)])
def test_numbers_that_make_no_sense(volumes, samples, chunk):
    with pytest.raises(ValueError, match="expected at least 1"):
        mc_dropout.mc_predict(*volumes, samples, chunk)
