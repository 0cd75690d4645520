"""Refinement of one network of a model on unlabelled images (refinement paper, section 2.2), beside labelled slices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from qcjax import losses, qc
from qcjax.config.adaptation import AdaptationConfig
from qcjax.data.augment import Augmentation
from qcjax.data.batches import Batch, cycled, in_batches, sample_keys, side_by_side
from qcjax.data.placement import ahead
from qcjax.metrics.overlap import dice
from qcjax.models.cpu.inference import in_parts
from qcjax.qc.components import keep_largest
from qcjax.runtime.devices import BROADCAST, REPLICATED, SHARDED
from qcjax.segmentation.fold import Recipe
from qcjax.segmentation.model import Model
from qcjax.segmentation.unlabelled import Unlabelled
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.loop import stream as key_of
from qcjax.train.stage import LOSS, Record, Stage
from qcjax.train.state import TrainState, from_variables
from qcjax.train.updates import RefinementBatch, make_refinement_update
from qcjax.typing import Array, PRNGKey, Variables

WATCHED = 96  # labelled slices that are looked at after every pass; nothing is chosen by them
Measured = tuple[np.ndarray, np.ndarray]  # pDC and pHD in mm of every case and structure: (n, k) each


@dataclass(frozen=True)
class Limits:
    """What is in distribution, for each structure that a mask must have."""

    of_structures: Mapping[int, qc.Thresholds]  # by place among the structures

    @classmethod
    def of(
        cls,
        measured: Sequence[Measured],
        needed: Sequence[int],
        known: Mapping[int, Sequence[float]],
    ) -> "Limits":
        """The refinement paper's thresholds over the cohort, but no lower of pDC than that of the model's own subjects.

        A cohort that is strange as a whole has no outliers; what the model's held-out masks had, shows that.

        Args:
          measured: of each network, (n, k).
          needed: places of the structures that count.
          known: place -> pDC of held-out masks of training, where there are some.
        """
        found = {}
        for i in needed:
            pdc, phd = (np.stack([m[j][:, i] for m in measured]) for j in (0, 1))
            limits = qc.thresholds(pdc, phd)
            own = [v for v in known.get(i, ()) if v > 0]
            if own:
                low, high = np.quantile(own, (0.25, 0.75))
                limits = qc.Thresholds(float(np.fmax(limits.low, low - 1.5 * (high - low))), limits.up)
            found[i] = limits
        return cls(found)

    def outside(self, measured: Sequence[Measured]) -> Bool[np.ndarray, " n"]:
        """Which cases are out of distribution: all networks are outside the limits of one structure."""
        found = np.zeros(len(measured[0][0]), bool)
        for i, limits in self.of_structures.items():
            pdc, phd = (np.stack([m[j][:, i] for m in measured]) for j in (0, 1))
            found |= qc.out_of_distribution(pdc, phd, limits)
        return found


class Refinement:
    """What the refinements of all networks share: the data, and the compiled steps."""

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        config: AdaptationConfig,
        data: Any,
        labelled: Any,
        cohort: Unlabelled,
    ) -> None:
        """Nothing runs yet.

        Args:
          recipe: of the training, its patches as large as its slices.
          data: labelled slices, then the cohort's, placed.
          labelled: the former, on the host.
        """
        self.model, self.recipe, self.config, self.data, self.cohort = model, recipe, config, data, cohort
        self.labelled, self.n_labelled = labelled, len(labelled.image)
        self.devices = devices = recipe.devices
        network, variables = model.monitor.network
        self.autoencoder = devices.replicate(variables)
        self.optional = model.monitor.optional
        self.needed = [i for i, s in enumerate(model.structures) if s not in self.optional]
        weights = tuple(
            1 / len(self.needed) if i in self.needed else 0.0 for i in range(len(model.structures))
        )
        update = make_refinement_update(
            recipe.network,
            network,
            recipe.tx,
            losses.SEGMENTATION,
            devices.axis_name,
            weights=(0.0, *weights),
        )
        own = recipe.config
        geometry = Augmentation(mirror=own.mirror, rotation_deg=own.rotation_deg, scale=own.scale)

        def step(
            state: TrainState,
            batch: Batch,
            unlabelled: Array,
            alpha: Array,
            r: Any,
            key: PRNGKey,
            rate: Array,
        ) -> Any:
            keys = sample_keys(jax.random.fold_in(key, 0), batch.image.shape[0], devices.axis_name)
            changed = jax.vmap(lambda k, x, y: recipe.changed(k, x, y, geometry))
            image, label = changed(keys, batch.image[..., 0], batch.label)
            is_labelled = (batch.weight > 0)[:, None, None, None]
            seen = jnp.where(is_labelled, image[..., None], batch.image)
            joint = RefinementBatch(seen, label, batch.weight, unlabelled, alpha, r)
            state, metrics = update(state, joint, key, rate)
            return state.averaged(own.average), metrics

        def rebuild(variables: Variables, r: Variables, batch: Batch) -> Any:
            def both(image: Array) -> Any:
                probabilities: Any = recipe.network.apply(variables, image)
                rebuilt: Any = network.apply(r, probabilities)
                return probabilities.argmax(-1).astype(jnp.uint8), rebuilt.argmax(-1).astype(jnp.uint8)

            return in_parts(both, batch.image)

        axes = (REPLICATED, SHARDED, SHARDED, BROADCAST, REPLICATED, BROADCAST, BROADCAST)
        self.step = devices.compile(step, axes, donate=(0,))
        self._rebuild = devices.compile(rebuild, (REPLICATED, REPLICATED, SHARDED))

    def measure(self, variables: Variables) -> Measured:
        """What R makes of a network's masks of all cases; the network is on the devices."""
        masks, rebuilt = self._segmented(variables, self.n_labelled + np.arange(len(self.cohort.slices)))
        found = []
        cases = zip(self.cohort.split(masks), self.cohort.split(rebuilt), self.cohort.spacing_mm, strict=True)
        for mask, again, spacing in cases:
            mask = keep_largest(mask, self.model.single)
            found.append(qc.pseudo_measures(mask, again, spacing, self.model.structures, self.optional))
        pdc, phd = zip(*found, strict=True)
        return np.stack(pdc), np.stack(phd)

    def watched(self, variables: Variables) -> Record:
        """Dice of each structure over some labelled slices: it falls where refinement does harm."""
        places = np.unique(np.linspace(0, self.n_labelled - 1, WATCHED).astype(int))
        masks, _ = self._segmented(variables, places)
        found = dice(masks, self.labelled.label[places], self.model.structures)
        return {f"labelled_dice_{s.key}": float(v) for s, v in zip(self.model.structures, found, strict=True)}

    def _segmented(
        self, variables: Variables, indices: Integer[np.ndarray, " n"]
    ) -> tuple[np.ndarray, np.ndarray]:
        devices, take = self.devices, self.recipe.take
        plan = in_batches(indices, devices.batch_size(self.recipe.config.batch))
        batches = (take(self.data, *devices.shard(p)) for p in zip(*plan, strict=True))
        with ahead(self.data, batches) as made:
            parts = [devices.gather(self._rebuild(variables, self.autoencoder, x)) for x in made]
        masks, rebuilt = (np.concatenate(x)[: len(indices)] for x in zip(*parts, strict=True))
        return masks, rebuilt


