"""A run of the uncertainty experiment on disk: what is done already, and what it leaves behind."""

import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qcjax.config import Arm, EmidecConfig
from qcjax.data.datasets import emidec
from qcjax.data.mask_cohort import true_masks
from qcjax.data.nifti import read_image, read_labels, write_map
from qcjax.data.placement import place
from qcjax.data.splits import image_digests, shares
from qcjax.data.subject import Subject
from qcjax.data.validate import usable, validate_emidec
from qcjax.data.volumes import VolumeCohort, prepare_volumes
from qcjax.inference.monitor import Monitor
from qcjax.labels import EMIDEC, EMIDEC_LABELS
from qcjax.phantom import LgePhantomConfig, write_emidec
from qcjax.runtime import hosts, jax_setup
from qcjax.runtime.devices import Devices
from qcjax.runtime.files import without_nan, write_whole
from qcjax.runtime.folder import beside, open_folder
from qcjax.runtime.progress import bar, say
from qcjax.runtime.records import kept_record
from qcjax.train.autoencoder import MonitorTraining, check_options, prepare_both
from qcjax.train.loop import Journal, stream
from qcjax.typing import Variables
from qcjax.uncertainty.scores import judge_volume, pooled_reliability
from qcjax.uncertainty.summary import summarise_uncertainty, write_cases
from qcjax.uncertainty.training import FoldTraining, VolumeNetwork, unpadded

LABELS = {s.key: s.id for s in EMIDEC}


