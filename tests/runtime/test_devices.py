"""One device and eight emulated ones compute the same."""

import re
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qcjax
from qcjax.data.batches import Slices
from qcjax.runtime.devices import BROADCAST, REPLICATED, SHARDED, Devices, half
from qcjax.train.state import create
from tests.slow import slow

STEPS, WARM_UP = 5, 20
# batch norm cancels the bias of the convolution before it
CANCELLED = re.compile(r"\['(down|up)_\d+_\d+'\]\['conv'\]\['bias'\]|\['(encoder|decoder)_\d+'\]\['bias'\]")


@pytest.fixture(scope="module")
def slices():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, (12, 8, 8)).repeat(8, 1).repeat(8, 2)
    image = label + rng.normal(0, 0.5, label.shape)
    return Slices(image.astype(np.float32), label.astype(np.uint8))


def sharded(networks, slices, order, weight):
    devices = networks.devices
    return networks.take(devices.replicate(slices), *devices.shard((order, weight)))


def trained(networks, slices):
    """Some supervised steps, as refinement starts from a trained state and its optimiser's."""
    state = networks_state(networks, jax.random.key(5))
    for step in range(WARM_UP):
        order = np.random.default_rng([1, step]).permutation(12)[:8].astype(np.int32)
        batch = sharded(networks, slices, order, np.ones(8, np.float32))
        key = jax.random.fold_in(jax.random.key(6), step)
        state, _ = networks.supervised_step(state, batch, key, np.float32(networks.initial_rate))
    return jax.device_get(state)


def refine(networks, slices, start):
    """Five steps on 7 labelled slices, 5 OoD ones and 4 of padding."""
    devices = networks.devices
    key = jax.random.key(7)
    state = devices.replicate(start)
    autoencoder = devices.replicate(networks_state(networks, key, autoencoder=True).variables)
    labelled = np.float32([1] * 7 + [0] * 9)
    unlabelled = np.float32([0] * 7 + [1] * 5 + [0] * 4)
    history = []
    for step in range(STEPS):
        order = np.random.default_rng(step).permutation(12)
        batch = sharded(networks, slices, np.int32([*order, 0, 0, 0, 0]), labelled)
        state, metrics = networks.refinement_step(
            state,
            batch,
            devices.shard(unlabelled),
            np.float32(1 / (1 + step)),
            autoencoder,
            jax.random.fold_in(key, step),
            np.float32(networks.config.refinement.learning_rate_factor * networks.initial_rate),
        )
        history.append(devices.unreplicate(jax.device_get(metrics)))
    output = networks.predictor.probabilities(state.variables, devices.replicate(slices), np.arange(12))
    return devices.unreplicate(jax.device_get(state)), history, output


def networks_state(networks, key, autoencoder=False):
    if autoencoder:
        return create(networks.autoencoder, networks.autoencoder_tx, key, jnp.zeros((1, 64, 64, 4)))
    return create(networks.segmenter, networks.tx, key, jnp.zeros((1, 64, 64, 1)))


def compare_params(one, eight):
    found = jax.tree_util.tree_leaves_with_path(one.params)
    other = jax.tree.leaves(eight.params)
    compared = 0
    for (path, a), b in zip(found, other, strict=True):
        name = jax.tree_util.keystr(path)
        if not CANCELLED.search(name):
            np.testing.assert_allclose(b, a, atol=1e-5, err_msg=name)
            compared += 1
    assert compared > len(other) / 2


@pytest.mark.parametrize("name", ["nnunet", pytest.param("acdc_unet", marks=slow)])
def test_refinement_on_one_device_and_on_eight(networks, slices, name):
    start = trained(networks(name, 1), slices)
    one, history, output = refine(networks(name, 1), slices, start)
    eight, history_eight, output_eight = refine(networks(name, 8), slices, start)
    # the parameters of acdc_unet moved by 1e-7 of themselves, one rounding, move its outputs by 8e-6 here
    tolerance = 3e-5 if name == "acdc_unet" else 1e-5
    for a, b in zip(history, history_eight, strict=True):
        for part in ("loss", "supervised", "semi_supervised"):
            np.testing.assert_allclose(b[part], a[part], atol=tolerance)
        # one activation at the kink of a leaky ReLU, or one tie in max-pooling, is enough to see in the gradient
        np.testing.assert_allclose(b["grad_norm"], a["grad_norm"], rtol=1e-3)
    np.testing.assert_allclose(output_eight, output, atol=tolerance)
    compare_params(one, eight)
    chex.assert_trees_all_close(one.batch_stats, eight.batch_stats, atol=1e-4)
    assert history[0]["loss"] != history[-1]["loss"]


