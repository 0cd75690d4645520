"""A stage of training whose state is one number: each step doubles it and adds what the batch holds."""

import jax
import jax.numpy as jnp

from qcjax.runtime.devices import Devices
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.loop import Journal, fit
from qcjax.train.state import TrainState
from qcjax.train.steps import run_steps

ONE = {"stage": "segmenter", "view": "SA"}
STEPS = 4


@jax.jit
def double_and_add(state, x):
    w = 2 * state.params["w"] + x
    return state.replace(step=state.step + 1, params={"w": w}), {"loss": x / w[0], "grad_norm": jnp.abs(x)}


def number(epoch, step):
    """What a batch holds."""
    return jnp.float32(0.1 * epoch + 0.01 * step + 1)


def train_toy(
    folder, epochs=3, batch=number, validate=None, step=double_and_add, cases=None, width=2, devices=1
):
    """Returns the number in the end, and the journal without times."""
    checkpoints, journal = Checkpoints(folder / "kept", "segmenter", 2), Journal(folder / "metrics.jsonl")
    replicas = Devices(devices)

    def train(state, epoch):
        return run_steps(step, state, ((batch(epoch, i),) for i in range(STEPS)))

    def loss(state, epoch):
        return {"validation_loss": 1 / epoch} if validate is None else validate(epoch)

    try:
        start = TrainState(jnp.int32(0), {"w": jnp.zeros(width)}, {}, {})
        state = fit(ONE, epochs, start, train, loss, checkpoints, journal, replicas, cases=cases)
    finally:
        checkpoints.close()
    return float(state.params["w"][0]), without_times(journal.read())


def without_times(records):
    return [{k: v for k, v in r.items() if not k.endswith("seconds")} for r in records]
