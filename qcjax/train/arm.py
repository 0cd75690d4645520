"""One segmenter on one view: the data, networks, folders and random streams that all of its trainings share."""

from dataclasses import dataclass
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from qcjax import interop
from qcjax.config import Stream
from qcjax.data.batches import Plan, Slices, cycled, epoch_plan, padded
from qcjax.data.cohort import Cohort
from qcjax.data.placement import place
from qcjax.data.streaming import Streamed
from qcjax.labels import N_CLASSES
from qcjax.runtime.devices import Devices
from qcjax.train.checkpoint import Candidate, Checkpoints
from qcjax.train.journal import Journal
from qcjax.train.loop import stream
from qcjax.train.networks import Networks
from qcjax.train.stage import Record
from qcjax.train.state import TrainState, create, from_variables, shapes
from qcjax.typing import Array, Int, Integer, PRNGKey, Variables


@dataclass(frozen=True)
class ViewData:
    """One view's cases: D_tr, D_val and D_te, and all their slices, placed, in that order."""

    view: str
    training: Cohort
    validation: Cohort
    unlabelled: Cohort
    slices: Slices | Streamed
    refined_on: np.ndarray  # which cases of D_te refinement looks at, ascending

    @classmethod
    def place(
        cls,
        view: str,
        training: Cohort,
        validation: Cohort,
        unlabelled: Cohort,
        devices: Devices,
        stream: Stream = "auto",
        refined_on: Integer[np.ndarray, " m"] | None = None,
    ) -> "ViewData":
        """Put the slices on the devices, or leave them on the host where they don't fit.

        Args:
          refined_on: indices of the cases of D_te that refinement looks at; None: all.
        """
        parts = (training.slices, validation.slices, unlabelled.slices)
        slices = place(parts, devices, stream, f"Slices of {view}")
        cases = np.arange(len(unlabelled.cases)) if refined_on is None else refined_on
        return cls(view, training, validation, unlabelled, slices, cases)

    @property
    def training_indices(self) -> Int[np.ndarray, " n"]:
        """Where D_tr's slices are."""
        return np.arange(len(self.training.owner))

    @property
    def validation_indices(self) -> Int[np.ndarray, " n"]:
        """Where D_val's slices are."""
        return len(self.training.owner) + np.arange(len(self.validation.owner))

    @property
    def unlabelled_indices(self) -> Int[np.ndarray, " n"]:
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

    def key(self, stage: str) -> PRNGKey:
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
            state = from_variables(weights, self.networks.tx)
        else:
            state = create(*self._network(stage))
        return jax.tree.map(jnp.copy, state.with_mean()) if self._averages(stage) else state

    def template(self, stage: str = "segmenter") -> TrainState:
        """The shapes of a state, to read a checkpoint into."""
        found = shapes(*self._network(stage))
        return found.with_mean() if self._averages(stage) else found

    def _averages(self, stage: str) -> bool:
        return stage == "segmenter" and self.networks.config.supervised.average > 0

    def _network(self, stage: str) -> tuple[nn.Module, optax.GradientTransformation, Array, Array]:
        """What a stage trains: network, optimiser, key of the initial weights, a sample input."""
        networks, size = self.networks, self.networks.config.size
        if stage == "autoencoder":
            sample = jnp.zeros((1, size, size, N_CLASSES))
            return networks.autoencoder, networks.autoencoder_tx, self.key(stage), sample
        return networks.segmenter, networks.tx, self.key(stage), jnp.zeros((1, size, size, 1))

    def step_key(self, stage: str, epoch: int, step: int) -> PRNGKey:
        """The key of one training step."""
        return jax.random.fold_in(jax.random.fold_in(self.key(stage), epoch), step)

    def plan(self, steps: int | None, batch: int, epoch: int) -> Plan:
        """Which labelled slices an epoch takes: one pass, or a number of steps round and round."""
        indices = self.data.training_indices
        if steps is not None:
            return self._shared(cycled(indices, batch, steps, self.seed, epoch))
        shuffle = self.networks.config.method.shuffle
        return self._shared(epoch_plan(len(indices), batch, self.seed, epoch, shuffle))

    def _shared(self, plan: Plan) -> Plan:
        return padded(plan, self.networks.multiple)

    def load(self, checkpoints: Checkpoints, candidate: Candidate, stage: str = "segmenter") -> Variables:
        """A candidate's weights, on the devices."""
        restored = checkpoints.restore(candidate.epoch, state=self.template(stage))["state"]
        return self.devices.replicate(restored.model)
