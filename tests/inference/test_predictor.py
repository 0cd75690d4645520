"""Prediction of real files, and back on their own grid."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from qcjax import losses
from qcjax.config import AutoencoderConfig, InferenceConfig, Mnms2Config, SegmenterConfig
from qcjax.data.batches import Slices
from qcjax.data.cohort import prepare
from qcjax.data.datasets import mnms2
from qcjax.data.nifti import read_image
from qcjax.data.preprocess import median_spacing, restore_labels
from qcjax.data.write import write_labels
from qcjax.runtime.devices import Devices
from qcjax.train.networks import Networks

CONFIG = Mnms2Config(
    size=64,
    supervised=SegmenterConfig(width=2, stages=3, batch=4),
    autoencoder=AutoencoderConfig(width=2, latent=4, batch=4),
)


@pytest.fixture(scope="module")
def networks():
    return Networks(CONFIG, "nnunet", Devices(1))


@pytest.fixture(scope="module")
def variables(networks):
    m = jax.jit(networks.segmenter.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 1)))
    r = jax.jit(networks.autoencoder.init)(jax.random.key(1), jnp.zeros((1, 64, 64, 4)))
    return m, r


@pytest.fixture(scope="module")
def slices():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(7, 64, 64)).astype(np.float32)
    return Slices(image, rng.integers(0, 4, (7, 64, 64)).astype(np.uint8))


def test_slices_in_batches_are_the_slices(networks, variables, slices):
    """Seven slices in batches of four, in another order, against the network itself."""
    m, r = variables
    order = np.array([6, 0, 3, 1, 5, 2, 4])
    p = networks.predictor.probabilities(m, slices, order)
    expected = np.asarray(networks.segmenter.apply(m, slices.image[order][..., None]))
    np.testing.assert_allclose(p, expected, atol=1e-5)
    evaluation = networks.predictor.evaluate(m, slices, order)
    np.testing.assert_array_equal(evaluation.labels, p.argmax(-1))
    one_hot = np.eye(4)[slices.label[order]]
    np.testing.assert_allclose(evaluation.sums.intersection, (expected * one_hot).sum((1, 2)), rtol=1e-4)
    entropy = -(one_hot * np.log(expected)).sum(-1).mean((1, 2))
    np.testing.assert_allclose(evaluation.entropy, entropy, rtol=1e-4)
    rebuilt = networks.predictor.rebuild_probabilities(r, p)
    np.testing.assert_allclose(rebuilt, networks.autoencoder.apply(r, p), atol=1e-5)
    cases = list(networks.predictor.reconstruct(m, r, slices, order, np.array([0, 1, 6, 7])))
    assert [len(c.labels) for c in cases] == [1, 5, 1]
    np.testing.assert_array_equal(np.concatenate([c.labels for c in cases]), p.argmax(-1))
    assert (np.concatenate([c.rebuilt for c in cases]) == rebuilt.argmax(-1)).mean() > 0.999
    found = np.concatenate([c.probabilities() for c in cases])
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, p, atol=1e-3)
    truth = networks.predictor.rebuild(r, slices, order)
    of_truth = np.asarray(networks.autoencoder.apply(r, jnp.asarray(one_hot, jnp.float32)))
    np.testing.assert_allclose(truth.error, ((of_truth - one_hot) ** 2).mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(truth.sums.prediction, of_truth.sum((1, 2)), rtol=1e-4)
    assert isinstance(truth.sums, losses.Sums)


@pytest.mark.parametrize("view", ["SA", "LA"])
def test_the_public_subject_comes_back_on_its_own_grid(real_data: Path, tmp_path, networks, variables, view):
    """Read, prepared, predicted with random weights, restored and written."""
    folder = real_data / "mnms2_subject_001"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    (subject,) = mnms2.find(folder)
    assert (subject.code, subject.part) == ("001", "train")
    cases = [c for c in subject.cases if c.view == view]
    spacing = median_spacing(read_image(c.image_path).spacing_mm for c in cases)
    cohort = prepare([subject], view, spacing, 64, True)
    assert [c.phase for c in cohort.cases] == ["ED", "ES"]
    assert set(np.unique(cohort.slices.label)) == {0, 1, 2, 3}
    p = networks.predictor.probabilities(variables[0], cohort.slices, np.arange(len(cohort.owner)))
    for case, geometry, stack in zip(cohort.cases, cohort.geometries, cohort.split(p), strict=True):
        image = read_image(case.image_path)
        path = tmp_path / f"{case.name}_pred.nii.gz"
        write_labels(path, restore_labels(stack, geometry, "paper"), image)
        written, source = nib.load(path), nib.load(case.image_path)
        assert written.shape == source.shape
        np.testing.assert_allclose(written.affine, source.affine, atol=1e-5)
        np.testing.assert_allclose(written.header.get_zooms()[:3], source.header.get_zooms()[:3], rtol=1e-6)
        assert set(np.unique(written.dataobj)) <= {0, 1, 2, 3}


def test_mirror_images_are_predicted_and_averaged(networks, variables):
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(3, 64, 64)).astype(np.float32), np.zeros((3, 64, 64), np.uint8)
    m, r = (networks.devices.replicate(x) for x in variables)
    where = np.arange(3)

    def seen(axes):
        slices = Slices(*(np.flip(x, axes).copy() for x in (image, label)))
        return np.flip(networks.predictor.probabilities(m, slices, where), axes)

    expected = np.mean([seen(axes) for axes in ((), (1,), (2,), (1, 2))], axis=0)
    found = networks.predictor.probabilities(m, Slices(image, label), where, mirror=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(found - seen(())).max() > 0.01
    mirrored = Networks(replace(CONFIG, inference=InferenceConfig(mirror=True)), "nnunet", networks.devices)
    (case,) = mirrored.predictor.reconstruct(m, r, Slices(image, label), where, np.array([0, 3]))
    np.testing.assert_allclose(case.probabilities(), expected, atol=2e-3)