def test_the_autoencoder_on_one_device_and_on_eight(networks, slices):
    results = []
    for count in (1, 8):
        n = networks("nnunet", count)
        key = jax.random.key(3)
        state = n.devices.replicate(networks_state(n, key, autoencoder=True))
        history = []
        for step in range(3):
            batch = sharded(n, slices, np.arange(8, dtype=np.int32), np.float32([1] * 6 + [0] * 2))
            state, metrics = n.autoencoder_step(
                state, batch, jax.random.fold_in(key, step), np.float32(1e-3), np.bool_(step == 0)
            )
            history.append(float(n.devices.unreplicate(metrics["loss"])))
        results.append((n.devices.unreplicate(jax.device_get(state)), history))
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-5)
    compare_params(results[0][0], results[1][0])


def test_predictions_do_not_depend_on_batches_or_devices(networks, slices):
    outputs = {}
    for count in (1, 8):
        n = networks("nnunet", count)
        placed = n.devices.replicate(slices)
        state = n.devices.replicate(networks_state(n, jax.random.key(0)))
        outputs[count] = n.predictor.evaluate(state.variables, placed, np.array([5, 2, 11]))
        assert outputs[count].labels.shape == (3, 64, 64)
    np.testing.assert_array_equal(outputs[1].labels, outputs[8].labels)
    chex.assert_trees_all_close(outputs[1].sums, outputs[8].sums, rtol=1e-5)
    np.testing.assert_allclose(outputs[1].entropy, outputs[8].entropy, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 4])
def test_devices_place_and_gather(count):
    devices = Devices(count)
    assert devices.count == count and (devices.axis_name is None) == (count == 1)
    tree = {"a": np.arange(24.0).reshape(8, 3)}
    np.testing.assert_array_equal(devices.gather(devices.shard(tree))["a"], tree["a"])
    placed = devices.replicate(tree)
    np.testing.assert_array_equal(devices.unreplicate(placed)["a"], tree["a"])
    assert devices.batch_size(5) == {1: 5, 4: 8}[count]
    add = devices.compile(lambda t, x, c: x + t["a"].sum() + c, (REPLICATED, SHARDED, BROADCAST))
    found = devices.gather(add(placed, devices.shard(np.arange(8.0)), np.float32(1)))
    np.testing.assert_allclose(found, np.arange(8) + 276 + 1)


def test_a_donated_state_is_gone(networks, slices):
    n = networks("nnunet", 1)
    state = n.devices.replicate(networks_state(n, jax.random.key(0)))
    batch = sharded(n, slices, np.arange(4, dtype=np.int32), np.ones(4, np.float32))
    n.supervised_step(state, batch, jax.random.key(0), np.float32(0.01))
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))


def test_more_devices_than_there_are_is_refused():
    for count in (0, 9):
        with pytest.raises(ValueError, match=rf"--devices: {count} asked for, 8 found \(cpu\)"):
            Devices(count)


def test_nothing_else_counts_devices_or_maps_over_them() -> None:
    """What knows of more than one device stands in one file."""
    package = Path(qcjax.__file__).parent
    words = re.compile(r"jax\.pmap|axis_index\(|device_count\(|jax\.(?:local_)?devices\(")
    told = {
        str(p.relative_to(package))
        for p in package.rglob("*.py")
        if words.search(p.read_text(encoding="utf-8"))
    }
    assert told == {"runtime/devices.py"}


def test_probabilities_leave_as_float16_where_xla_can_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    assert half() in (np.float16, np.float32)

    def refused(function: Any) -> Any:
        raise jax.errors.JaxRuntimeError("Failed to materialize symbols: __truncsfhf2")

    monkeypatch.setattr(jax, "jit", refused)
    assert half.__wrapped__() is np.float32
