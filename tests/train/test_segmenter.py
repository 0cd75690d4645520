"""Options of the segmenter's training: other intensities, and the mean of the weights as the model."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.data.augment import Augmentation
from qcjax.data.augment_intensity import change_intensity
from qcjax.data.batches import Batch, sample_keys
from qcjax.runtime.devices import Devices
from qcjax.train.arm import Arm
from qcjax.train.networks import INTENSITY, Networks
from qcjax.train.segmenter import validate_segmenter
from qcjax.train.state import TrainState
from tests.train.arms import CONFIG

AVERAGE = 0.3
SUPERVISED = replace(
    CONFIG.supervised, width=2, stages=2, mirror=0.0, rotation_deg=0.0, scale=(1.0, 1.0), average=AVERAGE
)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks(replace(CONFIG, supervised=SUPERVISED), "nnunet", Devices(1))


@pytest.fixture
def arm(networks: Networks, make_arm, tmp_path: Path) -> Arm:
    return replace(make_arm(), networks=networks)


def state_of(value: float, step: int = 0, mean=None) -> TrainState:
    params, stats = {"w": jnp.array([value])}, {"m": jnp.array([10 * value])}
    return TrainState(jnp.int32(step), params, stats, (), mean)


def test_the_mean_of_the_weights_by_hand():
    state = state_of(4.0).with_mean()
    state = state_of(8.0, 1, state.mean).averaged(0.9)  # of few steps: 2/11 of the old
    assert float(state.model["params"]["w"][0]) == pytest.approx(4 * 2 / 11 + 8 * 9 / 11)
    state = state_of(2.0, 1000, state.mean).averaged(0.9)
    expected = 0.9 * (4 * 2 / 11 + 8 * 9 / 11) + 0.1 * 2
    assert float(state.model["params"]["w"][0]) == pytest.approx(expected)
    assert float(state.model["batch_stats"]["m"][0]) == pytest.approx(10 * expected)
    assert float(state.variables["params"]["w"][0]) == 2  # which training goes on with,
    assert float(state.from_model().params["w"][0]) == pytest.approx(expected)  # unless from the model
    assert float(state_of(3.0).model["params"]["w"][0]) == 3


def test_a_step_moves_the_mean_which_is_the_model(arm: Arm):
    start = arm.state()
    chex.assert_trees_all_equal(start.mean, start.variables)
    chex.assert_trees_all_equal_shapes(start, arm.template())
    before = jax.device_get(start.mean)
    rows = (np.arange(4, dtype=np.int32), np.ones(4, np.float32))
    batch = arm.networks.take(arm.data.slices, *arm.devices.shard(rows))
    after, _ = arm.networks.supervised_step(start, batch, arm.step_key("segmenter", 1, 0), np.float32(0.1))
    share = min(AVERAGE, 2 / 11)
    expected = jax.tree.map(lambda m, x: share * m + (1 - share) * x, before, after.variables)
    chex.assert_trees_all_close(after.mean, expected, atol=1e-6)
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), after.mean, after.variables)
    assert max(jax.tree.leaves(moved)) > 1e-3


def test_the_model_is_what_is_judged(make_arm):
    seen = []

    def evaluate(variables, *args):
        seen.append(variables)
        raise StopIteration

    networks = SimpleNamespace(predictor=SimpleNamespace(evaluate=evaluate))
    state = state_of(2.0, mean={"params": "the mean", "batch_stats": {}})
    with pytest.raises(StopIteration):
        validate_segmenter(replace(make_arm(), networks=networks), state)
    assert seen == [{"params": "the mean", "batch_stats": {}}]


def test_intensities_change_where_asked_for(networks: Networks):
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(3, 16, 16, 1)).astype(np.float32))
    batch = Batch(image, jnp.asarray(rng.integers(0, 4, (3, 16, 16)).astype(np.int32)), jnp.ones(3))
    still, key = Augmentation(0.0, 0.0, (1.0, 1.0), 0.0), jax.random.key(3)
    plain = networks._augmented(batch, key, still)
    np.testing.assert_allclose(plain.image, image, atol=1e-5)
    config = replace(networks.config, supervised=replace(SUPERVISED, intensity=True))
    changed = Networks(config, "nnunet", Devices(1))._augmented(batch, key, still)
    keys = sample_keys(jax.random.fold_in(key, 1), 3, None)
    expected = jax.vmap(lambda k, x: change_intensity(k, x, INTENSITY))(keys, plain.image[..., 0])
    np.testing.assert_allclose(changed.image[..., 0], expected, atol=1e-5)
    np.testing.assert_array_equal(changed.label, batch.label)
    assert abs(np.asarray(changed.image - plain.image)).max() > 0.1
