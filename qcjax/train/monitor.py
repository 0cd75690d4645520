"""Training of a monitor: an autoencoder on ground-truth masks alone (monitoring paper, Galati & Zuluaga, FIMH 2021)."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from qcjax import losses
from qcjax.config import PAPER, Method, MonitorConfig, Stream
from qcjax.data.augment import MONITORING_MASKS
from qcjax.data.batches import Batch, Plan, cycled, epoch_plan, in_batches, padded
from qcjax.data.geometry import Orientation
from qcjax.data.mask_cohort import MaskCase, MaskCohort, common_orientation, prepare_masks
from qcjax.data.nifti import read_labels
from qcjax.data.placement import Batcher, ahead, place
from qcjax.inference.monitor import DESCRIPTION, WEIGHTS, Monitor, build_autoencoder
from qcjax.inference.predictor import rebuild_masks
from qcjax.labels import label_mapping, structures_named
from qcjax.qc.suspicion import TrainingSpread
from qcjax.runtime import hosts, jax_setup
from qcjax.runtime.arrays import write_arrays
from qcjax.runtime.devices import REPLICATED, SHARDED, Devices
from qcjax.runtime.files import write_whole
from qcjax.runtime.progress import bar, say
from qcjax.train.autoencoder import (
    STAGE,
    Autoencoder,
    AutoencoderStage,
    Masks,
    compile_step,
    train_autoencoder,
)
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.journal import Journal
from qcjax.train.loop import stream as key_of
from qcjax.train.stage import LOSS, Record
from qcjax.train.state import adam
from qcjax.train.validation import mean_dice, reconstruction_loss
from qcjax.typing import AnyArray, Array, Variables


def prepare_both(
    training: Sequence[MaskCase],
    validation: Sequence[MaskCase],
    mapping: dict[int, int],
    config: MonitorConfig,
    orientation: Orientation | None = None,
) -> tuple[MaskCohort, MaskCohort]:
    """The masks of two parts on the monitor's grid.

    Args:
      orientation: what their axes are brought to; None: as most of them are stored.

    Raises:
      ValueError: a part without masks, or a file that can't be used.
    """
    if orientation is None:
        orientation = common_orientation([*training, *validation], say)
    with bar(
        f"Preparing masks at {config.spacing_mm:g} mm, cases", len(training) + len(validation)
    ) as advance:
        first, second = (
            prepare_masks(cases, mapping, config.spacing_mm, config.size, config.centre, advance, orientation)
            for cases in (training, validation)
        )
    return first, second


def check_options(config: MonitorConfig, labels: Collection[str], method: Method = PAPER) -> None:
    """Raises ValueError for a structure in `may_be_absent` that isn't among those of the masks, or a loss not used."""
    if method.monitor_loss is not None and config.dice != "generalised":
        raise ValueError(
            f"--dice: {config.dice} found, expected none with preset original, which has its own loss"
        )
    if not set(config.may_be_absent) <= set(labels):
        raise ValueError(
            f"--may-be-absent: {', '.join(config.may_be_absent)} found, expected some of {', '.join(labels)}"
        )


class MaskSlices(NamedTuple):
    """The ground-truth masks of a cohort, slice by slice."""

    label: AnyArray  # (n, h, w) uint8


def _take(masks: MaskSlices, indices: Array, weight: Array) -> Batch:
    return _batch_of(MaskSlices(masks.label[indices]), weight)


def _batch_of(masks: MaskSlices, weight: Array) -> Batch:
    return Batch(masks.label[..., None], masks.label, weight)  # the image is not looked at


