"""Training of a 3-D segmenter on volumes, in three ways, and its predictions (uncertainty paper, section 2)."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qcjax import losses
from qcjax.config import ArmName, EmidecConfig
from qcjax.data.augment_volume import VolumeAugmentation, augment_volumes, random_patches
from qcjax.data.batches import Batch, Plan, cycled, epoch_plan, padded, sample_keys
from qcjax.data.placement import Batcher
from qcjax.data.volumes import VolumeCohort, VolumeGeometry, take_volumes, volume_batch
from qcjax.inference import sliding
from qcjax.labels import EMIDEC, EMIDEC_REGIONS
from qcjax.metrics.overlap import mask_dice
from qcjax.models import NnUNet
from qcjax.models.planning import plan_unet
from qcjax.qc.mc_dropout import draw, slice_keys
from qcjax.runtime import hosts
from qcjax.runtime.devices import BROADCAST, REPLICATED, SHARDED, Devices
from qcjax.train import updates
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.journal import Journal
from qcjax.train.loop import fit, stream
from qcjax.train.nonfinite import skip_nonfinite
from qcjax.train.stage import LOSS, Record, Stage
from qcjax.train.state import CLIP, OPTIMISERS, TrainState, create
from qcjax.typing import Array, Bool, Float, Integer, PRNGKey, Variables

STAGE = "segmenter"


class VolumeNetwork:
    """The segmenter with its compiled steps: built once, used for every arm and fold."""

    def __init__(self, config: EmidecConfig, devices: Devices) -> None:
        """Raises ValueError for a patch that the network's strides don't divide."""
        self.config, self.devices = config, devices
        training = config.training
        plan = plan_unet(config.patch, config.spacing_mm, training.max_stages)
        if any(n % d for n, d in zip(config.patch, plan.divisor, strict=True)):
            raise ValueError(f"--patch: {config.patch} found, expected multiples of {plan.divisor}")
        dtype: Any = jnp.bfloat16 if config.dtype == "bfloat16" else jnp.float32
        self.model = NnUNet(
            classes=1 + len(EMIDEC),
            width=training.width,
            max_width=10 * training.width,
            strides=plan.strides,
            kernels=plan.kernels,
            dropout_rate=training.dropout,
            dropout_stages=plan.middle_stages,
            dtype=dtype,
            axis_name=devices.axis_name,
        )
        self.segmentation_loss = replace(
            losses.SEGMENTATION, lambda_dice=training.lambda_dice, lambda_ce=training.lambda_ce
        )
        self.tx = OPTIMISERS[training.optimiser](clip=CLIP)
        self._steps: dict[int, Callable[..., Any]] = {}
        self.take = Batcher(devices, take_volumes, volume_batch)
        self._alone = devices.alone()  # each process predicts volumes of its own
        self._segment = self._alone.compile(lambda v, x: self.model.apply(v, x), (REPLICATED, SHARDED))
        self._draw = self._alone.compile(
            self._samples_as_channels, (REPLICATED, SHARDED, SHARDED, BROADCAST, BROADCAST)
        )
        self._measure_loss = jax.jit(self._loss_of_volume)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1: polynomial, as nnU-Net's."""
        training = self.config.training
        return training.learning_rate * (1 - (epoch - 1) / training.epochs) ** 0.9

    def alpha(self, arm: ArmName, epoch: int) -> float:
        """The weight of the variance in an epoch: 0 but for the arm that learns from it, ramped up if so asked."""
        training = self.config.training
        if arm != "proposed":
            return 0.0
        return training.alpha * min(1.0, epoch / (training.ramp_epochs + 1))

    def step(self, arm: ArmName) -> Callable[..., Any]:
        """The training step of an arm; those of control and proposed differ by alpha alone, so one serves both."""
        samples = 1 if arm == "baseline" else self.config.training.samples
        if samples not in self._steps:
            self._steps[samples] = self._training_step(samples)
        return self._steps[samples]

    def _training_step(self, samples: int) -> Callable[..., Any]:
        """(state, Batch of volumes, key, learning rate, alpha) -> (state, metrics), with augmentation."""
        training, name = self.config.training, self.devices.axis_name
        options = VolumeAugmentation(
            mirror=training.mirror, rotation_deg=training.rotation_deg, scale=training.scale
        )
        update = updates.make_uncertainty_update(
            self.model,
            self.tx,
            self.segmentation_loss,
            samples,
            name,
            training.over_classes,
            training.loss_of,
            self.config.accumulate,
        )
        if self.config.on_nonfinite == "skip":
            update = skip_nonfinite(update, name)

        def step(state: Any, batch: Batch, key: Array, rate: Array, alpha: Array) -> Any:
            first, second = (
                sample_keys(jax.random.fold_in(key, i), len(batch.weight), name) for i in range(2)
            )
            batch = random_patches(first, batch, self.config.patch)
            batch = augment_volumes(second, batch, options)
            return update(state, batch, key, rate, alpha)

        axes = (REPLICATED, SHARDED, BROADCAST, BROADCAST, BROADCAST)
        return self.devices.compile(step, axes, donate=(0,))

    def probabilities(
        self, variables: Variables, image: Float[np.ndarray, "s h w"]
    ) -> Float[np.ndarray, "s h w k"]:
        """The deterministic prediction of a prepared volume: (s, h, w) -> (s, h, w, k)."""
        return self._slide(lambda x: self._segment(variables, x), image)

    def samples(
        self, variables: Variables, image: Float[np.ndarray, "s h w"], key: PRNGKey
    ) -> Float[np.ndarray, "n s h w k"]:
        """Dropout samples of it, `mc_chunk` at once: (s, h, w) -> (n, s, h, w, k)."""
        count = self.config.mc_samples
        chunk = min(self.config.mc_chunk or count, count)
        parts = []
        for first in range(0, count, chunk):
            numbers = np.arange(first, min(first + chunk, count), dtype=np.int32)
            places = itertools.count(0, self._alone.count)  # of the windows, whose first one each call has

            def of_windows(patches: np.ndarray, numbers: np.ndarray = numbers, places: Any = places) -> Any:
                place = next(places) + np.arange(self._alone.count, dtype=np.int32)
                return self._draw(variables, patches, self._alone.shard(place), key, numbers)

            drawn = self._slide(of_windows, image)
            parts.append(np.moveaxis(drawn.reshape(*image.shape, -1, self.model.classes), -2, 0))
        return np.concatenate(parts)

    def loss(
        self,
        probabilities: Float[np.ndarray, "s h w k"],
        label: Integer[np.ndarray, "s h w"],
        mask: Bool[np.ndarray, "s h w"],
    ) -> float:
        """L_Seg of a whole volume."""
        return float(self._measure_loss(probabilities, label, mask))

    def _loss_of_volume(self, probabilities: Array, label: Array, mask: Array) -> Array:
        logits = jnp.log(jnp.maximum(probabilities, 1e-30))[None]
        return self.segmentation_loss(logits, label[None].astype(jnp.int32), mask=mask[None])

    def _samples_as_channels(
        self, variables: Variables, images: Array, places: Array, key: Array, numbers: Array
    ) -> Array:
        """(b, s, h, w, 1) -> (b, s, h, w, n·k): windows overlap sample by sample. A window's dropout is its own, on
        whatever device it is."""
        model = self.model.clone(axis_name=None)
        samples = draw(model, variables, images, slice_keys(key, places[:, None]), numbers)
        samples = jnp.moveaxis(samples, 0, -2)
        return samples.reshape(*samples.shape[:-2], -1)

    def _slide(self, function: Callable[[Any], Any], image: np.ndarray) -> np.ndarray:
        def windows(patches: np.ndarray) -> Any:
            found = function(self._alone.shard(patches))
            return self._alone.gather(found) if self._alone.mapped else found

        return sliding.predict(windows, image, self.config.patch, self._alone.count)


