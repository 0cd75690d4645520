"""Training of one fold's segmenter: the networks' part of `qcjax train`."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from qcjax import losses
from qcjax.config.segmentation import SegmentationConfig
from qcjax.data.augment import Augmentation, coordinates, sample_cubic, sample_nearest
from qcjax.data.augment_intensity import Intensity, change_intensity
from qcjax.data.batches import Batch, Slices, batch_of, epoch_plan, in_batches, padded, sample_keys, take
from qcjax.data.cohort import Cohort
from qcjax.data.placement import Batcher, ahead
from qcjax.labels import Structure
from qcjax.models import NnUNet
from qcjax.models.cpu.inference import in_parts
from qcjax.runtime.devices import BROADCAST, REPLICATED, SHARDED, Devices
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.journal import Journal
from qcjax.train.loop import fit
from qcjax.train.loop import stream as key_of
from qcjax.train.stage import LOSS, Record, Stage
from qcjax.train.state import CLIP, TrainState, adam, average, create
from qcjax.train.updates import make_supervised_update
from qcjax.train.validation import mean_dice
from qcjax.typing import Array, Float, Integer, PRNGKey, Variables

WATCHED_CASES = 10  # of a fold's own, looked at after every epoch; nothing is chosen by them
INTENSITY = Intensity()


class Learning(struct.PyTreeNode):
    """What training changes, and the exponential mean of its weights, which is the model."""

    state: TrainState
    mean: Variables


def build_network(config: SegmentationConfig, classes: int, axis_name: str | None = None) -> NnUNet:
    """The segmenter of a configuration, for so many classes with the background."""
    return NnUNet(
        classes=classes,
        width=config.width,
        max_width=config.max_width,
        strides=((1, 1), *((2, 2),) * (config.stages - 1)),
        axis_name=axis_name,
    )


class Recipe:
    """What all folds share: the network, and its compiled steps."""

    def __init__(self, config: SegmentationConfig, structures: Sequence[Structure], devices: Devices) -> None:
        self.config, self.structures, self.devices = config, tuple(structures), devices
        self.network = build_network(config, 1 + len(structures), devices.axis_name)
        self.tx = adam(clip=CLIP)
        self.take = Batcher(devices, take, batch_of)
        update = make_supervised_update(
            self.network, self.tx, losses.SEGMENTATION, axis_name=devices.axis_name
        )
        geometry = Augmentation(mirror=config.mirror, rotation_deg=config.rotation_deg, scale=config.scale)

        def step(learning: Learning, batch: Batch, key: PRNGKey, rate: Array) -> Any:
            keys = sample_keys(jax.random.fold_in(key, 0), batch.image.shape[0], devices.axis_name)
            image, label = jax.vmap(lambda k, x, y: self.changed(k, x, y, geometry))(
                keys, batch.image[..., 0], batch.label
            )
            state, metrics = update(learning.state, Batch(image[..., None], label, batch.weight), key, rate)
            return Learning(state, average(learning.mean, state, config.average)), metrics

        def segment(variables: Variables, batch: Batch) -> Any:
            return in_parts(lambda x: self.network.apply(variables, x), batch.image)

        axes = (REPLICATED, SHARDED, BROADCAST, BROADCAST)
        self.step = devices.compile(step, axes, donate=(0,))
        self._segment = devices.compile(segment, (REPLICATED, SHARDED))

    def changed(
        self, key: PRNGKey, image: Float[Array, "h w"], label: Integer[Array, "h w"], geometry: Augmentation
    ) -> tuple[Float[Array, "patch patch"], Integer[Array, "patch patch"]]:
        """A patch of a slice, turned and with other intensities: (h, w) twice -> (patch, patch) twice."""
        (h, w), patch = image.shape, self.config.patch
        of_place, of_patch, of_intensity = jax.random.split(key, 3)
        place = coordinates(of_place, h, w, geometry)
        corner = jax.random.randint(of_patch, (2,), 0, jnp.array([h - patch + 1, w - patch + 1]))
        row, column = (lax.dynamic_slice(x, (corner[0], corner[1]), (patch, patch)) for x in place)
        image, label = sample_cubic(image, row, column), sample_nearest(label, row, column)
        return (change_intensity(of_intensity, image, INTENSITY) if self.config.intensity else image), label

    def probabilities(
        self, variables: Variables, data: Any, indices: Integer[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n h w k"]:
        """Class probabilities of some slices: (n, h, w, k) float16; variables on the devices."""
        batch = self.devices.batch_size(self.config.batch)
        plan = in_batches(indices, batch)
        with ahead(data, (self.take(data, *self.devices.shard(p)) for p in zip(*plan, strict=True))) as made:
            parts = [self.devices.gather(self._segment(variables, x)).astype(np.float16) for x in made]
        return np.concatenate(parts)[: len(indices)]


class Fold(Stage):
    """One fold: its network learns from the subjects of all others."""

    def __init__(
        self, recipe: Recipe, number: int, cohort: Cohort, data: Any, held_out: np.ndarray, folder: Path
    ) -> None:
        """Nothing runs yet.

        Args:
          number: of the fold, counted from 1.
          data: the cohort's slices, see `placement.place`.
          held_out: (cases,) whether the network must not see a case.
        """
        self.recipe, self.number, self.cohort, self.data, self.folder = recipe, number, cohort, data, folder
        self.cases = np.flatnonzero(held_out)
        self.training = cohort.slices_of(np.flatnonzero(~held_out))
        self.held_out = cohort.slices_of(self.cases)
        self.stage = f"fold_{number}"
        self.identity, self.epochs = {"stage": self.stage}, recipe.config.epochs
        self.key = key_of(jax.random.key(recipe.config.seed), "segmentation", number)

    @property
    def steps(self) -> int:
        """How many an epoch has."""
        return -(-len(self.training) // self.recipe.config.batch)

    def rate(self, step: int) -> float:
        """The learning rate of a step of the whole training, counted from 0."""
        config = self.recipe.config
        cycle = config.epochs * self.steps / config.cycles
        share = (1 - step % cycle / cycle) ** 0.9
        return config.learning_rate * share * min(1.0, (step + 1) / max(config.warm_up, 1))

    def init(self) -> Learning:
        """Where training starts."""
        recipe = self.recipe
        sample = jnp.zeros((1, recipe.config.patch, recipe.config.patch, 1))
        state = create(recipe.network, recipe.tx, self.key, sample)
        return Learning(state, jax.tree.map(jnp.copy, state.variables))

    def source(self, epoch: int) -> Any:
        return self.data

    def step(self, epoch: int) -> Callable[..., Any]:
        return self.recipe.step

    def batches(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        """What each step of an epoch takes."""
        recipe = self.recipe
        plan = epoch_plan(len(self.training), recipe.config.batch, recipe.config.seed, epoch)
        plan = padded(plan, recipe.devices.count)
        for i, (places, weight) in enumerate(zip(*plan, strict=True)):
            key = jax.random.fold_in(jax.random.fold_in(self.key, epoch), i)
            rate = np.float32(self.rate((epoch - 1) * self.steps + i))
            batch = recipe.take(
                self.data, *recipe.devices.shard((self.training[places].astype(np.int32), weight))
            )
            yield batch, key, rate

    def validate(self, state: Learning, epoch: int) -> Record:
        """Dice of the mean weights on a few held-out cases; the loss is 1 minus its mean over the structures."""
        cases = self.cases[:: -(-len(self.cases) // WATCHED_CASES)]
        found = self.recipe.probabilities(state.mean, self.data, self.cohort.slices_of(cases)).argmax(-1)
        part = part_of(self.cohort, cases)
        record = mean_dice(found.astype(np.uint8), part.slices.label, part, self.recipe.structures)
        return {LOSS: 1 - float(np.mean(list(record.values())))} | record

    def run(self, journal: Journal) -> Variables:
        """Train, or go on; the mean weights after the last epoch, on the host."""
        checkpoints = Checkpoints(self.folder / "checkpoints" / self.stage, self.stage, m_best=1)
        learning = fit(self, journal, checkpoints, self.recipe.devices)
        checkpoints.close()
        mean = self.recipe.devices.unreplicate(learning.mean)
        return jax.tree.map(np.asarray, mean)


def part_of(cohort: Cohort, cases: Sequence[int] | Integer[np.ndarray, " m"]) -> Cohort:
    """Some cases of a cohort, in the given order of their places."""
    rows = np.concatenate([np.arange(r.start, r.stop) for r in (cohort.rows(int(i)) for i in cases)])
    return Cohort(
        tuple(cohort.cases[i] for i in cases),
        tuple(cohort.geometries[i] for i in cases),
        Slices(cohort.slices.image[rows], cohort.slices.label[rows]),
    )
