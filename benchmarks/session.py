"""Both sides of the cohort rows, with the same weights: M and R of the refinement code, briefly trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workload import VIEW, Workload, config
from qcjax import interop
from qcjax.data.batches import Batch, cycled
from qcjax.runtime.devices import Devices
from qcjax.train.arm import Arm
from qcjax.train.journal import Journal
from qcjax.train.networks import Networks
from qcjax.train.state import TrainState, adam, create
from qcjax.train.updates import make_supervised_update
from qcjax.typing import Variables

WARM_RATE = np.float32(2e-3)
WARM_BATCH, WARM_SIDE = 8, 128  # of M: the middles of a few slices cost an eighth of a whole batch


@dataclass(frozen=True)
class Ours:
    """An arm of the experiment, and the weights that both sides start from."""

    arm: Arm
    segmenter: Variables
    autoencoder: Variables
    repeats: int

    @classmethod
    def open(cls, workload: Workload, folder: Path) -> "Ours":
        """Build the networks; train both for a few steps on the labelled slices, without augmentation."""
        networks = Networks(config(workload.sizes), "nnunet", Devices(1))
        arm = Arm(networks, workload.view, folder, Journal(folder / "metrics.jsonl"))
        of_m, of_r = workload.sizes.warm_up_steps
        m, r = _segmenter(arm, of_m), _autoencoder(arm, of_r)
        return cls(arm, _on_host(m.variables), _on_host(r.variables), workload.sizes.repeats)


def _segmenter(arm: Arm, steps: int) -> TrainState:
    """M after some steps of Adam."""
    networks, tx = arm.networks, adam(clip=12.0)
    state = create(networks.segmenter, tx, arm.key("segmenter"), jnp.zeros((1, WARM_SIDE, WARM_SIDE, 1)))
    step = jax.jit(make_supervised_update(networks.segmenter, tx, networks.loss), donate_argnums=0)
    margin = max(0, (networks.config.size - WARM_SIDE) // 2)
    middle = slice(margin, networks.config.size - margin)
    for i, batch in enumerate(_batches(arm, WARM_BATCH, steps)):
        batch = batch._replace(image=batch.image[:, middle, middle], label=batch.label[:, middle, middle])
        state, _ = step(state, batch, arm.step_key("segmenter", 0, i), WARM_RATE)
    return state


def _autoencoder(arm: Arm, steps: int) -> TrainState:
    """R after some steps of its training."""
    state = arm.state("autoencoder")
    for i, batch in enumerate(_batches(arm, arm.networks.config.autoencoder.batch, steps)):
        key = arm.step_key("autoencoder", 0, i)
        state, _ = arm.networks.autoencoder_step(state, batch, key, WARM_RATE, np.bool_(False))
    return state


def _batches(arm: Arm, size: int, steps: int) -> Iterator[Batch]:
    """Batches of labelled slices, round and round."""
    if not steps:
        return
    plan = cycled(arm.data.training_indices, size, steps, arm.seed, 0)
    for indices, weight in zip(*plan, strict=True):
        yield arm.networks.take(arm.data.slices, indices, weight)


def _on_host(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.array(x, copy=True), tree)


@dataclass(frozen=True)
class Theirs:
    """The same cohort as their loaders want it, and the same weights."""

    originals: Any
    workload: Workload
    ours: Ours
    folder: Path  # their working directory

    @classmethod
    def open(cls, originals: Any, workload: Workload, ours: Ours, folder: Path) -> "Theirs":
        """Run their preprocessing."""
        from benchmarks.originals import prepare_data

        parts = {part: workload.cases(part) for part in ("training", "validation", "unlabelled")}
        theirs = cls(originals, workload, ours, folder)
        folder.mkdir(parents=True, exist_ok=True)
        prepare_data(originals, parts, workload.spacing_mm, folder)
        size = workload.sizes.size
        originals.utils.BATCH_SIZE = workload.sizes.batch
        originals.utils.transform_downsample = originals.compose(size, augment=False, downsample=True)
        return theirs

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """In their working directory."""
        from benchmarks.originals import working_directory

        with working_directory(self.folder):
            yield

    def segmenter(self) -> Any:
        """M with the common weights and a fresh optimiser."""
        model = self.originals.network("nnunet")
        return self._loaded(model, self.ours.arm.networks.segmenter, self.ours.segmenter)

    @cached_property
    def autoencoder(self) -> Any:
        """R with the common weights, evaluating."""
        model = self.originals.refinement_autoencoder()
        return self._loaded(model, self.ours.arm.networks.autoencoder, self.ours.autoencoder).eval()

    def _loaded(self, model: Any, network: Any, variables: Variables) -> Any:
        import torch

        state = interop.to_torch(network, variables)
        model.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
        return model

    def slices(self) -> Any:
        """The loader of labelled slices, with augmentation."""
        import torch

        u, size = self.originals.utils, self.workload.sizes.size
        transform = self.originals.compose(size, augment=True, downsample=True)
        dataset = u.ACDCAllPatients(f"preprocessed/training/{VIEW}", transform=transform)
        return torch.utils.data.DataLoader(
            dataset, batch_size=self.workload.sizes.batch, shuffle=False, num_workers=0
        )

    def patients(self, part: str) -> Any:
        """The loader of a part's subjects, one after another."""
        transform = self.originals.compose(self.workload.sizes.size, augment=False, downsample=False)
        return self.originals.utils.ACDCDataLoader(
            f"preprocessed/{part}/{VIEW}", batch_size=self.workload.sizes.batch, transform=transform
        )
