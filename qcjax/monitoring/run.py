"""A run of the monitoring experiment on disk: what is done already, and what it leaves behind."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qcjax.config import AcdcConfig
from qcjax.data.cohort import orientation_of
from qcjax.data.datasets import acdc
from qcjax.data.findings import Finding
from qcjax.data.mask_cohort import true_masks
from qcjax.data.nifti import read_image, read_labels
from qcjax.data.subject import Case, Subject
from qcjax.data.validate import validate_acdc
from qcjax.inference.monitor import Monitor
from qcjax.labels import ACDC_LABELS, CARDIAC
from qcjax.monitoring.corruption_study import damage_study
from qcjax.monitoring.judge import judge_by_rca, judge_case
from qcjax.monitoring.methods import (
    FIELD,
    METHODS,
    THRESHOLDING,
    VIEW,
    Method,
    prepare_field,
    segment_by,
    segment_by_thresholding,
)
from qcjax.monitoring.summary import summarise_monitoring
from qcjax.monitoring.table import MeasureRow, write_measures
from qcjax.phantom import AcdcPhantomConfig, write_acdc
from qcjax.qc.label_order import Swap, better_swapped, swap_in_words
from qcjax.qc.registration import simpleitk
from qcjax.report.experiment import ExperimentRun
from qcjax.runtime import hosts
from qcjax.runtime.files import version_of
from qcjax.runtime.progress import bar, say
from qcjax.runtime.records import kept_record
from qcjax.runtime.wording import count_of
from qcjax.train.journal import Journal
from qcjax.train.monitor import MonitorTraining, check_options, prepare_both

LABELS = {s.key: acdc.STORED_LABELS[s.id] for s in CARDIAC}


class MonitoringRun(ExperimentRun[AcdcConfig]):
    """One folder of results."""

    def check_options(self) -> None:
        """Raises ValueError for predictions that aren't there, or options that don't go together, and ImportError for
        --rca without SimpleITK."""
        config = self.config
        check_options(config.monitor, LABELS, config.method)
        self.given = _named(config.predictions)
        if config.rca:
            simpleitk()
        self.unit = config.method.unit  # of all distances

    def find(self, data: Path) -> tuple[list[Subject], list[Finding]]:
        """The subjects of the data set in this folder, and what its validation found."""
        return acdc.scan(data).subjects, validate_acdc(data)

    def write_phantom(self, data: Path, on_subject: Callable[[Any], None]) -> None:
        """Write the run's synthetic cohort to this folder; `on_subject` is called with each subject written."""
        train, test = self.config.subjects
        write_acdc(data, AcdcPhantomConfig(train, test, seed=self.config.seed), on_subject)

    def check(self, split: acdc.Split) -> None:
        """What would stop the run later, before anything is trained.

        Raises:
          ValueError: fewer training subjects than RCA's references, or a given folder without masks of the test cases.
          InvalidFile: a given mask that can't be used.
        """
        if self.config.rca > len(split.train):
            raise ValueError(
                f"--rca: {self.config.rca} found, expected at most {len(split.train)}, the training subjects"
            )
        hosts.lead(partial(self._check_given, [c for s in split.test for c in s.cases]))

    def _check_given(self, cases: Sequence[Case]) -> None:
        given = {name: acdc.find_predictions(folder, cases) for name, folder in self.given.items()}
        for name, found in given.items():
            if found.missing or found.unknown:
                say(
                    f"{name}: {count_of(len(found.paths), 'mask')} found; {len(found.missing)} of the test cases have "
                    f"none, and {count_of(len(found.unknown), 'file')} belong to no test case"
                )
        swaps: dict[str, list[Swap | None]] = {name: [] for name in given}
        with bar("Checking given masks of cases", len(cases) if given else 0) as advance:
            for case in cases if given else ():
                image = read_image(case.image_path)
                for name, found in given.items():
                    if case.name in found.paths:
                        mask = read_labels(found.paths[case.name], ACDC_LABELS, like=image)
                        if case.label_path is not None:
                            truth = read_labels(case.label_path, ACDC_LABELS, like=image)
                            swaps[name].append(better_swapped(mask.array, truth.array))
                advance()
        for name, found_swaps in swaps.items():
            if sentence := swap_in_words(found_swaps):
                say(f"warning: {name}: {sentence}")

    def monitor(self, split: acdc.Split) -> Monitor:
        """The monitor, trained on the ground truth of the training subjects."""
        config, parts = self.config.monitor, (true_masks(split.train), true_masks(split.validation))
        training, validation = prepare_both(*parts, ACDC_LABELS, config)
        folder, seed, method = self.folder / "monitor", self.config.seed, self.config.method
        run = MonitorTraining(
            config,
            LABELS,
            training,
            validation,
            folder,
            seed,
            method,
            self.devices,
            self.config.on_nonfinite,
            self.config.accumulate,
            self.config.stream,
        )
        return run.run()

    def masks(self, split: acdc.Split) -> dict[str, dict[str, Path]]:
        """Method -> case name -> its mask: those given, or a field's own."""
        cases = [c for s in split.test for c in s.cases]
        folders = self.given or self._field(split, cases)
        find = partial(acdc.find_predictions, cases=cases)
        return {name: hosts.lead(partial(find, folder)).paths for name, folder in folders.items()}

    def _field(self, split: acdc.Split, cases: Sequence[Case]) -> dict[str, Path]:
        folders = {name: self.folder / "predictions" / name for name in METHODS}
        data = None

        def segmented(method: Method) -> dict[str, Any]:
            nonlocal data
            data = data or prepare_field(self.config, split, self.devices)
            segment_by(method, self.config, data, self.folder, self.devices, folders[method.name])
            return {}

        def thresholded() -> dict[str, Any]:
            segment_by_thresholding(cases, folders[THRESHOLDING], orientation_of(split.train, VIEW))
            return {}

        for method in FIELD:
            self.once(f"segmented-{method.name}", partial(segmented, method))
        self.once(f"segmented-{THRESHOLDING}", thresholded)
        return folders

    def judge(
        self, monitor: Monitor, split: acdc.Split, masks: Mapping[str, Mapping[str, Path]]
    ) -> list[MeasureRow]:
        """Every mask of every test case, by the monitor, agreement and rules, and against the truth."""
        monitor.score(np.zeros((8, 8, 2), np.uint8), (1.0, 1.0, 8.0))  # compiles
        pairs = [(s.disease, c) for s in split.test for c in s.cases]

        def judged(disease: str, case: Case) -> dict[str, Any]:
            of_case = _of_case(masks, case)
            return judge_case(monitor, case, disease, of_case, self.folder)._asdict()

        records = self._each_case("judged", "Masks judged, cases", pairs, masks, judged)
        self.seconds_per_case = statistics.median(s for r in records for s in r["seconds"])
        return [row for record in records for row in record["rows"]]

    def rca(
        self, split: acdc.Split, masks: Mapping[str, Mapping[str, Path]], rows: Sequence[MeasureRow]
    ) -> float | None:
        """Fill in reverse classification accuracy, where asked for; median seconds per image, all methods at once."""
        n, count = self.config.rca, self.config.rca_subjects
        if not n:
            return None
        pairs = [(s.disease, c) for s in split.test[:count] for c in s.cases]
        orientation = orientation_of(split.train, VIEW)

        def estimated(_: str, case: Case) -> dict[str, Any]:
            started = time.perf_counter()
            found = judge_by_rca(case, _of_case(masks, case), split.train, n, self.unit, orientation)
            return {"found": found, "seconds": time.perf_counter() - started}

        records = self._each_case(f"rca-{n}", f"RCA against {n} references, cases", pairs, masks, estimated)
        estimates = {c.name: r["found"] for (_, c), r in zip(pairs, records, strict=True)}
        number = {s.key: i for i, s in enumerate(CARDIAC)}
        for row in rows:
            found = estimates.get(f"{row['subject']}_SA_{row['phase']}", {}).get(row["method"])
            if found is not None:
                row["rca_dc"], row["rca_hd"] = found[number[row["structure"]]]
        return statistics.median(r["seconds"] for r in records)

    def damage(self, monitor: Monitor, split: acdc.Split) -> dict[str, Any]:
        """Whether the monitor finds damaged masks among the ground truth of subjects that it wasn't trained on."""
        cases = [c for s in split.test for c in s.cases if c.label_path]
        cases = cases or [c for s in split.validation for c in s.cases if c.label_path]
        with bar("Damaged masks judged, cases", len(cases)) as advance:
            study = partial(damage_study, monitor, cases, self.config.seed, advance)
            return hosts.lead(lambda: kept_record(self.stage_record("damage"), study))

    @hosts.led
    def write_results(
        self,
        monitor: Monitor,
        split: acdc.Split,
        rows: Sequence[MeasureRow],
        damage: Mapping[str, Any],
        rca_seconds: float | None,
    ) -> None:
        """`measures.csv` and `results.json`."""
        write_measures(self.folder / "measures.csv", rows)
        records = Journal(self.folder / "monitor" / "metrics.jsonl").read()
        curve = [
            {"epoch": r["epoch"]} | {s.key: r[f"validation_dice_{s.key}"] for s in CARDIAC} for r in records
        ]
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        results = summarise_monitoring(rows, seed=self.config.seed, unit=self.unit) | {
            "data": f"{self.data_name}, "
            + ", ".join(f"{name} {len(members)}" for name, members in parts.items()),
            "split": split.note,
            "reconstruction": curve,
            "monitor": {
                "epoch": monitor.description["epoch"],
                "reference_masks": None if monitor.reference is None else monitor.reference.n,
            },
            "seconds": {
                "train": sum(r["seconds"] for r in records),
                "per_case": self.seconds_per_case,
                "rca_per_case": rca_seconds,
            },
            **damage,
        }
        self.write_json(results)

    def _each_case(
        self,
        stage: str,
        title: str,
        pairs: Sequence[tuple[str, Case]],
        masks: Mapping[str, Mapping[str, Path]],
        make: Callable[[str, Case], dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """A record per case, made again where the masks aren't the same any more."""

        def versions(case: Case) -> dict[str, Any]:
            return {method: version_of(path) for method, path in _of_case(masks, case).items()}

        return self.each(
            stage,
            title,
            {case.name: (disease, case) for disease, case in pairs},
            lambda pair: make(*pair) | {"masks": versions(pair[1])},
            lambda pair, found: found.get("masks") == versions(pair[1]),
        )


def _named(predictions: Sequence[str]) -> dict[str, Path]:
    """NAME=DIR, each name once.

    Raises ValueError for anything else, or a folder that isn't there.
    """
    found: dict[str, Path] = {}
    for text in predictions:
        name, separator, folder = text.partition("=")
        if not separator or not name or not folder or name in found or "/" in name or name in (".", ".."):
            raise ValueError(f"--predictions: {text!r} found, expected NAME=DIR, each name once")
        if not Path(folder).is_dir():
            raise ValueError(f"--predictions {text}: no such folder found, expected one of masks")
        found[name] = Path(folder)
    return found


def _of_case(masks: Mapping[str, Mapping[str, Path]], case: Case) -> dict[str, Path]:
    return {method: of[case.name] for method, of in masks.items() if case.name in of}
