"""`qcjax train`: from labelled images to a model, in one run that can be stopped and goes on."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qcjax.config import to_json
from qcjax.config.segmentation import SegmentationConfig
from qcjax.data.mask_cohort import common_orientation, true_masks
from qcjax.data.placement import place
from qcjax.data.splits import image_digests, shares
from qcjax.inference.monitor import DESCRIPTION as MONITOR_DESCRIPTION
from qcjax.inference.monitor import WEIGHTS as MONITOR_WEIGHTS
from qcjax.inference.monitor import Monitor
from qcjax.quality.conformal import LEAST_SUBJECTS
from qcjax.quality.model import Estimate, QualityModel
from qcjax.quality.study import dealt, held_out_estimates
from qcjax.runtime import jax_setup
from qcjax.runtime.arrays import write_arrays
from qcjax.runtime.devices import Devices
from qcjax.runtime.files import write_whole
from qcjax.runtime.folder import open_folder
from qcjax.runtime.progress import bar, say
from qcjax.runtime.records import kept_record
from qcjax.segmentation.card import write_card
from qcjax.segmentation.dataset import TrainingSet, find_labelled, prepare_checked
from qcjax.segmentation.fold import Fold, Recipe
from qcjax.segmentation.heartbeats import FILE as HEARTBEATS
from qcjax.segmentation.heartbeats import agreements, heartbeats, write_heartbeats
from qcjax.segmentation.judge import (
    Example,
    Record,
    example_of,
    judge_case,
    known_case,
    reference_of,
    summarise,
    typical,
)
from qcjax.segmentation.model import DESCRIPTION, FORMAT, MONITOR, WEIGHTS
from qcjax.segmentation.training_page import write_training_page
from qcjax.segmentation.training_slices import write_training_slices
from qcjax.segmentation.turns import mean_direction, rv_direction
from qcjax.segmentation.weights import packed_weights
from qcjax.train.journal import Journal
from qcjax.train.monitor import MonitorTraining, prepare_both
from qcjax.typing import Variables

QUALITY_FOLDS = 5  # in which predicted quality is judged
WORK = "training"  # folder within the model's: what is needed to go on, and can be deleted afterwards
HELD_OUT = "held_out"  # folder of predictions of subjects that the network hadn't seen


class Training:
    """One run of `qcjax train`."""

    def __init__(self, config: SegmentationConfig) -> None:
        """Opens the folder and reads the data. Raises what `find_labelled` and `open_folder` raise."""
        assert config.out is not None
        self.config, self.out, self.work = config, config.out, config.out / WORK
        self.set = find_labelled(config)
        open_folder(replace(config, keep=False, keep_training_slices=False, licence=""), self.work)
        self.devices = Devices(config.devices)
        # that of the monitor, which has the same masks
        orientation = common_orientation(true_masks(self.set.subjects), lambda sentence: None)
        self.cohort = prepare_checked(self.set, config, orientation)
        self.folds: list[list[str]] = kept_record(self.work / "folds.json", lambda: split(self.set, config))

    def run(self) -> None:
        """Train what isn't trained yet, judge it, and write the model."""
        recipe = Recipe(self.config, self.set.structures, self.devices)
        data = place([self.cohort.slices], self.devices, self.config.stream, "Slices")
        folds = [self.fold(recipe, data, i) for i in range(len(self.folds))]
        say(
            f"{len(self.set.subjects)} subjects, {len(self.cohort.cases)} cases, {len(self.cohort.owner)} slices: "
            f"{len(folds)} networks of {self.config.epochs} epochs of {folds[0].steps} steps, then a monitor"
        )
        journal = Journal(self.work / "metrics.jsonl")
        networks = [fold.run(journal) for fold in folds]
        monitor = self.train_monitor()
        records = self.judged(recipe, data, folds, networks, monitor)
        self.export(networks, monitor, records, self.example(recipe, data, networks, monitor, records))

    def fold(self, recipe: Recipe, data: Any, number: int) -> Fold:
        """A fold, counted from 0."""
        own = set(self.folds[number])
        held_out = np.array([case.subject in own for case in self.cohort.cases])
        return Fold(recipe, number + 1, self.cohort, data, held_out, self.work)

    def train_monitor(self) -> Monitor:
        """The monitor: of the truth of all folds but the first, whose truth sets its scale."""
        config = replace(self.config.monitor, may_be_absent=self.set.may_be_absent)
        held_out, masks = set(self.folds[0]), true_masks(self.set.subjects)
        first, rest = ([m for m in masks if (m.group in held_out) == chosen] for chosen in (True, False))
        training, validation = prepare_both(rest, first, self.set.mapping, config)
        return MonitorTraining(
            config,
            self.set.labels,
            training,
            validation,
            self.work / MONITOR,
            self.config.seed,
            devices=self.devices,
            stream=self.config.stream,
        ).run()

    def judged(
        self,
        recipe: Recipe,
        data: Any,
        folds: Sequence[Fold],
        networks: Sequence[Variables],
        monitor: Monitor,
    ) -> list[Record]:
        """Measures of every case by the network that hasn't seen it, fold after fold."""
        single = [s for s in self.set.structures if s.key not in self.set.in_pieces]
        direction, records = self.rv_direction(), []
        for fold, network in zip(folds, networks, strict=True):

            def judge(fold: Fold = fold, network: Variables = network) -> list[Record]:
                variables = self.devices.replicate(network)
                found = recipe.probabilities(variables, data, fold.held_out)
                lengths = [self.cohort.geometries[i].stack_shape[0] for i in fold.cases]
                parts = np.split(found, np.cumsum(lengths)[:-1])
                with bar(f"Judging fold {fold.number}, cases", len(fold.cases)) as advance:
                    made = []
                    for i, part in zip(fold.cases, parts, strict=True):
                        keep = self._kept(self.cohort.cases[i].name) if self.config.keep else None
                        record = judge_case(
                            self.cohort, int(i), part, monitor, self.set.mapping, single, direction, keep
                        )
                        made.append(record | {"fold": fold.number})
                        advance()
                return made

            path = self.work / f"held_out_{fold.number}.json"
            if self.config.keep and not (self.out / HELD_OUT).is_dir():
                path.unlink(missing_ok=True)  # they were measured, but not kept
            records += kept_record(path, judge)
        return records

    def example(
        self,
        recipe: Recipe,
        data: Any,
        networks: Sequence[Variables],
        monitor: Monitor,
        records: Sequence[Record],
    ) -> Example:
        """The case of median Dice, segmented by the network that hasn't seen it."""
        record = records[typical(records)]
        place = [case.name for case in self.cohort.cases].index(record["case"])
        variables = self.devices.replicate(networks[record["fold"] - 1])
        found = recipe.probabilities(variables, data, self.cohort.slices_of([place]))
        return example_of(self.cohort, place, found, monitor, self.set.mapping, self.rv_direction())

    def _kept(self, name: str) -> Any:
        return lambda ending: self.out / HELD_OUT / f"{name}{ending}"

    def export(
        self, networks: Sequence[Variables], monitor: Monitor, records: Sequence[Record], example: Example
    ) -> None:
        """Write the model: all that it takes to segment, a card, and a page."""
        keys = [s.key for s in self.set.structures]
        config, about = self.config, self.about(records)
        for name in (MONITOR_DESCRIPTION, MONITOR_WEIGHTS):
            (self.out / MONITOR).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(monitor.run / name, self.out / MONITOR / name)
        write_arrays(self.out / WEIGHTS, packed_weights(networks))
        pairs = heartbeats(records)
        write_heartbeats(self.work / HEARTBEATS, pairs)
        write_training_slices(self.out, self.cohort.slices if config.keep_training_slices else None)
        description: Record = {
            "format": FORMAT,
            "licence": config.licence,
            "labels": dict(self.set.labels),
            "may_be_absent": list(self.set.may_be_absent),
            "in_pieces": list(self.set.in_pieces),
            "size": config.size,
            "spacing_mm": config.spacing_mm,
            "network": {"width": config.width, "max_width": config.max_width, "stages": config.stages},
            "networks": len(networks),
            "training_slices": config.keep_training_slices,
            "mirror": config.mirror > 0,
            "rv_direction": _pair(self.rv_direction()),
            "trained": about,
            "cross_validated": summarise(records, keys),
            "heartbeats": agreements(pairs),
            "versions": jax_setup.versions(),
        }
        write_whole(self.out / DESCRIPTION, json.dumps(description, indent=2) + "\n")
        estimates = self.fit_quality(records)
        write_card(self.out / "README.md", description)
        page = self.out / "report.html"
        write_training_page(page, description, records, self.set, self.work, example, estimates)
        for line in in_short(description["cross_validated"]):
            say(line)

    def fit_quality(self, records: Sequence[Record]) -> list[dict[str, Estimate]] | None:
        """Write what predicts the quality of masks, learnt from those of the held-out subjects.

        Returns:
          What is predicted of each record by those of other subjects; None where these are too few.
        """
        cases, keys = [known_case(r) for r in records], [s.key for s in self.set.structures]
        quality = QualityModel.fit(cases, keys)
        if quality is None:
            say(f"no predicted quality: it takes at least {LEAST_SUBJECTS} subjects")
            return None
        estimates = None
        if len(self.set.subjects) * (QUALITY_FOLDS - 1) // QUALITY_FOLDS > LEAST_SUBJECTS:
            folds = dealt([case.subject for case in cases], QUALITY_FOLDS)
            estimates = held_out_estimates(cases, keys, "segmented", folds)
        replace(quality, reference=reference_of(records, estimates)).save(self.out)
        return estimates

    def rv_direction(self) -> complex | None:
        """Where the RV mostly lies as seen from the LV, in plane: x + iy; None where the masks don't say."""
        cohort = self.cohort
        masks = (cohort.slices.label[cohort.rows(i)].T for i in range(len(cohort.cases)))
        return mean_direction(rv_direction(mask, self.set.structures) for mask in masks)

    def about(self, records: Sequence[Record]) -> Record:
        """How the model was trained, without paths and names."""
        options = to_json(self.config)
        for name in ("data", "out", "images", "masks", "devices", "stream", "keep", "keep_training_slices"):
            del options[name]
        return {
            "layout": self.set.layout,
            "subjects": len(self.set.subjects),
            "cases": len(records),
            "slices": len(self.cohort.owner),
            "diseases": _counts(s.disease for s in self.set.subjects),
            "sites": _counts(s.vendor for s in self.set.subjects),
            "options": options,
        }


