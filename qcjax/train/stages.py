"""Supervised training of the segmenter and training of the autoencoder, on one view."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from qcjax import interop, losses
from qcjax.config import Stream
from qcjax.data.batches import Plan, Slices, cycled, epoch_plan, padded
from qcjax.data.cohort import Cohort
from qcjax.data.placement import ahead, place
from qcjax.data.streaming import Streamed
from qcjax.labels import N_CLASSES
from qcjax.runtime.devices import Devices
from qcjax.train.checkpoint import LOSS, Candidate, Checkpoints
from qcjax.train.loop import Journal, Record, fit, run_steps, stream
from qcjax.train.networks import Networks
from qcjax.train.state import TrainState, create, from_variables, shapes
from qcjax.train.validation import mean_dice, reconstruction_loss
from qcjax.typing import Array, Variables


@dataclass(frozen=True)
class ViewData:
    """One view's cases: D_tr, D_val and D_te, and all their slices, placed, in that order."""

    view: str
    training: Cohort
    validation: Cohort
    unlabelled: Cohort
    slices: Slices | Streamed

    @classmethod
    def place(
        cls,
        view: str,
        training: Cohort,
        validation: Cohort,
        unlabelled: Cohort,
        devices: Devices,
        stream: Stream = "auto",
    ) -> "ViewData":
        """Put the slices on the devices, or leave them on the host where they don't fit."""
        parts = (training.slices, validation.slices, unlabelled.slices)
        slices = place(parts, devices, stream, f"Slices of {view}")
        return cls(view, training, validation, unlabelled, slices)

    @property
    def training_indices(self) -> np.ndarray:
        """Where D_tr's slices are."""
        return np.arange(len(self.training.owner))

    @property
    def validation_indices(self) -> np.ndarray:
        """Where D_val's slices are."""
        return len(self.training.owner) + np.arange(len(self.validation.owner))

    @property
    def unlabelled_indices(self) -> np.ndarray:
        """Where D_te's slices are."""
        return len(self.training.owner) + len(self.validation.owner) + np.arange(len(self.unlabelled.owner))

    def names(self, plan: Plan, step: int) -> list[str]:
        """The cases in one batch, each once."""
        parts = (self.training, self.validation, self.unlabelled)
        owners = [part.cases[i].name for part in parts for i in part.owner]
        return list(dict.fromkeys(owners[i] for i in plan.indices[step][plan.weight[step] > 0]))


@dataclass(frozen=True)
class Arm:
    """One segmenter on one view: what all of its stages share."""

    networks: Networks
    data: ViewData
    folder: Path  # of the run
    journal: Journal

    @property
    def devices(self) -> Devices:
        """The devices that the arm's networks run on."""
        return self.networks.devices

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.networks.config.seed

    def identity(self, stage: str) -> Record:
        """Names a stage of this arm; the autoencoder serves every segmenter of the view."""
        if stage == "autoencoder":
            return {"stage": stage, "view": self.data.view}
        return {"stage": stage, "segmenter": self.networks.title, "view": self.data.view}

    def key(self, stage: str) -> Array:
        """The root of a stage's random numbers."""
        return stream(jax.random.key(self.seed), *self.identity(stage).values())

    def checkpoints(self, stage: str, m_best: int, always: tuple[int, ...] = ()) -> Checkpoints:
        """The stage's folder of checkpoints."""
        name = "-".join(str(v) for v in self.identity(stage).values())
        return Checkpoints(self.folder / "checkpoints" / name, stage, m_best, always)

    def state(self, stage: str = "segmenter") -> TrainState:
        """The state that training starts from, on one device: fresh, or (M) from --init-from.

        Raises ValueError where that file doesn't fit the network.
        """
        source = self.networks.config.init_from
        if stage == "segmenter" and source is not None:
            weights = interop.from_torch_file(self.networks.segmenter, source)
            return from_variables(weights, self.networks.tx)
        return create(*self._network(stage))

    def template(self, stage: str = "segmenter") -> TrainState:
        """The shapes of a state, to read a checkpoint into."""
        return shapes(*self._network(stage))

    def _network(self, stage: str) -> tuple[nn.Module, optax.GradientTransformation, Array, Array]:
        """What a stage trains: network, optimiser, key of the initial weights, a sample input."""
        networks, size = self.networks, self.networks.config.size
        if stage == "autoencoder":
            sample = jnp.zeros((1, size, size, N_CLASSES))
            return networks.autoencoder, networks.autoencoder_tx, self.key(stage), sample
        return networks.segmenter, networks.tx, self.key(stage), jnp.zeros((1, size, size, 1))

    def step_key(self, stage: str, epoch: int, step: int) -> Array:
        """The key of one training step."""
        return jax.random.fold_in(jax.random.fold_in(self.key(stage), epoch), step)

    def plan(self, steps: int | None, batch: int, epoch: int) -> Plan:
        """Which labelled slices an epoch takes: one pass, or a number of steps round and round."""
        indices = self.data.training_indices
        if steps is not None:
            return self._shared(cycled(indices, batch, steps, self.seed, epoch))
        shuffle = self.networks.config.losses != "original"
        return self._shared(epoch_plan(len(indices), batch, self.seed, epoch, shuffle))

    def _shared(self, plan: Plan) -> Plan:
        return padded(plan, self.networks.multiple)

    def run_steps(
        self, step: Callable[..., Any], state: TrainState, batches: Iterable[tuple[Any, ...]]
    ) -> tuple[TrainState, Record]:
        """`steps.run_steps` over batches of this arm's slices, made ahead where these stream from the host."""
        with ahead(self.data.slices, batches) as made:
            return run_steps(step, state, made)

    def load(self, checkpoints: Checkpoints, candidate: Candidate, stage: str = "segmenter") -> Variables:
        """A candidate's weights, on the devices."""
        restored = checkpoints.restore(candidate.epoch, state=self.template(stage))["state"]
        return self.devices.replicate(restored.variables)


