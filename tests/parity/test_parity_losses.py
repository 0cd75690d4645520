"""Losses, targets, learning rates and optimisers against the authors' PyTorch code."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qcjax import losses
from qcjax.config import Mnms2Config
from qcjax.runtime.devices import Devices
from qcjax.train.networks import Networks
from qcjax.train.state import adam, sgd
from qcjax.typing import Array
from tests.parity import formulas as f
from tests.parity.golden import load

TOLERANCE = 1e-5
Loss = Callable[[Array, Array], Array]  # logits, one-hot target


def _of_sums(dice: Callable[[losses.Sums], Array]) -> Loss:
    return lambda x, y: dice(losses.batch_sums(losses.class_sums(jax.nn.softmax(x), y)))


def _monitoring_dice(x: Array, y: Array) -> Array:
    return losses.pixel_mean(losses.monitoring_dice_loss_original(losses.class_sums(jax.nn.softmax(x), y)))


LOSSES: dict[str, Loss] = {
    "dice": _of_sums(losses.soft_dice_loss_original),
    "cross_entropy": lambda x, y: losses.pixel_mean(losses.cross_entropy_original(jax.nn.softmax(x), y)),
    "dice_rv": _of_sums(losses.soft_dice_loss_rv_original),
    "cross_entropy_rv": lambda x, y: losses.pixel_mean(
        losses.cross_entropy_original(jax.nn.softmax(x)[..., -1:], y[..., -1:])
    ),
    "mse": lambda x, y: losses.pixel_mean(losses.squared_error(jax.nn.softmax(x), y)),
    "supervised": lambda x, y: losses.SUPERVISED["original"](x, y.argmax(-1)),
    "refinement": losses.refinement_loss_original,
    "autoencoder": lambda x, y: losses.autoencoder_loss("original", x, y),
    "monitoring_dice": _monitoring_dice,
    "monitoring_early": lambda x, y: losses.autoencoder_loss("monitoring_original", x, y, early=True),
    "monitoring": lambda x, y: losses.autoencoder_loss("monitoring_original", x, y, early=False),
}


@pytest.mark.parametrize("case", f.LOSS_CASES)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_its_gradient(name: str, case: str) -> None:
    logits, label = f.loss_case(case)
    value, gradient = jax.value_and_grad(LOSSES[name])(jnp.asarray(logits), jax.nn.one_hot(label, f.CLASSES))
    golden = load("losses")
    assert float(value) == pytest.approx(float(golden[f"{case}/{name}"]), abs=TOLERANCE, rel=TOLERANCE)
    assert f.deviation(f.sampled(gradient), golden[f"{case}/{name}/gradient"]) < 1e-4


@pytest.mark.parametrize("name", f.target_cases())
def test_deep_supervision_targets(name: str) -> None:
    label = f.target_cases()[name]
    for i in range(6):
        shape = tuple(n // 2**i for n in label.shape[1:])
        found = losses.downsample_label(jnp.asarray(label), shape)
        np.testing.assert_array_equal(found, load("targets")[f"{name}/{i}"])


@pytest.mark.parametrize("name", ["nnunet", "acdc_unet"])
def test_learning_rates(name: str) -> None:
    """The poly schedule's counter is applied before it advances, the exponential one's after."""
    networks = Networks(Mnms2Config(preset="original"), name, Devices(1))
    expected = load("learning_rates")[name]
    counters = [max(i - 1, 0) if name == "nnunet" else i for i in range(len(expected))]
    np.testing.assert_allclose([networks.rate(c) for c in counters], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "tx", "rate"),
    [
        ("nnunet", sgd(), 0.01),
        ("acdc_unet", adam(clip=12.0), 5e-4),
        ("refinement_autoencoder", adam(), 2e-4),
    ],
)
def test_three_optimiser_steps(name: str, tx: optax.GradientTransformation, rate: float) -> None:
    golden, parameters = load("optimisers"), f.optimiser_case(0)[0]
    state = tx.init(parameters)
    for step in range(3):
        direction, state = tx.update(f.optimiser_case(step)[1], state, parameters)
        before = parameters
        parameters = {k: np.asarray(p - rate * direction[k], np.float32) for k, p in before.items()}
        for k, p in parameters.items():
            expected = golden[f"{name}/{step}/{k}"]
            np.testing.assert_allclose(p, expected, rtol=0, atol=1e-6)
            assert np.abs(expected - before[k]).max() > 1e-4
