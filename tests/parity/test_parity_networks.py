"""The networks and their training against the authors' PyTorch code.

Biases of a convolution that batch norm follows directly are left out where gradients are compared: batch norm cancels
them, so their gradients are nothing but rounding.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qcjax import losses
from qcjax.data.batches import Batch
from qcjax.interop import from_torch, to_torch
from qcjax.models import AcdcUNet, MaskAutoencoder, NnUNet
from qcjax.train import updates
from qcjax.train.state import TrainState, adam, from_variables, sgd
from qcjax.typing import Array, Variables
from tests.parity import formulas as f
from tests.parity.golden import Golden, load, weights

MODELS: dict[str, nn.Module] = {"nnunet": NnUNet(), "acdc_unet": AcdcUNet(), "autoencoder": MaskAutoencoder()}
NETWORK_TOLERANCE = 1e-4  # relative
LOSS_TOLERANCE = 1e-3  # relative, at every step of a training
RATE = {"nnunet": 0.01, "acdc_unet": 5e-4, "autoencoder": 2e-4}
POLY_EPOCHS = 1000
FIRST_REFINEMENT_EPOCH, REFINEMENT_EPOCHS = 200, 250
CASE = "out-of-distribution case"
# its loss has no weight, so PyTorch's optimiser leaves it alone, where ours still lets it decay
UNUSED = r"unet\.seg_outputs\.0\.weight"
CANCELLED = {
    "nnunet": r".*\.conv\.bias",
    # an activation stands between, but with the weights in use nearly all is above its kink
    "acdc_unet": r"layers\.(0\.[03]|(1|5|6|8|10)\.[14]|[234]\.[25])\.bias",
    "autoencoder": r"encoder\.(?!36\.)\d*[02468]\.bias|decoder\.(?!36\.)\d*[02468]\.bias",
}


class Run(NamedTuple):
    """Twenty steps of a training: what the tests look at."""

    gradients: Any  # of the first step
    grad_norm: float  # of the first step
    variables: Variables  # after three steps
    losses: list[float]


def recorder() -> optax.GradientTransformation:
    """Passes gradients on and keeps them as its state, so that one compiled step serves every test."""
    return optax.GradientTransformation(
        lambda p: jax.tree.map(jnp.zeros_like, p), lambda g, _, p=None: (g, g)
    )


@cache
def start(name: str) -> Variables:
    """The weights at which training starts."""
    return from_torch(MODELS[name], f.away_from_kinks(name, weights(load(name))))


def batches(name: str) -> list[Batch]:
    """An epoch."""
    return [
        Batch(jnp.asarray(image[..., None]), jnp.asarray(label, jnp.int32), jnp.ones(len(image)))
        for image, label in f.batches(name)
    ]


def train(name: str, tx: Any, update: updates.Update, steps: Iterator[tuple[Any, ...]]) -> Run:
    """Steps of (batch, learning rate, further arguments)."""
    state: TrainState = from_variables(start(name), tx)
    step, key, values = jax.jit(update), jax.random.key(0), []
    gradients, norm, variables = None, 0.0, state.variables
    for batch, rate, *rest in steps:
        state, metrics = step(state, batch, key, jnp.float32(rate), *rest)
        values.append(float(metrics["loss"]))
        if len(values) == 1:
            gradients, norm = state.opt_state[0], float(metrics["grad_norm"])
        if len(values) == 3:
            variables = state.variables
    return Run(gradients, norm, variables, values)


def poly_rate(epoch: int) -> float:
    """Of the refinement code in its `epoch`-th epoch, counted from 0: the first two are alike."""
    return RATE["nnunet"] * (1 - max(epoch - 1, 0) / POLY_EPOCHS) ** 0.9


@pytest.fixture(scope="module", autouse=True)
def optimised_code() -> Iterator[None]:
    """Networks of full size are worth compiling well, unlike the tiny ones of the other tests."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def nnunet_run() -> Run:
    tx = optax.chain(recorder(), sgd())
    update = updates.make_supervised_update(
        MODELS["nnunet"], tx, losses.SUPERVISED["original"], dropout=False
    )
    steps = ((b, poly_rate(epoch)) for epoch in range(f.EPOCHS) for b in batches("nnunet"))
    return train("nnunet", tx, update, steps)


@pytest.fixture(scope="module")
def acdc_unet_run() -> Run:
    tx = optax.chain(recorder(), adam(clip=12.0))
    update = updates.make_supervised_update(
        MODELS["acdc_unet"], tx, losses.SUPERVISED["original"], dropout=False
    )
    return train("acdc_unet", tx, update, ((b, RATE["acdc_unet"]) for b in batches("acdc_unet")[:3]))


@pytest.fixture(scope="module")
def autoencoder_run() -> Run:
    tx = optax.chain(recorder(), adam())
    update = updates.make_autoencoder_update(MODELS["autoencoder"], tx, "original", dropout=False)
    steps = ((b, RATE["autoencoder"]) for _ in range(f.EPOCHS) for b in batches("autoencoder"))
    return train("autoencoder", tx, update, steps)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_batch_norm_statistics(name: str) -> None:
    golden, model = load(name), MODELS[name]
    variables = from_torch(model, weights(golden))
    image, label = f.batches(name)[0]
    inputs = training_inputs = jnp.asarray(image[..., None])
    if name == "autoencoder":
        inputs, training_inputs = jnp.asarray(f.predictions("R", label)), jax.nn.one_hot(label, f.CLASSES)

    @jax.jit
    def both(variables: Variables) -> tuple[Array, tuple[Array, ...], Any]:
        logits, changed = model.apply(
            variables, training_inputs, True, method="logits", mutable=["batch_stats"]
        )
        return model.apply(variables, inputs), tuple(jax.nn.softmax(x) for x in logits), changed

    inference, training, changed = both(variables)
    assert inference.shape == (*inputs.shape[:3], f.CLASSES)
    assert f.deviation(f.sampled(inference, f.OUTPUT_SAMPLES), golden["inference"]) < NETWORK_TOLERANCE
    assert len(training) == sum(key.startswith("training_") for key in golden)
    for i, output in enumerate(training):
        assert f.deviation(f.sampled(output, f.OUTPUT_SAMPLES), golden[f"training_{i}"]) < NETWORK_TOLERANCE
    far = _far(golden, "statistics", to_torch(model, changed), NETWORK_TOLERANCE)
    assert not far


