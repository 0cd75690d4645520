"""A run of the M&Ms-2 experiment on disk: its folder, what is done already, and what it leaves behind."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qcjax import interop
from qcjax.config import Mnms2Config
from qcjax.data.cohort import Cohort, orientation_of, prepare
from qcjax.data.datasets import mnms2
from qcjax.data.findings import Finding
from qcjax.data.nifti import read_grid
from qcjax.data.preprocess import median_spacing
from qcjax.data.subject import VIEWS, Subject
from qcjax.data.validate import validate_mnms2
from qcjax.phantom import PhantomConfig, write_mnms2
from qcjax.qc.mc_dropout import has_dropout
from qcjax.quality.conformal import LEAST_SUBJECTS
from qcjax.quality.model import QualityModel
from qcjax.refinement.arms import compare_arms
from qcjax.refinement.candidates import count_chosen
from qcjax.refinement.cohort_table import cohort_table
from qcjax.refinement.export import export_stage, measure_uncertainty
from qcjax.refinement.gating import gated_arms
from qcjax.refinement.prediction import learn_quality
from qcjax.refinement.refine import Pool, describe_ood, refine
from qcjax.refinement.refine_original import OriginalPool, refine_original
from qcjax.refinement.stage_result import StageResult
from qcjax.refinement.submission import write_submission
from qcjax.refinement.summary import summarise
from qcjax.refinement.table import CaseRow, case_name, write_cases
from qcjax.report.experiment import ExperimentRun
from qcjax.runtime import hosts
from qcjax.runtime.progress import bar, say
from qcjax.train.arm import Arm, ViewData
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.networks import Networks
from qcjax.train.stage import LOSS
from qcjax.typing import Variables

REFINEMENTS: dict[str, tuple[type, Callable[..., Any]]] = {  # candidates, and how they are refined
    "paper": (Pool, refine),
    "original": (OriginalPool, refine_original),
}


class RefinementRun(ExperimentRun[Mnms2Config]):
    """One folder of results."""

    def __init__(self, config: Mnms2Config, folder: Path) -> None:
        """Make the folder, or go on with what is in it.

        Raises ValueError where the folder belongs to a run with another configuration (says what differs), and what
        `interop.from_torch_file` does for a file that it can't use.
        """
        self._networks: dict[str, Networks] = {}
        self._rows: list[CaseRow] = []
        self._ood: dict[str, dict[str, Any]] = {}
        self._candidates: dict[str, dict[str, dict[str, Any]]] = {}  # segmenter -> view -> stage
        self._seconds: dict[str, float] = {}
        self._quality: dict[tuple[str, str], QualityModel | None] = {}  # by segmenter and view
        super().__init__(config, folder)

    def check_options(self) -> None:
        """Raises ValueError where weights to begin with don't fit the one segmenter that is trained."""
        config = self.config
        if config.init_from is None:
            return
        if len(config.segmenter) != 1:
            raise ValueError(
                f"--init-from: {len(config.segmenter)} segmenters found, expected one (--segmenter)"
            )
        interop.from_torch_file(self.networks(config.segmenter[0]).segmenter, config.init_from)

    def find(self, data: Path) -> tuple[list[Subject], list[Finding]]:
        """The subjects of the data set in this folder, and what its validation found."""
        return mnms2.find(data, self.config.split), validate_mnms2(data, self.config.split)

    def write_phantom(self, data: Path, on_subject: Callable[[Any], None]) -> None:
        """Write the run's synthetic cohort to this folder; `on_subject` is called with each subject written."""
        train, validation, test = self.config.subjects
        write_mnms2(data, PhantomConfig(train, validation, test, seed=self.config.seed), on_subject)

    def views(self, subjects: Sequence[Subject]) -> list[str]:
        """The views asked for that there is labelled data of.

        Raises ValueError where there are none, or where one has no cases that count as unlabelled.
        """
        there = {c.view for s in subjects if s.part == "train" for c in s.cases if c.label_path}
        unlabelled = {c.view for s in subjects if s.part != "train" for c in s.cases}
        refined_on = {c.view for s in subjects if self._refined_on(s) for c in s.cases}
        for wanted in self.config.views:
            if wanted not in there:
                say(f"No labelled {wanted} cases found; that view is left out.")
        found = [str(view) for view in VIEWS if view in self.config.views and view in there]
        if not found:
            asked = ", ".join(self.config.views)
            raise ValueError(
                f"{self.data}: no labelled training cases of --views {asked} found, expected some"
            )
        for view in found:
            if view not in unlabelled:
                raise ValueError(
                    f"{self.data}: no {view} cases in the validation and test parts found, expected some: they are the "
                    "unlabelled ones, whose quality is controlled (--split makes other parts)"
                )
            if self.config.refinement.epochs and view not in refined_on:
                raise ValueError(
                    f"{self.data}: no {view} cases in the validation part found, expected some, for refinement learns "
                    "from those (--refinement.cases all: from all unlabelled ones)"
                )
        return found

    def _refined_on(self, subject: Subject) -> bool:
        """Whether refinement looks at a subject's cases."""
        return subject.part == "validation" or (
            subject.part != "train" and self.config.refinement.cases == "all"
        )

    def prepare(self, subjects: Sequence[Subject], view: str) -> ViewData:
        """D_tr, D_val and D_te of a view, prepared, on the devices."""
        config = self.config
        training, validation = mnms2.training_split(subjects, config.seed)
        gate = config.refinement
        if gate.gate is not None and gate.gate_by == "quality" and len(validation) < LEAST_SUBJECTS:
            raise ValueError(
                f"{self.data}: {len(validation)} subjects in D_val found, expected at least {LEAST_SUBJECTS} to learn "
                "predicted quality from (--refinement.gate-by pdc: the gate compares pDC)"
            )
        learnt_from = [s for s in subjects if s.code in training]
        spacing, orientation = self._target_spacing(learnt_from, view), orientation_of(learnt_from, view)
        parts = (
            (learnt_from, True),
            ([s for s in subjects if s.code in validation], True),
            ([s for s in subjects if s.part != "train"], False),
        )
        total = sum(c.view == view for part, _ in parts for s in part for c in s.cases)
        cohorts: list[Cohort] = []
        with bar(f"Preparing {view} at {spacing[0]:.2f} × {spacing[1]:.2f} mm, cases", total) as advance:
            for members, with_labels in parts:
                cohorts.append(
                    prepare(
                        members,
                        view,
                        spacing,
                        config.size,
                        with_labels,
                        config.method.resampling,
                        advance,
                        orientation=orientation,
                    )
                )
        looked_at = {s.code for s in subjects if self._refined_on(s)}
        refined_on = [i for i, case in enumerate(cohorts[2].cases) if case.subject in looked_at]
        training_cohort, validation_cohort, unlabelled = cohorts
        return ViewData.place(
            view,
            training_cohort,
            validation_cohort,
            unlabelled,
            self.devices,
            config.stream,
            np.array(refined_on, int),
        )

    def _target_spacing(self, training: Sequence[Subject], view: str) -> tuple[float, float]:
        """As given, or the training set's median of this view (preset original: of all views)."""
        if self.config.spacing_mm is not None:
            return self.config.spacing_mm, self.config.spacing_mm
        views = VIEWS if self.config.method.spacing_of_all_views else (view,)
        cases = [c for s in training for c in s.cases if c.view in views]
        return median_spacing(read_grid(c.image_path).spacing_mm for c in cases)

    def networks(self, name: str) -> Networks:
        """M and R, built and compiled once for all views."""
        if name not in self._networks:
            self._networks[name] = Networks(self.config, name, self.devices)
        return self._networks[name]

    def pool(self, arm: Arm, autoencoder: Variables, supervised: Checkpoints) -> Pool | OriginalPool:
        """The candidates that supervised training left."""
        pool, _ = REFINEMENTS[self.config.method.refinement]
        return pool(arm, autoencoder, [supervised])

    def refine(
        self, arm: Arm, autoencoder: Variables, supervised: Checkpoints, stage: str
    ) -> Pool | OriginalPool:
        """Refinement proper ("refined"), or "control" for as many epochs as that took."""
        pool = self.pool(arm, autoencoder, supervised)
        epochs = self.config.refinement.epochs
        if stage == "control":
            epochs = max(
                (r["k"] for r in self.journal.read() if _matches(r, arm.identity("refined"))), default=0
            )
        _, refine_by = REFINEMENTS[self.config.method.refinement]
        refine_by(pool, stage, epochs, learn_from_ood=stage == "refined")
        return pool

    def stage(
        self,
        arm: Arm,
        stage: str,
        subjects: Sequence[Subject],
        autoencoder: Variables,
        decide: Callable[[], StageResult],
    ) -> None:
        """Predict, score and write every case of D_te, unless that is done already."""
        title = " ".join(str(v) for v in arm.identity(stage).values())
        record = self.once(
            title.replace(" ", "-"), lambda: self._export(arm, stage, title, subjects, autoencoder, decide())
        )
        self._rows += record["rows"]
        self._seconds[f"{title} (predict and score)"] = record["seconds"]
        name, view = arm.networks.name, arm.data.view
        chosen = count_chosen(record["candidates"], record["rows"])
        self._candidates.setdefault(name, {}).setdefault(view, {})[stage] = chosen
        if stage == "selection":  # the candidates before refinement
            self._ood.setdefault(name, {})[view] = {
                "thresholds": record["thresholds"],
                "cases_after_k": [record["ood_cases"]],
                "looked_at": len(arm.data.refined_on),
            }

    def _export(
        self,
        arm: Arm,
        stage: str,
        title: str,
        subjects: Sequence[Subject],
        autoencoder: Variables,
        result: StageResult,
    ) -> dict[str, Any]:
        result = replace(result, decision=hosts.same(result.decision))
        measures = self._uncertainty(arm, title, result) if stage == "segmenter" else []
        models = [f"{'epoch' if c.stage == 'segmenter' else c.stage} {c.epoch}" for c in result.candidates]
        names = [result.treatment.named(model) for model in models]
        quality = self._predictor(arm, autoencoder)
        made = hosts.lead(partial(self._made, arm))
        with bar(f"{title}: cases predicted and scored", len(result.decision.ood)) as advance:
            rows = export_stage(
                arm,
                stage,
                names,
                result.load,
                result.decision,
                autoencoder,
                subjects,
                advance,
                measures,
                made,
                result.treatment,
                quality,
            )
        losses = [c.loss for c in result.candidates]
        return {
            "rows": rows,
            "candidates": [{"name": n, LOSS: x} for n, x in zip(names, losses, strict=True)],
            "thresholds": result.decision.thresholds,
            "ood_cases": describe_ood(arm, result.to_refine_on)["ood_cases"],
        }

    def _predictor(self, arm: Arm, autoencoder: Variables) -> QualityModel | None:
        """What predicts the quality of an arm's masks, where its gate asks for it; learnt once."""
        options = self.config.refinement
        if options.gate is None or options.gate_by == "pdc":
            return None
        key = arm.networks.name, arm.data.view
        if key not in self._quality:
            supervised = arm.checkpoints("segmenter", self.config.supervised.m_best)
            self._quality[key] = learn_quality(arm, autoencoder, supervised)
        return self._quality[key]

    def gates(self, arm: Arm) -> None:
        """The gated arms of the stages that are done, where asked for, unless they are done already."""
        if self.config.refinement.gate is not None:
            rows, seconds = gated_arms(self.once, arm, self._rows, self.config)
            self._rows += rows
            self._seconds |= seconds

    def _made(self, arm: Arm) -> dict[tuple[str, str], CaseRow]:
        """The predictions of this arm's stages so far whose files are there."""
        return {
            (case_name(row), row["candidate"]): row
            for row in self._rows
            if row["segmenter"] == arm.networks.name
            and row["view"] == arm.data.view
            and all((self.folder / row[c]).is_file() for c in ("prediction_path", "reconstruction_path"))
        }

    def _uncertainty(self, arm: Arm, title: str, result: StageResult) -> list[CaseRow]:
        """Each case's, of the one model of a stage, where dropout samples are wanted and there is dropout."""
        samples, chunk = self.config.mc_samples, self.config.mc_chunk
        if not samples:
            return []
        if not has_dropout(arm.networks.segmenter):
            say(f"{title}: {arm.networks.name} has no dropout, so no samples of it are drawn")
            return []
        batches = -(-len(arm.data.unlabelled_indices) // arm.networks.predictor.batch)
        with bar(f"{title}: {samples} dropout samples, batches of slices", batches) as advance:
            return measure_uncertainty(arm, result.load(0), samples, chunk, advance)

    @hosts.led
    def write_results(self, subjects: Sequence[Subject]) -> None:
        """`cases.csv`, `results.json`, `submission.zip`."""
        write_cases(self.folder / "cases.csv", self._rows)
        tables = summarise(self._rows, seed=self.config.seed)
        validation: dict[str, Any] = {}
        for record in self.journal.read():
            title = " ".join(str(record[k]) for k in ("stage", "segmenter", "view") if k in record)
            self._seconds[title] = self._seconds.get(title, 0.0) + record["seconds"]
            if record["stage"] == "refined":  # preset original has two lines for each k; the second counts
                after = self._ood[record["segmenter"]][record["view"]]["cases_after_k"]
                after[record["k"] :] = [record["ood_cases"]]
        for segmenter in tables["qc"]:
            for view in tables["qc"][segmenter]:
                best = self._best(stage="autoencoder", view=view)
                tables["qc"][segmenter][view]["reconstruction_dice"] = _dice(best)
                found = self._best(stage="segmenter", segmenter=segmenter, view=view)
                validation.setdefault(segmenter, {})[view] = {"epoch": found["epoch"], "dice": _dice(found)}
        results = tables | {
            "validation": validation,
            "ood": self._ood,
            "candidates": self._candidates,
            "seconds": self._seconds,
            "data": f"{self.data_name}, {len(subjects)} subjects",
            "cohort": cohort_table(subjects),
        }
        if self.config.refinement.gate is not None:
            results["arms"] = compare_arms(self._rows, subjects, self.config)
        if self.config.mc_samples:
            results["mc_samples"] = self.config.mc_samples
        self.write_json(results)
        write_submission(self.folder, self._rows, subjects, self.config.segmenter[0])

    def _best(self, **identity: str) -> dict[str, Any]:
        """The journal's line of the stage's lowest validation loss; of equals the later."""
        records = [r for r in self.journal.read() if _matches(r, identity)]
        return min(records, key=lambda r: (r["validation_loss"], -r["epoch"]))


def _matches(record: dict[str, Any], identity: dict[str, Any]) -> bool:
    return all(record.get(k) == v for k, v in identity.items())


def _dice(record: dict[str, Any]) -> dict[str, float]:
    return {key: record[f"validation_dice_{key}"] for key in ("lv", "myo", "rv")}