class RefinedNetwork(Stage):
    """One network, from the model's own weights on: pass k has α = 1/k (Eq. 2), until no case is out of distribution.

    A case that isn't any more, to this network, is learnt from no more. The optimiser begins anew: models don't carry
    theirs.
    """

    def __init__(
        self,
        shared: Refinement,
        number: int,
        weights: Variables,
        limits: Limits | None,
        cases: Bool[np.ndarray, " n"],
        checkpoints: Checkpoints,
    ) -> None:
        """Nothing runs yet.

        Args:
          number: of the network, counted from 1.
          limits: None: `cases` are learnt from in every pass.
          cases: (n,) which are learnt from at first.
        """
        self.shared, self.number, self.weights, self.limits = shared, number, weights, limits
        self.chosen, self.cases, self.checkpoints = cases, cases, checkpoints
        self.stage = f"refined_{number}"
        self.identity, self.epochs = {"stage": self.stage}, shared.config.epochs
        self.key = key_of(jax.random.key(shared.config.seed), "adaptation", number)
        self.rate = np.float32(shared.config.learning_rate_factor * shared.recipe.config.learning_rate)

    def init(self) -> TrainState:
        """The model's own network."""
        state = from_variables(jax.tree.map(jnp.asarray, self.weights), self.shared.recipe.tx)
        return jax.tree.map(jnp.copy, state.with_mean())

    def resume(self, epoch: int) -> None:
        """What was learnt from after that pass is in its record."""
        if epoch:
            names = set(self.checkpoints.metrics(epoch)["ood_cases"])
            self.cases = np.array([name in names for name in self.shared.cohort.names])

    def source(self, epoch: int) -> Any:
        return self.shared.data

    def step(self, epoch: int) -> Callable[..., Any]:
        return self.shared.step

    def batches(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        """What each step of a pass takes."""
        shared, config = self.shared, self.shared.config
        labelled = cycled(np.arange(shared.n_labelled), config.labelled, config.steps, config.seed, epoch)
        slices = shared.n_labelled + shared.cohort.slices_of(np.flatnonzero(self.cases))
        other = cycled(slices, config.unlabelled, config.steps, config.seed + 1, epoch)
        alpha = np.float32(1 / epoch)
        for i, rows in enumerate(zip(*side_by_side(labelled, other, shared.devices.count), strict=True)):
            indices, is_labelled, is_other = shared.devices.shard(rows)
            batch = shared.recipe.take(shared.data, indices, is_labelled)
            key = jax.random.fold_in(jax.random.fold_in(self.key, epoch), i)
            yield batch, is_other, alpha, shared.autoencoder, key, self.rate

    def validate(self, state: TrainState, epoch: int) -> Record:
        """Which cases are still out of distribution, mean pDC of those that were, and Dice on labelled slices."""
        shared = self.shared
        measured = shared.measure(state.model)
        if self.limits is not None:
            self.cases = self.chosen & self.limits.outside([measured])
        watched = shared.watched(state.model)
        return {
            "k": epoch,
            LOSS: 1 - float(np.mean(list(watched.values()))),
            **watched,
            **describe(shared, measured, self.chosen),
            "ood": int(self.cases.sum()),
            "ood_cases": [n for n, is_ood in zip(shared.cohort.names, self.cases, strict=True) if is_ood],
        }

    def finished(self, record: Record) -> bool:
        return self.limits is not None and record["ood"] == 0


def describe(shared: Refinement, measured: Measured, cases: Bool[np.ndarray, " n"]) -> dict[str, float]:
    """Mean pDC of each structure over the cases that are learnt from."""
    means: Float[np.ndarray, " k"] = measured[0][cases].mean(0)
    return {f"pdc_{s.key}": float(v) for s, v in zip(shared.model.structures, means, strict=True)}
