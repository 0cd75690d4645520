"""A run of the uncertainty experiment on disk: what is done already, and what it leaves behind."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qcjax.config import ArmName, EmidecConfig
from qcjax.data.cohort import orientation_of
from qcjax.data.datasets import emidec
from qcjax.data.findings import Finding
from qcjax.data.mask_cohort import true_masks
from qcjax.data.nifti import read_image, read_labels
from qcjax.data.placement import place
from qcjax.data.splits import image_digests, shares
from qcjax.data.subject import Subject
from qcjax.data.validate import validate_emidec
from qcjax.data.volumes import VolumeCohort, prepare_volumes
from qcjax.data.write import write_map
from qcjax.inference.monitor import Monitor
from qcjax.labels import EMIDEC, EMIDEC_LABELS
from qcjax.phantom import LgePhantomConfig, write_emidec
from qcjax.report.experiment import ExperimentRun
from qcjax.runtime import hosts
from qcjax.runtime.folder import beside
from qcjax.runtime.progress import bar
from qcjax.train.loop import stream
from qcjax.train.monitor import MonitorTraining, check_options, prepare_both
from qcjax.typing import Variables
from qcjax.uncertainty.scores import judge_volume, pooled_reliability
from qcjax.uncertainty.summary import summarise_uncertainty
from qcjax.uncertainty.table import write_cases
from qcjax.uncertainty.training import FoldTraining, VolumeNetwork, unpadded

LABELS = {s.key: s.id for s in EMIDEC}


class UncertaintyRun(ExperimentRun[EmidecConfig]):
    """One folder of results."""

    def check_options(self) -> None:
        """Raises ValueError for sizes that the networks can't take."""
        check_options(self.config.monitor, LABELS)
        self._network = VolumeNetwork(self.config, self.devices)

    def find(self, data: Path) -> tuple[list[Subject], list[Finding]]:
        """The subjects of the data set in this folder, and what its validation found."""
        return emidec.scan(data).subjects, validate_emidec(data)

    def write_phantom(self, data: Path, on_subject: Callable[[Any], None]) -> None:
        """Write the run's synthetic cohort to this folder; `on_subject` is called with each subject written."""
        normal, pathological = self.config.subjects
        write_emidec(data, LgePhantomConfig(normal, pathological, seed=self.config.seed), on_subject)

    def prepare(self, folds: Sequence[Sequence[Subject]]) -> None:
        """Read and prepare every case, and put the volumes on the devices."""
        members = [s for fold in folds for s in fold]
        config = self.config
        with bar("Preparing volumes, cases", len(members)) as advance:
            self.cohort: VolumeCohort = prepare_volumes(
                members,
                config.spacing_mm,
                config.size,
                config.patch[0],
                on_case=advance,
                orientation=orientation_of(members, "SA"),
            )
        self.fold_of = np.repeat(np.arange(len(folds)), [sum(len(s.cases) for s in fold) for fold in folds])
        self.group_of = [s.disease for s in members for _ in s.cases]
        self.placed = place([self.cohort.volumes], self.devices, config.stream, "Volumes")

    def train(self, arm: ArmName, fold: int) -> Variables:
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
        training, validation = prepare_both(
            *masks, EMIDEC_LABELS, self.config.monitor, self.cohort.orientation
        )
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

    def judge(self, arm: ArmName, fold: int, variables: Variables, monitor: Monitor) -> list[dict[str, Any]]:
        """Predict and score the cases of a fold; those that an earlier start has finished are read."""
        cases = {self.cohort.cases[i].subject: i for i in np.flatnonzero(self.fold_of == fold).tolist()}
        judged = partial(self._judge, arm, variables=variables, monitor=monitor)
        return self.each(f"judged/{arm}", f"{arm}, fold {fold + 1}: cases judged", cases, judged)

    def _judge(self, arm: ArmName, index: int, variables: Variables, monitor: Monitor) -> dict[str, Any]:
        network, case, config = self._network, self.cohort.cases[index], self.config
        padded = self.cohort.geometries[index]
        image = self.cohort.volumes.image[index][padded.real]
        key = stream(jax.random.key(config.seed), "mc", case.subject)
        image_file, fold = read_image(case.image_path, self.cohort.orientation), int(self.fold_of[index])
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
        config, epochs = self.config, self.journal.read()
        of_arm = {arm: [r for r in epochs if r.get("arm") == arm] for arm in config.arms}
        results = {
            "data": f"{self.data_name}, {len(self.cohort.cases)} cases",
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
            "tables": summarise_uncertainty(rows, config.seed),
            "reliability": {
                arm: pooled_reliability([r["reliability"] for r in found]) for arm, found in records.items()
            },
        }
        self.write_json(results)