class EmidecRun:
    """One folder of results."""

    def __init__(self, config: EmidecConfig, folder: Path) -> None:
        """Make the folder, or go on with what is in it.

        Raises ValueError for sizes that the networks can't take, or a folder that another configuration has used.
        """
        check_options(config.monitor, LABELS)
        self.devices = Devices(config.devices)
        self._network = VolumeNetwork(config, self.devices)
        open_folder(config, folder)
        self.config, self.folder = config, folder
        self.skipped: list[str] = []

    def subjects(self) -> list[Subject]:
        """Find or make the data set, and check it.

        Raises ValueError where files have errors and --skip-invalid isn't given.
        """
        kept, self.skipped = hosts.lead(self._subjects)
        return kept

    def _subjects(self) -> tuple[list[Subject], list[str]]:
        data = self.config.data or self._phantom()
        say(f"Checking {data}")
        found = emidec.scan(data).subjects
        return usable(found, validate_emidec(data), data, self.config.skip_invalid)

    def _phantom(self) -> Path:
        data, done = self.folder / "data", self.folder / "data" / ".complete"
        if not done.exists():
            normal, pathological = self.config.subjects
            cohort = LgePhantomConfig(normal, pathological, seed=self.config.seed)
            with bar("Making a synthetic cohort", normal + pathological) as advance:
                write_emidec(data, cohort, lambda _: advance())
            done.touch()
        return data

    def prepare(self, folds: Sequence[Sequence[Subject]]) -> None:
        """Read and prepare every case, and put the volumes on the devices."""
        members = [s for fold in folds for s in fold]
        config = self.config
        with bar("Preparing volumes, cases", len(members)) as advance:
            self.cohort: VolumeCohort = prepare_volumes(
                members, config.spacing_mm, config.size, config.patch[0], on_case=advance
            )
        self.fold_of = np.repeat(np.arange(len(folds)), [sum(len(s.cases) for s in fold) for fold in folds])
        self.group_of = [s.disease for s in members for _ in s.cases]
        self.placed = place([self.cohort.volumes], self.devices, config.stream, "Volumes")

    def train(self, arm: Arm, fold: int) -> Variables:
        """The segmenter of an arm, trained without a fold."""
        held_out = self.fold_of == fold
        training = FoldTraining(self._network, arm, fold, self.cohort, self.placed, held_out, self.folder)
        return training.run()

    def monitor(self, folds: Sequence[Sequence[Subject]], fold: int) -> Monitor:
        """An autoencoder of the same masks that the segmenters of a fold have learnt from."""
        members = [s for i, part in enumerate(folds) for s in part if i != fold]
        images = dict(zip((s.code for s in members), image_digests(members), strict=True))
        first, second = shares(members, images, (0.8, 0.2), self.config.seed)
        masks = true_masks(first), true_masks(second)
        training, validation = prepare_both(*masks, EMIDEC_LABELS, self.config.monitor)
        folder, seed = self.folder / "monitors" / f"fold-{fold}", self.config.seed
        run = MonitorTraining(
            self.config.monitor,
            LABELS,
            training,
            validation,
            folder,
            seed,
            devices=self.devices,
            on_nonfinite=self.config.on_nonfinite,
            accumulate=self.config.accumulate,
            stream=self.config.stream,
        )
        return run.run()

    def judge(self, arm: Arm, fold: int, variables: Variables, monitor: Monitor) -> list[dict[str, Any]]:
        """Predict and score the cases of a fold; those that an earlier start has finished are read."""
        cases = np.flatnonzero(self.fold_of == fold).tolist()
        with bar(f"{arm}, fold {fold + 1}: cases judged", len(cases)) as advance:

            def kept(case: int) -> dict[str, Any]:
                name = self.cohort.cases[case].subject
                path = self.folder / "stages" / "judged" / arm / f"{name}.json"
                record = kept_record(path, partial(self._judge, arm, case, variables, monitor))
                advance()
                return dict(record)

            return hosts.share(kept, cases, threads=1)

    def _judge(self, arm: Arm, index: int, variables: Variables, monitor: Monitor) -> dict[str, Any]:
        network, case, config = self._network, self.cohort.cases[index], self.config
        padded = self.cohort.geometries[index]
        image = self.cohort.volumes.image[index][padded.real]
        key = stream(jax.random.key(config.seed), "mc", case.subject)
        image_file, fold = read_image(case.image_path), int(self.fold_of[index])
        assert case.label_path is not None  # folds have labelled cases only
        truth = read_labels(case.label_path, EMIDEC_LABELS, like=image_file)
        found = judge_volume(
            network.probabilities(variables, image),
            network.samples(variables, image, key),
            self.cohort.volumes.mask[index][padded.real],
            unpadded(padded),
            truth.array,
            image_file.spacing_mm,
            monitor,
        )
        folder = self.folder / "predictions"
        mask = emidec.write_prediction(folder / arm, case, found.labels, image_file)
        mean = emidec.write_prediction(folder / f"{arm}-mean", case, found.mean_labels, image_file)
        variance = folder / f"{arm}-variance" / f"{case.subject}.nii.gz"
        write_map(variance, found.variance, image_file)
        paths = {
            "image": case.image_path,
            "label": case.label_path,
            "mask": mask,
            "variance": variance,
            "mean": mean,
        }
        identity = {"arm": arm, "fold": fold, "subject": case.subject, "group": self.group_of[index]}
        of_case = {f"{name}_path": beside(path, self.folder) for name, path in paths.items()}
        missing = {"pdc": np.nan, "phd_mm": np.nan}
        return {
            "rows": [missing | identity | row | of_case for row in found.rows],
            "reliability": found.reliability,
        }

    @hosts.led
    def write_results(self, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """`cases.csv` and `results.json` from the judged cases of every arm."""
        rows = [row for of_arm in records.values() for record in of_arm for row in record["rows"]]
        write_cases(self.folder / "cases.csv", rows)
        config, epochs = self.config, Journal(self.folder / "metrics.jsonl").read()
        data = config.data.resolve().name if config.data else "synthetic cohort"
        of_arm = {arm: [r for r in epochs if r.get("arm") == arm] for arm in config.arms}
        results = {
            "preset": config.preset,
            "data": f"{data}, {len(self.cohort.cases)} cases",
            "seed": config.seed,
            "folds": config.folds,
            "arms": list(config.arms),
            "samples": config.training.samples,
            "alpha": config.training.alpha,
            "mc_samples": config.mc_samples,
            "seconds": {
                "train": {arm: sum(r["seconds"] for r in rs) for arm, rs in of_arm.items()},
                "epoch": {
                    arm: statistics.median(r["train_seconds"] for r in rs) for arm, rs in of_arm.items()
                },
            },
            "n_skipped": len(self.skipped),
            "skipped": self.skipped,
            "versions": jax_setup.versions(),
            "peak_memory": jax_setup.peak_memory(),
            "tables": summarise_uncertainty(rows, config.seed),
            "reliability": {
                arm: pooled_reliability([r["reliability"] for r in found]) for arm, found in records.items()
            },
        }
        write_whole(self.folder / "results.json", json.dumps(without_nan(results), indent=2) + "\n")
