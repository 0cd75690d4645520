"""Training of an autoencoder of masks R, for whichever paper: Adam, a falling rate, early epochs without background.

L = L_MSE + L_Dice of what R makes of ground-truth masks (monitoring paper, Galati & Zuluaga, FIMH 2021).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from qcjax.config import AutoencoderConfig
from qcjax.data.augment import Augmentation, augment_batch
from qcjax.data.batches import Batch, Plan, sample_keys
from qcjax.runtime.devices import BROADCAST, REPLICATED, SHARDED, Devices
from qcjax.train import updates
from qcjax.train.checkpoint import Candidate, Checkpoints
from qcjax.train.journal import Journal
from qcjax.train.loop import fit
from qcjax.train.nonfinite import skip_nonfinite
from qcjax.train.stage import Record, Stage
from qcjax.train.state import TrainState, create, shapes
from qcjax.typing import Array, Variables

STAGE = "autoencoder"


def compile_step(
    network: nn.Module,
    tx: optax.GradientTransformation,
    loss: str,
    devices: Devices,
    augmentation: Augmentation | None = None,
    accumulate: int = 1,
    on_nonfinite: Literal["stop", "skip"] = "stop",
) -> Callable[..., Any]:
    """The training step (state, Batch, key, learning rate, early) -> (state, metrics); of a batch only labels count.

    Args:
      loss: its name, see `losses.autoencoder_loss`.
      augmentation: of the masks; None: as they are.
      accumulate: parts in which a batch goes through the network.
      on_nonfinite: what becomes of a batch whose loss or gradient isn't finite.
    """
    update = updates.make_autoencoder_update(network, tx, loss, devices.axis_name, accumulate=accumulate)
    if on_nonfinite == "skip":
        update = skip_nonfinite(update, devices.axis_name)

    def step(state: Any, batch: Batch, key: Array, rate: Array, early: Array) -> Any:
        label = batch.label.astype(jnp.int32)
        batch = Batch(label[..., None].astype(jnp.float32), label, batch.weight)
        if augmentation is not None:
            keys = sample_keys(jax.random.fold_in(key, 0), len(label), devices.axis_name)
            batch = augment_batch(keys, batch, augmentation)
        return update(state, batch, key, rate, early)

    axes = (REPLICATED, SHARDED, BROADCAST, BROADCAST, BROADCAST)
    return devices.compile(step, axes, donate=(0,))


@dataclass(frozen=True)
class Masks:
    """What R learns from, and how it is judged."""

    placed: Any  # of `placement.place`
    take: Callable[..., Batch]  # (placed, indices, weight) -> Batch, as `placement.Batcher`
    plan: Callable[[int], Plan]  # of an epoch
    names: Callable[[Plan, int], list[str]]  # the cases in a batch of a plan
    validate: Callable[[Variables], Record]  # on masks that R doesn't learn from


@dataclass(frozen=True)
class Autoencoder:
    """The network, how it starts and how it steps."""

    network: nn.Module
    tx: optax.GradientTransformation
    step: Callable[..., Any]  # of `compile_step`
    sample: Array  # an input, (1, h, w, classes)
    key: Array  # the root of the training's random numbers


class AutoencoderStage(Stage):
    """The autoencoder from its first weights on."""

    def __init__(
        self,
        identity: Record,
        config: AutoencoderConfig,
        autoencoder: Autoencoder,
        masks: Masks,
        devices: Devices,
    ) -> None:
        self.identity, self.config, self.epochs = identity, config, config.epochs
        self.autoencoder, self.masks, self.devices = autoencoder, masks, devices

    def init(self) -> TrainState:
        a = self.autoencoder
        return create(a.network, a.tx, a.key, a.sample)

    def template(self) -> TrainState:
        """The shapes of a state, to read a checkpoint into."""
        a = self.autoencoder
        return shapes(a.network, a.tx, a.key, a.sample)

    def source(self, epoch: int) -> Any:
        return self.masks.placed

    def batches(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        rate, early = np.float32(self.config.rate(epoch)), np.bool_(epoch <= self.config.early_epochs)
        of_epoch = jax.random.fold_in(self.autoencoder.key, epoch)
        for i, pair in enumerate(zip(*self.masks.plan(epoch), strict=True)):
            batch = self.masks.take(self.masks.placed, *self.devices.shard(pair))
            yield batch, jax.random.fold_in(of_epoch, i), rate, early

    def step(self, epoch: int) -> Callable[..., Any]:
        return self.autoencoder.step

    def validate(self, state: TrainState, epoch: int) -> Record:
        return self.masks.validate(state.variables)

    def names(self, epoch: int, step: int) -> Sequence[str]:
        return self.masks.names(self.masks.plan(epoch), step)


def train_autoencoder(
    stage: AutoencoderStage, journal: Journal, checkpoints: Checkpoints
) -> tuple[Variables, Candidate]:
    """Train R, or go on; the weights of lowest validation loss, on the host, and which epoch's they are."""
    fit(stage, journal, checkpoints, stage.devices)
    best = checkpoints.candidates()[0]
    variables = checkpoints.restore(best.epoch, state=stage.template())["state"].variables
    checkpoints.close()
    return variables, best
