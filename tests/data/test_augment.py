import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from qcjax.data.augment import Augmentation, augment, augment_batch, coordinates
from qcjax.data.batches import Batch

H, W = 24, 32
NOTHING = Augmentation(mirror=0.0, rotation_deg=0.0, scale=(1.0, 1.0), placement=0.0)
KEYS = [jax.random.key(i) for i in range(6)]


@pytest.fixture(scope="module")
def slice_():
    """A smooth image, and as labels where it is high."""
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(H, W)), 2).astype(np.float32)
    image /= image.std()
    return jnp.asarray(image), jnp.asarray((image > 0.3).astype(np.int32) + 2 * (image > 1))


def run(slice_, key, **options):
    return augment(key, *slice_, Augmentation(**options))


def test_nothing_is_the_identity(slice_):
    for key in KEYS[:2]:
        image, label = augment(key, *slice_, NOTHING)
        np.testing.assert_allclose(image, slice_[0], atol=1e-5)
        np.testing.assert_array_equal(label, slice_[1])


def test_mirroring_flips_both_axes(slice_):
    image, label = run(slice_, KEYS[0], mirror=1.0, rotation_deg=0.0, scale=(1.0, 1.0), placement=0.0)
    np.testing.assert_allclose(image, slice_[0][::-1, ::-1], atol=1e-5)
    np.testing.assert_array_equal(label, slice_[1][::-1, ::-1])


def test_each_axis_is_mirrored_at_random(slice_):
    flips = {(1, 1): 0, (-1, 1): 0, (1, -1): 0, (-1, -1): 0}
    change = jax.jit(
        lambda k: run(slice_, k, mirror=0.5, rotation_deg=0.0, scale=(1.0, 1.0), placement=0.0)[1]
    )
    for i in range(40):
        found = change(jax.random.key(i))
        (which,) = [f for f in flips if (found == slice_[1][:: f[0], :: f[1]]).all()]
        flips[which] += 1
    assert min(flips.values()) >= 3


def test_labels_and_images_move_together(slice_):
    """Where the image is sampled well inside a label's range, the label agrees."""
    options = Augmentation(scale=(0.9, 1.1))
    change = jax.jit(lambda k: augment(k, *slice_, options))
    plain = 0
    for key in KEYS:
        image, label = change(key)
        plain += np.abs(np.asarray(image) - slice_[0]).max() < 0.1
        assert (np.asarray(label)[np.asarray(image) > 1.4] == 3).mean() > 0.95
        assert (np.asarray(label)[np.asarray(image) < -0.2] == 0).all()
    assert plain == 0


def test_rotation_is_that_of_scipy(slice_):
    """The angle is drawn, so look for it; scipy's interpolation differs a little."""
    image, label = run(slice_, KEYS[1], mirror=0.0, rotation_deg=30.0, scale=(1.0, 1.0), placement=0.0)
    inside = (slice(8, -8), slice(8, -8))

    def error(angle):
        turned = ndimage.rotate(slice_[0], angle, reshape=False, order=3)
        return np.abs(turned - np.asarray(image))[inside].mean()

    angles = np.arange(-30, 30.5, 0.5)
    errors = [error(a) for a in angles]
    best = angles[np.argmin(errors)]
    assert min(errors) < 0.05 and np.median(errors) > 0.2
    turned = ndimage.rotate(slice_[1], best, reshape=False, order=0)
    assert (turned == np.asarray(label))[inside].mean() > 0.95


def test_a_scale_below_one_enlarges_and_both_happen(slice_):
    square = jnp.zeros((H, W), jnp.int32).at[10:14, 14:18].set(1)
    change = jax.jit(lambda k, o: augment(k, slice_[0], square, o)[1].sum(), static_argnums=1)
    areas = [int(change(jax.random.key(i), Augmentation(0.0, 0.0, (0.4, 2.0), 0.0))) for i in range(30)]
    assert min(areas) < 10 and max(areas) > 32
    assert 5 < sum(a > 16 for a in areas) < 25
    areas = [int(change(k, Augmentation(0.0, 0.0, (0.5, 0.5), 0.0))) for k in KEYS]
    assert max(areas) == 64


@pytest.mark.parametrize("scale", [(0.7, 0.9), (1.1, 1.4), (0.7, 1.0), (1.2, 1.2), (0.7, 1.4)])
def test_scales_stay_in_their_range(scale):
    options = Augmentation(mirror=0.0, rotation_deg=0.0, scale=scale, placement=0.0)
    rows = jax.vmap(lambda k: coordinates(k, 9, 9, options)[0])(jax.random.split(jax.random.key(1), 200))
    drawn = (rows[:, 8, 4] - rows[:, 0, 4]) / 8
    assert scale[0] - 1e-5 <= drawn.min() and drawn.max() <= scale[1] + 1e-5
    assert drawn.max() - drawn.min() >= 0.9 * (scale[1] - scale[0])


def test_outside_is_zero():
    image, label = jnp.ones((H, W)), jnp.ones((H, W), jnp.int32)
    shifted = Augmentation(mirror=0.0, rotation_deg=0.0, scale=(1.0, 1.0), placement=0.3)
    for key in KEYS:
        image_out, label_out = (np.asarray(x) for x in augment(key, image, label, shifted))
        assert (label_out == 0).mean() > 0.02
        assert (np.abs(image_out[label_out == 0]) < 0.6).all()
        np.testing.assert_allclose(image_out[H // 2, W // 2], 1, atol=1e-5)
        assert (label_out[ndimage.binary_erosion(image_out > 0.999)] == 1).all()


def test_keys_decide(slice_):
    one, same, other = (np.asarray(run(slice_, k)[0]) for k in (KEYS[0], KEYS[0], KEYS[1]))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_a_batch_is_its_samples(slice_):
    image, label = slice_
    batch = Batch(jnp.stack([image] * 3)[..., None], jnp.stack([label] * 3), jnp.array([1.0, 1.0, 0.0]))
    keys = jnp.stack(KEYS[:3])
    found = augment_batch(keys, batch, Augmentation())
    for i in range(3):
        one = augment(KEYS[i], image, label, Augmentation())
        np.testing.assert_allclose(found.image[i, ..., 0], one[0], atol=1e-5)
        np.testing.assert_array_equal(found.label[i], one[1])
    np.testing.assert_array_equal(found.weight, batch.weight)