class MonitorTraining:
    """One training of a monitor in a folder: networks, compiled steps, data on the devices."""

    def __init__(
        self,
        config: MonitorConfig,
        labels: Mapping[str, int],
        training: MaskCohort,
        validation: MaskCohort,
        folder: Path,
        seed: int = 0,
        method: Method = PAPER,
        devices: Devices | None = None,
        on_nonfinite: Literal["stop", "skip"] = "stop",
        accumulate: int = 1,
        stream: Stream = "auto",
    ) -> None:
        """Nothing runs yet. Raises ValueError as `check_options`.

        Args:
          labels: key of each structure -> its value in the files; their order is that of the classes.
          training, validation: masks, of other subjects.
          method: gives loss, initialisation, order of subjects and unit.
          on_nonfinite: what becomes of a batch whose loss or gradient isn't finite.
          accumulate: parts in which a batch goes through the network.
          stream: whether the masks stay on the host (`placement`).
        """
        self.config, self.folder, self.seed, self.method = config, folder, seed, method
        self.labels, self.structures = dict(labels), structures_named(tuple(labels))
        check_options(config, labels, method)
        self.training, self.validation = training, validation
        self.orientation = training.orientation
        self.devices, self.on_nonfinite = devices or Devices(), on_nonfinite
        self.accumulate, self.stream = accumulate, stream
        self.journal = Journal(folder / "metrics.jsonl")
        sizes = asdict(config.autoencoder)
        self.sizes = {k: sizes[k] for k in ("width", "latent", "dropout")}
        self.sizes["initialisation"] = method.initialisation
        self.network = build_autoencoder(len(self.structures), self.sizes, self.devices.axis_name)
        self.tx = adam()
        self.key = key_of(jax.random.key(seed), STAGE)
        self._compile()

    def _compile(self) -> None:
        devices, network = self.devices, self.network
        loss: str = "paper" if self.config.dice == "generalised" else self.config.dice
        loss = self.method.monitor_loss or loss
        augmentation = MONITORING_MASKS if self.config.autoencoder.augment else None
        self._step = compile_step(
            network, self.tx, loss, devices, augmentation, self.accumulate, self.on_nonfinite
        )

        def rebuild(variables: Variables, batch: Batch) -> Any:
            return rebuild_masks(network, variables, batch.label)

        self._rebuild = devices.compile(rebuild, (REPLICATED, SHARDED))
        self._take = Batcher(devices, _take, _batch_of)

    def run(self) -> Monitor:
        """Train, or go on; write description and weights of the model of lowest validation loss; load it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        placed, held_out = (
            place([MaskSlices(cohort.label)], self.devices, self.stream, f"{title} masks")
            for title, cohort in (("Training", self.training), ("Validation", self.validation))
        )
        sample = jnp.zeros((1, self.config.size, self.config.size, self.network.classes))
        autoencoder = Autoencoder(self.network, self.tx, self._step, sample, self.key)
        masks = Masks(placed, self._take, self.plan, self.names, lambda v: self.validate(v, held_out))
        stage = AutoencoderStage({"stage": STAGE}, self.config.autoencoder, autoencoder, masks, self.devices)
        checkpoints = Checkpoints(self.folder / "checkpoints" / STAGE, STAGE, m_best=1)
        variables, best = train_autoencoder(stage, self.journal, checkpoints)
        return self.export(jax.tree.map(np.asarray, variables), best.epoch, best.loss)

    def plan(self, epoch: int) -> Plan:
        """Which slices each step takes; `original`: subject by subject, never two in one batch.

        There the subjects have an order that is drawn once and is the same in every epoch. That of their codes would be
        one by disease in ACDC, whose last one every epoch would end with.
        """
        config = self.config.autoencoder
        if self.method.by_subject:
            groups = self.training.groups
            order = np.random.default_rng(self.seed).permutation(len(groups))
            plans = [in_batches(groups[i], config.batch) for i in order]
            plan = Plan(*(np.concatenate(parts) for parts in zip(*plans, strict=True)))
        elif config.steps is not None:
            everything = np.arange(len(self.training.label))
            plan = cycled(everything, config.batch, config.steps, self.seed, epoch)
        else:
            plan = epoch_plan(len(self.training.label), config.batch, self.seed, epoch)
        return padded(plan, self.devices.count * self.accumulate)

    def names(self, plan: Plan, step: int) -> list[str]:
        """The cases in one batch of a plan, each once."""
        cohort = self.training
        slices = plan.indices[step][plan.weight[step] > 0]
        owners = np.searchsorted(cohort.first, slices, side="right") - 1
        return list(dict.fromkeys(cohort.cases[i].name for i in owners))

    def validate(self, variables: Variables, held_out: Any) -> Record:
        """Loss, and Dice per structure of ground truth and its reconstruction: the most that a pseudo Dice can be."""
        cohort, batch = self.validation, self.devices.batch_size(self.config.autoencoder.batch)
        count = len(cohort.label)
        pairs = zip(*in_batches(np.arange(count), batch), strict=True)
        with ahead(held_out, (self._take(held_out, *self.devices.shard(pair)) for pair in pairs)) as batches:
            parts = [self.devices.gather(self._rebuild(variables, x)) for x in batches]
        labels, sums, error = jax.tree.map(lambda *xs: np.concatenate(xs)[:count], *parts)
        return {LOSS: self._loss(sums, error)} | mean_dice(labels, cohort.label, cohort, self.structures)

    def _loss(self, sums: losses.Sums, error: np.ndarray) -> float:
        """Mean over the volumes; `original`: over batches of consecutive slices of a subject, as in training."""
        if self.method.by_subject:
            per_slice = np.asarray(losses.monitoring_dice_loss_original(losses.Sums(*map(jnp.asarray, sums))))
            size = self.config.autoencoder.batch
            means = [
                np.mean(per_slice[part] + error[part])
                for group in self.validation.groups
                for part in np.split(group, range(size, len(group), size))
            ]
            return float(np.mean(means))
        dice = losses.soft_dice_loss if self.config.dice == "soft" else losses.generalised_dice_loss
        return reconstruction_loss(sums, error, self.validation, dice)

    def export(self, variables: Variables, epoch: int, loss: float) -> Monitor:
        """Write the monitor's own two files, its scale measured on the validation masks."""
        config = self.config
        description = {
            "structures": [s.key for s in self.structures],
            "labels": self.labels,
            "may_be_absent": list(self.config.may_be_absent),
            "size": config.size,
            "spacing_mm": config.spacing_mm,
            "centre": config.centre,
            "orientation": self.orientation and self.orientation.to_json(),
            "preset": self.method.name,
            "autoencoder": self.sizes,
            "epoch": epoch,
            "validation_loss": loss,
            "training_masks": len(self.training.cases),
            "validation_masks": len(self.validation.cases),
            "seed": self.seed,
            "versions": jax_setup.versions(),
        }
        flat = traverse_util.flatten_dict(variables, sep="/")
        hosts.lead(lambda: write_arrays(self.folder / WEIGHTS, flat))
        network = self.network.clone(axis_name=None)
        monitor = Monitor(self.folder, description, network, variables, self.devices.alone())
        monitor.reference = self._reference(monitor)
        if monitor.reference is not None:
            description["reference"] = monitor.reference.to_json()
        hosts.lead(lambda: write_whole(self.folder / DESCRIPTION, json.dumps(description, indent=2) + "\n"))
        return monitor

    def _reference(self, monitor: Monitor) -> TrainingSpread | None:
        mapping = label_mapping(self.structures, self.labels)

        def measured(case: MaskCase) -> np.ndarray:
            mask = read_labels(case.path, mapping, orientation=self.orientation)
            return monitor.score(mask.array, mask.spacing_mm).measured

        found = hosts.share(measured, self.validation.cases, threads=1)
        if not any(np.isfinite(f).all() for f in found):
            say(
                f"warning: {self.folder}: the monitor rebuilds no validation mask with every structure, so its scores "
                "have no suspicion; train it longer"
            )
            return None
        return TrainingSpread.of(found)
