"""`qcjax calibrate`: predicted quality calibrated on a site's own masks whose truth is known, of whatever tool."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qcjax.data.cine import read_frames
from qcjax.data.datasets.masks import CHANNEL, IMAGE_SUFFIXES, SUBJECT, Images, find_masks, read_mask
from qcjax.data.mask_cohort import MaskCase
from qcjax.data.nifti import read_labels
from qcjax.inference.signals import signals_of
from qcjax.labels import label_mapping
from qcjax.metrics.surface import case_metrics
from qcjax.quality.check import Checked, checked
from qcjax.quality.conformal import LEAST_SUBJECTS
from qcjax.quality.model import FILE, Kind, KnownCase, QualityModel
from qcjax.quality.signals import Signals
from qcjax.runtime.files import without_nan, write_whole
from qcjax.runtime.progress import bar, say
from qcjax.segmentation.judge import rounded
from qcjax.segmentation.model import Model
from qcjax.segmentation.refine import REFINEMENT
from qcjax.segmentation.run import HELD_OUT, WORK

RECORD = "calibration.json"


class Pair(NamedTuple):
    """A file with its truth."""

    path: Path
    truth: MaskCase


def calibrate(
    model: Model,
    truth: Path,
    out: Path,
    images: Path | None = None,
    masks: Path | None = None,
    labels: Mapping[str, int] | None = None,
    subject: str = SUBJECT,
) -> dict[Kind, Checked]:
    """Write a model to `out` whose predicted quality is calibrated on a site's own cases.

    Args:
      images: to be segmented by the model; calibrates what `qcjax segment` predicts.
      masks: of any tool; calibrates what `qcjax score` predicts.
      labels: value of each structure in truth and masks; the model's own by default.
      subject: regular expression that finds the subject in a truth's name (`find_masks`).

    Returns:
      What the predictions were worth on these cases, before and after, by what was calibrated.

    Raises:
      FileNotFoundError: no such folder, or no file of a truth's name.
      InvalidFile: one that can't be used.
      ValueError: neither images nor masks, a model that predicts no quality, fewer than 9 subjects, or a folder `out`
        that holds something.
    """
    if images is None and masks is None:
        raise ValueError("found neither --images nor --masks; expected one of them, or both")
    if model.quality is None:
        raise ValueError(
            f"{model.folder}: found no {FILE}; expected a model of at least {LEAST_SUBJECTS} subjects"
        )
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: found a folder that holds something; expected a new one")
    mapping = label_mapping(model.structures, dict(labels or model.labels))
    truths = find_masks(truth, say, subject)
    found: dict[Kind, list[KnownCase]] = {}
    if images is not None:
        found["segmented"] = _known(
            paired(truths, images, ("", CHANNEL)),
            "Images segmented",
            lambda pair: segmented(model, pair, mapping),
        )
    if masks is not None:
        found["mask"] = _known(
            paired(truths, masks, ("", *IMAGE_SUFFIXES)),
            "Masks judged",
            lambda pair: judged(model, pair, mapping),
        )
    quality, told = model.quality, {}
    for kind, cases in found.items():
        told[kind] = checked(model.quality, cases, kind)
        quality = quality.calibrated(cases, kind)
    _write(model, quality, found, told, out)
    return told


def paired(truths: Sequence[MaskCase], folder: Path, suffixes: Sequence[str]) -> list[Pair]:
    """Each truth with the file in a folder at its relative name, without one of `IMAGE_SUFFIXES`, but with a suffix.

    Raises:
      FileNotFoundError: no such folder, or no file for a truth.
    """
    files, pairs = Images(folder), []
    for case in truths:
        bare = next((case.name.removesuffix(s) for s in IMAGE_SUFFIXES if case.name.endswith(s)), case.name)
        named = (path for s in suffixes if (path := files.at(bare + s)) is not None)
        path = next((p for p in named if p.resolve() != case.path.resolve()), None)
        if path is None:
            raise FileNotFoundError(
                f"{folder}: found no file for {case.path.name}; expected {bare}.nii.gz or the like"
            )
        pairs.append(Pair(path, case))
    return pairs


def segmented(model: Model, pair: Pair, mapping: dict[int, int]) -> KnownCase:
    """What the model makes of an image, against its truth."""
    frames = model.prepare_frames(read_frames(pair.path, model.orientation))
    if len(frames) > 1:
        raise ValueError(
            f"{pair.path}: found a cine of {len(frames)} frames; expected one image for each truth"
        )
    (prepared,) = frames
    truth = read_labels(pair.truth.path, mapping, like=prepared.volume)
    (prediction,) = model.predict(frames)
    (taken,) = model.results(frames, [prediction])
    found = prediction.refined if taken.networks == "refined" and prediction.refined else prediction
    mask = model.restore(prepared, found.probabilities)
    score = model.judge(mask, prepared.spacing_mm)
    signals = signals_of(mask, prepared.spacing_mm, score, found.sums)
    return _case(model, pair, signals, mask, truth.array, prepared.spacing_mm)


def judged(model: Model, pair: Pair, mapping: dict[int, int]) -> KnownCase:
    """What the monitor makes of anybody's mask, against its truth."""
    mask = read_mask(pair.path, mapping, model.orientation, pair.truth.path)
    truth = read_labels(pair.truth.path, mapping, like=mask)
    score = model.monitor.score(mask.array, mask.spacing_mm)
    return _case(
        model, pair, signals_of(mask.array, mask.spacing_mm, score), mask.array, truth.array, mask.spacing_mm
    )


def _case(
    model: Model, pair: Pair, signals: Signals, mask: np.ndarray, truth: np.ndarray, spacing: Sequence[float]
) -> KnownCase:
    measured = case_metrics(mask, truth, spacing, model.structures)

    dice, hd_mm = (
        [measured[f"{m}_{s.key}{u}"] for s in model.structures] for m, u in (("dc", ""), ("hd", "_mm"))
    )
    return KnownCase(
        pair.truth.group, {k: rounded(v) for k, v in signals.items()}, rounded(dice), rounded(hd_mm)
    )


def _known(pairs: Sequence[Pair], what: str, make: Callable[[Pair], KnownCase]) -> list[KnownCase]:
    cases = []
    with bar(what, len(pairs)) as advance:
        for pair in pairs:
            cases.append(make(pair))
            advance()
    return cases


def _write(
    model: Model,
    quality: QualityModel,
    found: Mapping[Kind, Sequence[KnownCase]],
    told: Mapping[Kind, Checked],
    out: Path,
) -> None:
    """The model's folder with the calibrated quality, and the record of the cases by number of their subjects."""
    shutil.copytree(
        model.folder,
        out,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(WORK, HELD_OUT, RECORD, REFINEMENT, "report.html", "cases.csv", ".*"),
    )
    quality.save(out)
    record: dict[str, Any] = {}
    for kind, cases in found.items():
        numbers = {name: i for i, name in enumerate(dict.fromkeys(case.subject for case in cases))}
        record[kind] = {
            "checked": [without_nan(row._asdict()) for row in told[kind]],
            "cases": [asdict(case) | {"subject": numbers[case.subject]} for case in cases],
        }
    write_whole(out / RECORD, json.dumps(record) + "\n")
