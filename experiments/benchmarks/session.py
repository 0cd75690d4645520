"""Both sides of the cohort rows, with the same weights: M and R of the refinement code, briefly trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.workload import VIEW, Workload, config
from qcjax import interop
from qcjax.data.batches import epoch_plan
from qcjax.train.loop import Journal, run_steps
from qcjax.train.networks import Networks
from qcjax.train.parallel import Devices
from qcjax.train.stages import Arm
from qcjax.train.state import TrainState
from qcjax.typing import Variables

STAGES = ("segmenter", "autoencoder")
WARM_RATES = np.float32(0.01), np.float32(2e-3)  # of M and R


@dataclass(frozen=True)
class Ours:
    """An arm of the experiment, and the weights that both sides start from."""

    arm: Arm
    segmenter: Variables
    autoencoder: Variables
    repeats: int

    @classmethod
    def open(cls, workload: Workload, folder: Path) -> "Ours":
        """Build the networks; train both for a few steps on the labelled slices."""
        networks = Networks(config(workload.sizes), "nnunet", Devices(1))
        arm = Arm(networks, workload.view, folder, Journal(folder / "metrics.jsonl"))
        m, r = (
            _trained(arm, stage, n) for stage, n in zip(STAGES, workload.sizes.warm_up_steps, strict=True)
        )
        return cls(arm, _on_host(m.variables), _on_host(r.variables), workload.sizes.repeats)


def _trained(arm: Arm, stage: str, steps: int) -> TrainState:
    """After some steps on the labelled slices."""
    state = arm.state(stage)
    if steps:
        networks = arm.networks
        step = networks.supervised_step if stage == "segmenter" else networks.autoencoder_step
        state, _ = run_steps(step, state, _batches(arm, stage, steps))
    return state


def _batches(arm: Arm, stage: str, steps: int) -> Iterator[tuple[Any, ...]]:
    networks = arm.networks
    size = networks.config.supervised.batch if stage == "segmenter" else networks.config.autoencoder.batch
    done = 0
    for epoch in range(steps):
        plan = epoch_plan(len(arm.data.training_indices), size, arm.seed, epoch)
        for indices, weight in zip(*plan, strict=True):
            if done == steps:
                return
            batch = networks.take(arm.data.slices, indices, weight)
            key = arm.step_key(stage, epoch, done)
            if stage == "segmenter":
                yield batch, key, WARM_RATES[0]
            else:
                yield batch, key, WARM_RATES[1], np.bool_(False)
            done += 1


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
        from experiments.benchmarks.originals import prepare_data

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
        from experiments.benchmarks.originals import working_directory

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