@pytest.mark.parametrize("name", MODELS)
def test_gradients(name: str, request: pytest.FixtureRequest) -> None:
    golden, run = load(name), request.getfixturevalue(f"{name}_run")
    assert run.grad_norm == pytest.approx(float(golden["gradient_norm"]), rel=NETWORK_TOLERANCE)
    far = _far(
        golden,
        "gradients",
        to_torch(MODELS[name], {"params": run.gradients}),
        NETWORK_TOLERANCE,
        CANCELLED[name],
    )
    assert not far


@pytest.mark.parametrize("name", ["nnunet", "autoencoder"])
def test_parameters_after_three_steps(name: str, request: pytest.FixtureRequest) -> None:
    """What three steps changed, as exactly as float32 parameters hold it."""
    found, resolution = _changes(name, request.getfixturevalue(f"{name}_run"))
    assert not _far(load(name), "changes", found, 1e-3, f"{CANCELLED[name]}|{UNUSED}", resolution)


def test_parameters_after_three_clipped_adam_steps(acdc_unet_run: Run) -> None:
    """As a whole: Adam moves elements whose gradient is rounding by as much as the others, this way or that."""
    golden, (found, _) = load("acdc_unet"), _changes("acdc_unet", acdc_unet_run)
    assert acdc_unet_run.grad_norm > 12
    table = np.stack([f.sampled(found[str(key)]) for key in golden["changes_keys"]]).astype(np.float64)
    expected = golden["changes"].astype(np.float64)
    assert np.linalg.norm((table - expected)[:, 3:]) < 2e-2 * np.linalg.norm(expected[:, 3:])
    np.testing.assert_allclose(table[:, 0], expected[:, 0], rtol=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_training_losses(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(f"{name}_run")
    # a negative Dice term plus cross-entropy: where their sum crosses zero it has no relative error of its own
    np.testing.assert_allclose(run.losses, load(name)["losses"], rtol=LOSS_TOLERANCE, atol=1e-5)


def test_monitoring_autoencoder_training_losses() -> None:
    """With the foreground term in the epochs below 10."""
    tx = optax.chain(recorder(), adam())
    update = updates.make_autoencoder_update(MODELS["autoencoder"], tx, "monitoring_original", dropout=False)
    epochs = range(f.FIRST_MONITORING_EPOCH, f.FIRST_MONITORING_EPOCH + f.EPOCHS)
    steps = (
        (b, RATE["autoencoder"], jnp.bool_(epoch < 10)) for epoch in epochs for b in batches("autoencoder")
    )
    run = train("autoencoder", tx, update, steps)
    np.testing.assert_allclose(run.losses, load("autoencoder")["monitoring_losses"], rtol=LOSS_TOLERANCE)


def test_refinement_losses_on_one_case() -> None:
    tx = optax.chain(recorder(), sgd())
    model, autoencoder = MODELS["nnunet"], MODELS["autoencoder"]
    update = updates.make_original_refinement_update(model, autoencoder, tx, dropout=False)
    frozen = from_torch(autoencoder, weights(load("autoencoder")))
    label = f.labels(CASE, f.SHAPE["nnunet"])
    image, best = jnp.asarray(f.images(CASE, label)[..., None]), jnp.asarray(f.predictions(CASE, label))

    def steps() -> Iterator[tuple[Any, ...]]:
        for i in range(f.EPOCHS * f.STEPS_PER_EPOCH):
            blend = jnp.float32((FIRST_REFINEMENT_EPOCH + i) / REFINEMENT_EPOCHS)
            yield (
                updates.OriginalRefinementBatch(image, jnp.ones(len(image)), best, blend, frozen),
                poly_rate(i),
            )

    run = train("nnunet", tx, update, steps())
    np.testing.assert_allclose(run.losses, load("nnunet")["refinement_losses"], rtol=LOSS_TOLERANCE)


def _changes(name: str, run: Run) -> tuple[dict[str, np.ndarray], Callable[[str], float]]:
    """By how much each parameter changed, and the float32 resolution of such a difference."""
    before, after = (to_torch(MODELS[name], {"params": v["params"]}) for v in (start(name), run.variables))
    return {k: after[k] - before[k] for k in after}, lambda k: 5e-7 * float(np.abs(before[k]).max())


def _far(
    golden: Golden,
    name: str,
    arrays: dict[str, np.ndarray],
    tolerance: float,
    without: str = "",
    resolution: Callable[[str], float] = lambda _: 0.0,
) -> dict[str, float]:
    """The arrays that deviate from a table of the golden file by more than the tolerance, and by how much."""
    keys = [str(k) for k in golden[f"{name}_keys"]]
    assert set(keys) == {k for k in arrays if not k.endswith("num_batches_tracked")}
    far = {}
    for key, expected in zip(keys, golden[name], strict=True):
        if without and re.fullmatch(without, key):
            continue
        deviation = f.deviation(f.sampled(arrays[key]), expected)
        if not deviation < tolerance + resolution(key) / max(float(expected[1]), 1e-30):
            far[key] = deviation
    return far
