"""Slices move together, labels and masks with their image; patches lie where they should."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from qcjax.data.augment import Augmentation, augment
from qcjax.data.augment_volume import (
    VolumeAugmentation,
    augment_volume,
    augment_volumes,
    change_intensities,
    random_patches,
)
from qcjax.data.batches import Batch, sample_keys

S, H, W = 4, 24, 32
STILL = {"mirror": 0.0, "rotation_deg": 0.0, "scale": (1.0, 1.0), "placement": 0.0, "intensity": 0.0}
KEYS = jax.random.split(jax.random.key(3), 6)


def smooth(seed, shape=(S, H, W)):
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0, 2, 2))
    return jnp.asarray((image - image.mean()) / image.std(), jnp.float32)


@pytest.fixture(scope="module")
def batch():
    """Two volumes, the second padded by a slice before and columns after."""
    image = jnp.stack([smooth(0), smooth(1)])
    mask = jnp.ones((2, S, H, W), bool).at[1, 0].set(False).at[1, :, :, -5:].set(False)
    image = jnp.where(mask, image, 0)
    label = jnp.where(mask, (image > 0.3).astype(jnp.int32) + 2 * (image > 1).astype(jnp.int32), 0)
    return Batch(image[..., None], label, jnp.array([1.0, 0.5]), mask)


@partial(jax.jit, static_argnums=2)
def run(keys, batch, options):
    return augment_volumes(keys, batch, options)


def test_nothing_is_the_identity_and_without_a_mask_all_is_real(batch):
    found = run(KEYS[:2], batch._replace(mask=None), VolumeAugmentation(**STILL))
    np.testing.assert_allclose(found.image, batch.image, atol=1e-5)
    for a, b in zip(found[1:], (*batch[1:3], np.ones(batch.label.shape, bool)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_base_and_apex_change_places(batch):
    found = run(KEYS[:2], batch, VolumeAugmentation(**STILL, mirror_slices=1.0))
    np.testing.assert_allclose(found.image, batch.image[:, ::-1], atol=1e-5)
    np.testing.assert_array_equal(found.label, batch.label[:, ::-1])
    np.testing.assert_array_equal(found.mask, batch.mask[:, ::-1])


def test_every_slice_moves_as_a_slice_alone(batch):
    options = VolumeAugmentation(intensity=0.0)
    image, label, mask = jax.jit(partial(augment_volume, options=options))(
        KEYS[0], batch.image[0, ..., 0], batch.label[0], batch.mask[0]
    )
    in_plane = jax.random.split(KEYS[0], 3)[0]
    alone = jax.jit(lambda i, y: augment(in_plane, i, y, Augmentation()))
    for s in range(S):
        image_alone, label_alone = alone(batch.image[0, s, ..., 0], batch.label[0, s])
        np.testing.assert_allclose(image[s], jnp.where(mask[s], image_alone, 0), atol=1e-5)
        np.testing.assert_array_equal(label[s], label_alone)
    assert 0.2 < mask.mean() < 1 and (mask == mask[:1]).all()


def test_images_labels_and_masks_stay_aligned(batch):
    """A volume that is its own label, and its own mask."""
    label = jnp.asarray(ndimage.zoom(np.asarray(batch.label[:, :, ::4, ::4]), (1, 1, 4, 4), order=0))
    own = Batch(label[..., None].astype(jnp.float32), label, batch.weight, label > 0)
    options = VolumeAugmentation(intensity=0.0, scale=(0.7, 1.0), mirror_slices=0.5)
    moved = 0
    for i in range(3):
        found = run(KEYS[2 * i : 2 * i + 2], own, options)
        np.testing.assert_array_equal(found.mask, found.label > 0)
        flat = np.abs(found.image[..., 0] - jnp.round(found.image[..., 0])) < 0.02  # away from borders
        inside = np.asarray(flat & found.mask)
        agree = np.round(np.asarray(found.image[..., 0])) == np.asarray(found.label)
        assert inside.mean() > 0.05 and agree[inside].mean() > 0.97
        moved += not np.array_equal(found.label, label)
    assert moved == 3


def intensities(image, mask, seed=0, **options):
    nothing = {"noise": 0.0, "brightness": 0.0, "contrast": (1.0, 1.0), "gamma": (1.0, 1.0)}
    options = VolumeAugmentation(intensity=1.0, **nothing | options)
    return np.asarray(change_intensities(jax.random.key(seed), image, mask, options)[mask])


def test_each_change_of_intensities():
    image, mask = smooth(2), jnp.ones((S, H, W), bool).at[0].set(False)
    x = np.asarray(image[mask])
    np.testing.assert_allclose(intensities(image, mask), x, atol=1e-5)
    brighter = intensities(image, mask, brightness=0.3) - x
    assert np.ptp(brighter) < 1e-5 and 1e-3 < abs(brighter.mean()) <= 0.3
    steeper = intensities(image, mask, contrast=(1.25, 1.25))
    np.testing.assert_allclose(steeper, (x - x.mean()) * 1.25 + x.mean(), atol=1e-4)
    noise = intensities(image, mask, noise=0.3) - x
    assert 0.01 < noise.std() < 0.35 and abs(noise.mean()) < 0.02

    bent = intensities(image, mask, gamma=(2.0, 2.0))
    np.testing.assert_allclose((bent.mean(), bent.std()), (x.mean(), x.std()), atol=1e-4)
    share = ((x - x.min()) / np.ptp(x)) ** 2
    np.testing.assert_allclose(np.corrcoef(bent, share)[0, 1], 1, atol=1e-5)


def test_intensities_change_as_often_as_asked():
    image, mask = smooth(3, (1, 8, 8)), jnp.ones((1, 8, 8), bool)
    options = VolumeAugmentation(intensity=0.2, noise=0.0, contrast=(1.0, 1.0), gamma=(1.0, 1.0))
    keys = jax.random.split(jax.random.key(0), 400)
    found = jax.vmap(lambda key: change_intensities(key, image, mask, options))(keys)
    changed = np.abs(found - image[None]).max((1, 2, 3)) > 1e-4
    assert 0.14 < changed.mean() < 0.26


def test_padding_stays_empty_and_keys_decide_whatever_the_number_of_devices(batch):
    options = VolumeAugmentation(intensity=0.5)
    four = Batch(*(jnp.concatenate([x, x]) for x in batch))
    key = jax.random.key(11)
    together = run(sample_keys(key, 4, None), four, options)
    assert (together.image[..., 0][~together.mask] == 0).all() and (together.label[~together.mask] == 0).all()
    assert not together.mask[1::2, 0].any() and together.mask[:, 1:].any((1, 2, 3)).all()
    assert np.isfinite(together.image).all()
    assert np.abs(together.image[0] - together.image[2]).max() > 0.1

    def share(part):
        return augment_volumes(sample_keys(key, 2, "devices"), part, options)

    halves = Batch(*(x.reshape(2, 2, *x.shape[1:]) for x in four))
    apart = jax.pmap(share, axis_name="devices", devices=jax.devices()[:2])(halves)
    for a, b in zip(together, apart, strict=True):
        np.testing.assert_allclose(a, np.reshape(b, a.shape), atol=1e-5)


@pytest.fixture(scope="module")
def numbered():
    """Voxels that say where they are, and a foreground of three voxels."""
    image = jnp.arange(S * H * W, dtype=jnp.float32).reshape(1, S, H, W)
    label = jnp.zeros((1, S, H, W), jnp.int32)
    for voxel, value in (((1, 12, 16), 1), ((2, 5, 20), 2), ((3, 23, 0), 3)):
        label = label.at[0, *voxel].set(value)
    return Batch(image[..., None], label, jnp.ones(1), image >= H * W)


def first_voxels(patches):
    return np.stack(np.unravel_index(np.asarray(patches.image[:, 0, 0, 0, 0], int), (S, H, W)), -1)


@partial(jax.jit, static_argnums=(1, 2, 3))
def many_patches(batch, patch, foreground, n=300):
    many = Batch(*(jnp.repeat(x, n, axis=0) for x in batch))
    return random_patches(jax.random.split(jax.random.key(5), n), many, patch, foreground)


def test_patches_anywhere(numbered):
    patch = (2, 9, 32)
    found = many_patches(numbered, patch, 0.0)
    firsts = first_voxels(found)
    assert found.image.shape == (300, *patch, 1) and found.label.shape == found.mask.shape == (300, *patch)
    for axis, room in enumerate((2, 15, 0)):
        counts = np.bincount(firsts[:, axis], minlength=room + 1)
        assert len(counts) == room + 1 and counts.min() > 0.3 * 300 / (room + 1)
    for i in range(5):
        window = tuple(slice(a, a + p) for a, p in zip(firsts[i], patch, strict=True))
        np.testing.assert_array_equal(found.image[i, ..., 0], numbered.image[0, ..., 0][window])
        np.testing.assert_array_equal(found.label[i], numbered.label[0][window])
        np.testing.assert_array_equal(found.mask[i], numbered.mask[0][window])


def test_patches_centred_on_the_foreground(numbered):
    firsts, counts = np.unique(
        first_voxels(many_patches(numbered, (2, 8, 8), 1.0)), axis=0, return_counts=True
    )
    assert firsts.tolist() == [[0, 8, 12], [1, 1, 16], [2, 16, 0]]  # the last, at the border, clipped
    assert counts.min() > 60


def test_patches_with_foreground_are_as_many_as_asked(numbered):
    shown = (many_patches(numbered, (1, 3, 3), 0.5).label > 0).any((1, 2, 3))
    assert 0.4 < shown.mean() < 0.6  # by chance, one in a hundred
    nothing = numbered._replace(label=jnp.zeros_like(numbered.label))
    assert len(np.unique(first_voxels(many_patches(nothing, (1, 3, 3), 1.0)), axis=0)) > 200


def test_a_patch_of_the_volumes_own_shape_changes_nothing(batch):
    assert random_patches(KEYS[:2], batch, (S, H, W)) is batch
    unmasked = batch._replace(mask=None)
    assert jax.eval_shape(lambda: random_patches(KEYS[:2], unmasked, (S, H, 8))).mask is None
    with pytest.raises(ValueError, match=r"found patch \(5, 8, 8\); expected at most .*\(4, 24, 32\)"):
        random_patches(KEYS[:2], batch, (5, 8, 8))