def _pair(direction: complex | None) -> list[float] | None:
    return None if direction is None else [round(direction.real, 4), round(direction.imag, 4)]


def _counts(values: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[value or "unknown"] = found.get(value or "unknown", 0) + 1
    return dict(sorted(found.items()))


def in_short(measured: Record) -> list[str]:
    """The cross-validated measures in lines of text."""
    lines = []
    for key, found in measured.items():
        dice, hd, volume = found["dice"], found["hd_mm"], found["volume_ml"]
        distance = "HD undefined" if hd["mean"] is None else f"HD {hd['mean']:.1f} mm"
        lines.append(
            f"{key.upper()}, cross-validated: Dice {dice['mean']:.3f} [{dice['low']:.3f}, {dice['high']:.3f}], "
            f"{distance} (undefined {hd['n_missing']}), volume {volume['bias']:+.1f} ml "
            f"[{volume['low']:+.1f}, {volume['high']:+.1f}]"
        )
    return lines


def split(data: TrainingSet, config: SegmentationConfig) -> list[list[str]]:
    """The subjects of each fold, by code: evenly by disease, the same images never in two folds."""
    subjects = data.subjects
    images = dict(zip((s.code for s in subjects), image_digests(subjects), strict=True))
    parts = shares(subjects, images, (1 / config.folds,) * config.folds, config.seed)
    return [[s.code for s in part] for part in parts]
