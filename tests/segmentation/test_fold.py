"""The course of the learning rate, and what a network sees of a slice."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.data.augment import Augmentation
from qcjax.labels import CARDIAC
from qcjax.runtime.devices import Devices
from qcjax.segmentation.fold import Fold, Recipe
from tests.segmentation.conftest import TINY


def test_the_rate_rises_at_first_and_falls_to_0_in_every_cycle() -> None:
    config = replace(TINY, epochs=4, cycles=2, warm_up=5, learning_rate=0.1)
    fold: Any = SimpleNamespace(recipe=SimpleNamespace(config=config), steps=10)
    rates = [Fold.rate(fold, step) for step in range(40)]
    assert rates[0] == pytest.approx(0.1 / 5)
    assert rates[10] == pytest.approx(0.1 * 0.5**0.9)
    assert rates[19] == pytest.approx(0.1 * 0.05**0.9)
    assert rates[20] == pytest.approx(0.1)
    assert rates[39] == rates[19]
    assert len(set(np.round(np.diff(rates[5:19]) < 0, 0))) == 1  # it falls all the way


def test_a_network_sees_patches_in_which_image_and_label_belong_together() -> None:
    recipe = Recipe(TINY, CARDIAC, Devices(1))
    label = np.zeros((64, 64), np.int32)
    label[20:44, 24:40] = 1
    image, label = jnp.asarray(label, jnp.float32), jnp.asarray(label)
    for key in jax.random.split(jax.random.key(0), 8):
        seen, target = recipe.changed(key, image, label, Augmentation(rotation_deg=180, scale=(0.7, 1.4)))
        assert seen.shape == target.shape == (32, 32)
        assert target.sum() > 0
        inside, outside = np.asarray(target) == 1, np.asarray(target) == 0
        assert np.mean(np.asarray(seen)[inside] > 0.4) > 0.95
        assert np.mean(np.asarray(seen)[outside] < 0.6) > 0.95