def train_autoencoder(arm: Arm) -> Variables:
    """R on D_tr's ground-truth masks (monitoring paper); returns the weights of lowest validation loss, placed."""
    config, networks, devices = arm.networks.config.autoencoder, arm.networks, arm.devices
    stage = "autoencoder"
    step = networks.autoencoder_step

    def train(state: TrainState, epoch: int) -> tuple[TrainState, Record]:
        def batches() -> Iterator[tuple[Any, ...]]:
            plan = arm.plan(config.steps, config.batch, epoch)
            for i, (indices, weight) in enumerate(zip(*plan, strict=True)):
                batch = networks.take(arm.data.slices, *devices.shard((indices, weight)))
                early = np.bool_(epoch <= config.early_epochs)
                yield batch, arm.step_key(stage, epoch, i), np.float32(config.rate(epoch)), early

        return arm.run_steps(step, state, batches())

    def validate(state: TrainState, epoch: int) -> Record:
        cohort = arm.data.validation
        original = networks.config.losses == "original"
        dice_loss = losses.soft_dice_loss_original if original else losses.generalised_dice_loss
        rebuilt = networks.predictor.rebuild(state.variables, arm.data.slices, arm.data.validation_indices)
        loss = reconstruction_loss(rebuilt.sums, rebuilt.error, cohort, dice_loss)
        return {LOSS: loss} | mean_dice(rebuilt.labels, cohort.slices.label, cohort)

    checkpoints = arm.checkpoints(stage, m_best=1)
    fit(
        arm.identity(stage),
        config.epochs,
        arm.state(stage),
        train,
        validate,
        checkpoints,
        arm.journal,
        devices,
        cases=lambda epoch, i: arm.data.names(arm.plan(config.steps, config.batch, epoch), i),
    )
    best = arm.load(checkpoints, checkpoints.candidates()[0], stage)
    checkpoints.close()
    return best


def train_segmenter(arm: Arm) -> Checkpoints:
    """Supervised training of M on D_tr (refinement paper, Eq. 1); returns its checkpoints, the m_best among them."""
    config, networks, devices = arm.networks.config.supervised, arm.networks, arm.devices
    stage = "segmenter"
    step = networks.supervised_step
    original = networks.config.losses == "original"
    epochs = original_epochs(config.epochs) if original else config.epochs

    def train(state: TrainState, epoch: int) -> tuple[TrainState, Record]:
        rate = np.float32(networks.supervised_rate(epoch))

        def batches() -> Iterator[tuple[Any, ...]]:
            for i, (indices, weight) in enumerate(
                zip(*arm.plan(config.steps, config.batch, epoch), strict=True)
            ):
                batch = networks.take(arm.data.slices, *devices.shard((indices, weight)))
                yield batch, arm.step_key(stage, epoch, i), rate

        return arm.run_steps(step, state, batches())

    always = (original_start(config.epochs),) if original else ()
    checkpoints = arm.checkpoints(stage, config.m_best, always)
    fit(
        arm.identity(stage),
        epochs,
        arm.state(stage),
        train,
        lambda state, epoch: validate_segmenter(arm, state),
        checkpoints,
        arm.journal,
        devices,
        cases=lambda epoch, i: arm.data.names(arm.plan(config.steps, config.batch, epoch), i),
    )
    return checkpoints


def original_epochs(epochs: int) -> int:
    """How many the refinement code makes of so many: its range ends before the last, 249 of 250."""
    return max(1, epochs - 1)


def original_start(epochs: int) -> int:
    """The epoch from which the refinement code goes on: 200 of 250."""
    return min(max(1, round(epochs * 200 / 250)), original_epochs(epochs))


def validate_segmenter(arm: Arm, state: TrainState) -> Record:
    """Loss over each volume of D_val, averaged, and Dice per structure on the prepared grid."""
    cohort = arm.data.validation
    result = arm.networks.predictor.evaluate(state.variables, arm.data.slices, arm.data.validation_indices)
    sums = losses.Sums(*(cohort.sum_by_case(x) for x in result.sums))
    loss = np.mean(np.asarray(arm.networks.loss.dice(sums)) + cohort.mean_by_case(result.entropy))
    return {LOSS: float(loss)} | mean_dice(result.labels, cohort.slices.label, cohort)
