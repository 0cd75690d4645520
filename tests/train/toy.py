"""A stage of training whose state is one number: each step doubles it and adds what the batch holds."""

import jax
import jax.numpy as jnp

from qcjax.runtime.devices import Devices
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.journal import Journal
from qcjax.train.loop import fit
from qcjax.train.stage import Stage
from qcjax.train.state import TrainState

ONE = {"stage": "segmenter", "view": "SA"}
STEPS = 4


@jax.jit
def double_and_add(state, x):
    w = 2 * state.params["w"] + x
    return state.replace(step=state.step + 1, params={"w": w}), {"loss": x / w[0], "grad_norm": jnp.abs(x)}


def number(epoch, step):
    """What a batch holds."""
    return jnp.float32(0.1 * epoch + 0.01 * step + 1)


class Toy(Stage):
    """STEPS steps an epoch."""

    identity = ONE

    def __init__(self, epochs, batch, validate, step, cases, width):
        self.epochs, self.batch, self._validate, self._step = epochs, batch, validate, step
        self.cases, self.width = cases, width

    def init(self):
        return TrainState(jnp.int32(0), {"w": jnp.zeros(self.width)}, {}, {})

    def batches(self, epoch):
        return ((self.batch(epoch, i),) for i in range(STEPS))

    def step(self, epoch):
        return self._step

    def validate(self, state, epoch):
        return {"validation_loss": 1 / epoch} if self._validate is None else self._validate(epoch)

    def names(self, epoch, step):
        return () if self.cases is None else self.cases(epoch, step)


def train_toy(
    folder, epochs=3, batch=number, validate=None, step=double_and_add, cases=None, width=2, devices=1
):
    """Returns the number in the end, and the journal without times."""
    checkpoints, journal = Checkpoints(folder / "kept", "segmenter", 2), Journal(folder / "metrics.jsonl")
    try:
        state = fit(Toy(epochs, batch, validate, step, cases, width), journal, checkpoints, Devices(devices))
    finally:
        checkpoints.close()
    return float(state.params["w"][0]), without_times(journal.read())


def without_times(records):
    return [{k: v for k, v in r.items() if not k.endswith("seconds")} for r in records]
