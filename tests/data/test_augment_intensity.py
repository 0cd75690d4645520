"""Changes of intensities against what they are defined to be, computed by NumPy and SciPy."""

from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from qcjax.data import augment_intensity as changes
from qcjax.data.augment_intensity import Change, Intensity, change_intensity

KEY = jax.random.key(3)
IMAGE = np.random.default_rng(0).normal(size=(24, 20)).astype(np.float32)
ON_DEVICE = jnp.asarray(IMAGE)
OFF = Intensity(**{f.name: Change(0, 0, 1) for f in fields(Intensity)})


def test_without_any_change_the_image_stays() -> None:
    assert np.array_equal(change_intensity(KEY, ON_DEVICE, OFF), IMAGE)


@pytest.mark.parametrize("name", [f.name for f in fields(Intensity)])
def test_each_change_happens_as_often_as_asked(name: str) -> None:
    options = replace(OFF, **{name: replace(getattr(Intensity(), name), probability=0.5)})
    keys = jax.random.split(KEY, 64)
    found = jax.vmap(lambda key: change_intensity(key, ON_DEVICE, options))(keys)
    assert np.isfinite(found).all()
    changed = (np.abs(np.asarray(found) - IMAGE).max((1, 2)) > 1e-6).sum()
    assert 20 <= changed <= 44  # 3 standard deviations about 32


def test_blur_is_a_gaussian_filter() -> None:
    expected = ndimage.gaussian_filter(IMAGE, 1.1, mode="nearest", radius=4)
    assert np.asarray(changes.blur(KEY, ON_DEVICE, jnp.float32(1.1))) == pytest.approx(expected, abs=1e-5)


def test_brightness_and_contrast() -> None:
    assert np.asarray(changes.brightness(KEY, ON_DEVICE, jnp.float32(0.3))) == pytest.approx(IMAGE + 0.3)
    found = np.asarray(changes.contrast(KEY, ON_DEVICE, jnp.float32(1.5)))
    expected = np.clip((IMAGE - IMAGE.mean()) * 1.5 + IMAGE.mean(), IMAGE.min(), IMAGE.max())
    assert found == pytest.approx(expected, abs=1e-5)


def test_gamma_keeps_mean_and_deviation_and_the_order_of_values() -> None:
    found = np.asarray(changes.gamma(KEY, ON_DEVICE, jnp.float32(1.4)))
    assert found.mean() == pytest.approx(IMAGE.mean(), abs=1e-4)
    assert found.std() == pytest.approx(IMAGE.std(), abs=1e-3)
    assert (np.argsort(found.ravel()) == np.argsort(IMAGE.ravel())).mean() > 0.99


def test_noise_has_the_strength_asked_for() -> None:
    found = np.asarray(changes.noise(KEY, jnp.zeros((200, 200)), jnp.float32(0.2)))
    assert found.std() == pytest.approx(0.2, rel=0.03)


def test_low_resolution_of_all_pixels_is_the_image_and_of_half_is_linear_between_them() -> None:
    assert np.asarray(changes.low_resolution(KEY, ON_DEVICE, jnp.float32(1.0))) == pytest.approx(
        IMAGE, abs=1e-6
    )
    ramp = jnp.repeat(jnp.arange(16.0)[:, None], 16, 1)
    found = np.asarray(changes.low_resolution(KEY, ramp, jnp.float32(0.5)))
    assert np.ptp(found, axis=1).max() < 1e-5  # nothing changes along the other axis
    assert np.diff(found[2:-2, 0]) == pytest.approx(1, abs=1e-4)


def test_a_bias_field_is_smooth_and_leaves_the_least_value() -> None:
    found = np.asarray(changes.bias_field(KEY, ON_DEVICE, jnp.float32(0.3)))
    least = IMAGE.min()
    assert found.min() == pytest.approx(least, abs=1e-5)
    inside = IMAGE - least > 0.1
    field = np.log(np.where(inside, (found - least) / np.maximum(IMAGE - least, 1e-6), 1))
    y, x = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 20), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1)[inside]
    fitted = terms @ np.linalg.lstsq(terms, field[inside], rcond=None)[0]
    assert field[inside] == pytest.approx(fitted, abs=1e-3)