class FoldTraining(Stage):
    """One arm trained on all folds but one; the held-out one is watched, and chooses nothing."""

    def __init__(
        self,
        network: VolumeNetwork,
        arm: ArmName,
        fold: int,
        cohort: VolumeCohort,
        placed: Any,
        held_out: np.ndarray,
        folder: Path,
    ) -> None:
        """Nothing runs yet.

        Args:
          placed: the cohort's volumes, see `placement.place`.
          held_out: (cases,) True for the cases of this fold.
        """
        self.network, self.arm, self.cohort, self.placed = network, arm, cohort, placed
        self.training, self.held_out = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        self.identity = {"stage": STAGE, "arm": arm, "fold": fold}
        self.epochs = network.config.training.epochs
        self.journal = Journal(folder / "metrics.jsonl")
        self.checkpoints_folder = folder / "checkpoints" / f"{STAGE}-{arm}-{fold}"
        # the same for every arm: initial weights, order, augmentation, and the dropout of the first sample
        self.key = stream(jax.random.key(network.config.seed), STAGE, fold)

    def run(self) -> Variables:
        """Train, or go on; the weights of the last epoch, on the devices."""
        checkpoints = Checkpoints(self.checkpoints_folder, STAGE, m_best=1)
        state = fit(self, self.journal, checkpoints, self.network.devices)
        checkpoints.close()
        return state.variables

    def init(self) -> TrainState:
        network = self.network
        return create(network.model, network.tx, self.key, jnp.zeros((1, *network.config.patch, 1)))

    def plan(self, epoch: int) -> Plan:
        """Which cases each step takes; the same for every arm."""
        config = self.network.config
        settings = config.training
        if settings.steps is None:
            plan = epoch_plan(len(self.training), settings.batch, config.seed, epoch)
            plan = plan._replace(indices=self.training[plan.indices].astype(np.int32))
        else:
            plan = cycled(self.training, settings.batch, settings.steps, config.seed, epoch)
        return padded(plan, self.network.devices.count * config.accumulate)

    def names(self, epoch: int, step: int) -> list[str]:
        """The cases in one batch of an epoch."""
        plan = self.plan(epoch)
        indices = plan.indices[step][plan.weight[step] > 0]
        return list(dict.fromkeys(self.cohort.cases[i].subject for i in indices))

    def source(self, epoch: int) -> Any:
        return self.placed

    def step(self, epoch: int) -> Callable[..., Any]:
        return self.network.step(self.arm)

    def batches(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        network, of_epoch = self.network, jax.random.fold_in(self.key, epoch)
        rate, alpha = np.float32(network.rate(epoch)), np.float32(network.alpha(self.arm, epoch))
        for i, pair in enumerate(zip(*self.plan(epoch), strict=True)):
            batch = network.take(self.placed, *network.devices.shard(pair))
            yield batch, jax.random.fold_in(of_epoch, i), rate, alpha

    def validate(self, state: TrainState, epoch: int) -> Record:
        volumes = self.cohort.volumes

        def one(case: int) -> tuple[float, list[float]]:
            real = self.cohort.geometries[case].real
            label, mask = volumes.label[case][real], volumes.mask[case][real]
            probabilities = self.network.probabilities(state.variables, volumes.image[case][real])
            segmented = np.where(mask, probabilities.argmax(-1), 0)
            dices = [mask_dice(r.inside(segmented), r.inside(label)) for r in EMIDEC_REGIONS]
            return self.network.loss(probabilities, label, mask), dices

        found, dices = zip(*hosts.share(one, self.held_out.tolist(), threads=1), strict=True)
        means = zip(EMIDEC_REGIONS, np.mean(dices, axis=0), strict=True)
        return {LOSS: float(np.mean(found))} | {f"validation_dice_{r.key}": float(v) for r, v in means}


def unpadded(geometry: VolumeGeometry) -> VolumeGeometry:
    """The geometry of a volume's own slices, without those that make all of a cohort equally deep."""
    return replace(geometry, depth=geometry.slices)
