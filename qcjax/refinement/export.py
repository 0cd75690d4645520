"""What a stage gives for every case of D_te: predictions on the input's grid, and a row of measures."""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from qcjax import qc
from qcjax.data.nifti import read_image, read_labels
from qcjax.data.preprocess import restore_labels
from qcjax.data.subject import Subject
from qcjax.data.write import write_labels
from qcjax.labels import CARDIAC
from qcjax.metrics.clinical import volume_ml
from qcjax.metrics.surface import case_metrics
from qcjax.qc.components import keep_largest
from qcjax.qc.uncertainty import SliceSums, case_measures
from qcjax.quality.model import QualityModel
from qcjax.refinement.prediction import predicted_columns
from qcjax.refinement.refine import Decision
from qcjax.refinement.table import (
    NUMBER_COLUMNS,
    UNCERTAINTY_COLUMNS,
    UNCERTAINTY_OF_CASE,
    UNCERTAINTY_OF_STRUCTURE,
    CaseRow,
)
from qcjax.refinement.treatment import PLAIN, Treatment
from qcjax.runtime import hosts
from qcjax.runtime.files import write_whole
from qcjax.runtime.folder import beside
from qcjax.train.arm import Arm
from qcjax.typing import Variables

CASES_AT_ONCE = 8  # bounds the memory that probabilities take


Made = Mapping[tuple[str, str], CaseRow]  # (case, candidate in words) -> its row at an earlier stage


def export_stage(
    arm: Arm,
    stage: str,
    names: Sequence[str],
    load: Callable[[int], Variables],
    decision: Decision,
    autoencoder: Variables,
    subjects: Sequence[Subject],
    on_case: Callable[[], None] = lambda: None,
    measures: Sequence[CaseRow] = (),
    made: Made = MappingProxyType({}),
    treatment: Treatment = PLAIN,
    quality: QualityModel | None = None,
) -> list[CaseRow]:
    """Write the stage's predictions and reconstructions; return its rows of `cases.csv`.

    Args:
      names: of the m candidates, for people; no two of an arm have the same.
      load: the weights of candidate i, on the devices.
      decision: which candidate, or which two to average, for each case, and which cases are OoD to them.
      subjects: who the cases belong to.
      measures: what else each case's row holds, if anything.
      made: predictions of earlier stages of this arm; a case that the same candidates were chosen for is copied.
      treatment: how the stage comes to its masks; `names` tell of it.
      quality: what predicts the Dice of its masks, if anything does.
    """
    selection, cases = decision.selection, arm.data.unlabelled.cases
    of_code = {subject.code: subject for subject in subjects}
    if treatment.mean:
        shares = [dict.fromkeys(range(len(names)), 1 / len(names))] * len(cases)
    else:
        shares = [_shares(*pair) for pair in zip(*(x.tolist() for x in selection), strict=True)]
    chosen = [_in_words([names[i] for i in of_case]) for of_case in shares]
    new = [i for i, case in enumerate(cases) if (case.name, chosen[i]) not in made]
    old = [i for i, case in enumerate(cases) if (case.name, chosen[i]) in made]
    needed = {i for case in new for i in shares[case]}
    weights = {i: load(i) for i in sorted(needed)}

    def scored(case: int, probabilities: np.ndarray, rebuilt: np.ndarray) -> CaseRow:
        row = _score(arm, stage, case, probabilities, rebuilt, of_code, treatment, quality)
        on_case()
        return row | {"candidate": chosen[case]}

    def copied(case: int) -> CaseRow:
        row = copied_row(made[cases[case].name, chosen[case]], arm, stage)
        on_case()
        return row

    rows: dict[int, CaseRow] = {}
    for start in range(0, len(new), CASES_AT_ONCE):
        group = new[start : start + CASES_AT_ONCE]
        parts = _probabilities(arm, weights, shares, group, treatment.mirror)
        rebuilt = arm.networks.predictor.rebuild_probabilities(autoencoder, np.concatenate(parts))
        ends = np.cumsum([len(p) for p in parts])[:-1]
        of_group = list(zip(group, parts, np.split(rebuilt, ends), strict=True))
        rows |= zip(group, hosts.share(lambda found: scored(*found), of_group), strict=True)
    rows |= zip(old, hosts.share(copied, old), strict=True)
    return [
        rows[i] | {"ood": int(decision.ood[i])} | (measures[i] if measures else {}) for i in range(len(cases))
    ]


def _shares(first: int, second: int) -> dict[int, float]:
    """What each candidate adds to a case's probabilities."""
    return {first: 1.0} if first == second else {first: 0.5, second: 0.5}


def _in_words(names: Sequence[str]) -> str:
    """The candidate of a case, or those whose probabilities are averaged."""
    *others, last = names
    return f"mean of {', '.join(others)} and {last}" if others else last


def copied_row(row: CaseRow, arm: Arm, stage: str) -> CaseRow:
    """A row of an earlier stage as one of this, its files copied; the other stage's uncertainty isn't this one's."""
    kept = {column: value for column, value in row.items() if column not in UNCERTAINTY_COLUMNS}
    folder = _folder(arm, stage)
    for column in ("prediction_path", "reconstruction_path"):
        source = arm.folder / row[column]
        write_whole(folder / source.name, source.read_bytes())
        kept[column] = beside(folder / source.name, arm.folder)
    return kept | {"stage": stage}


def _folder(arm: Arm, stage: str) -> Path:
    return arm.folder / "predictions" / arm.networks.name / stage


def measure_uncertainty(
    arm: Arm,
    variables: Variables,
    samples: int,
    chunk: int | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> list[CaseRow]:
    """Each case's columns of uncertainty, from dropout samples of one model.

    Args:
      variables: of a segmenter with dropout, on the devices.
      samples: how many.
      chunk: how many at once; all if None.
    """
    cohort = arm.data.unlabelled
    names = np.array([zlib.crc32(case.name.encode()) for case in cohort.cases], np.uint32)
    numbers = np.arange(len(cohort.owner)) - cohort.first[cohort.owner]  # of a slice in its case
    places = np.stack([names[cohort.owner], numbers.astype(np.uint32)], -1)
    key = arm.key("uncertainty")
    indices = arm.data.unlabelled_indices
    sums = arm.networks.predictor.uncertainty(
        variables, arm.data.slices, indices, places, key, samples, chunk, on_batch
    )
    rows = []
    for parts in zip(*(cohort.split(x) for x in sums), strict=True):
        found = case_measures(SliceSums(*parts))
        row: CaseRow = {name: getattr(found, name) for name in UNCERTAINTY_OF_CASE}
        for name, column in UNCERTAINTY_OF_STRUCTURE.items():
            values = getattr(found, name)
            row |= {column.format(s.key): float(v) for s, v in zip(CARDIAC, values, strict=True)}
        rows.append(row)
    return rows


def _probabilities(
    arm: Arm,
    weights: dict[int, Variables],
    shares: Sequence[dict[int, float]],
    group: Sequence[int],
    mirror: bool = False,
) -> list[np.ndarray]:
    """Mean class probabilities of each case's candidates, which `shares` weighs, case by case."""
    cohort, indices = arm.data.unlabelled, arm.data.unlabelled_indices
    totals: dict[int, Any] = {case: 0.0 for case in group}
    for i, variables in weights.items():
        cases = [c for c in group if i in shares[c]]
        if not cases:
            continue
        where = indices[np.concatenate([np.arange(len(cohort.owner))[cohort.rows(c)] for c in cases])]
        stack = arm.networks.predictor.probabilities(variables, arm.data.slices, where, mirror)
        sizes = [cohort.geometries[c].stack_shape[0] for c in cases]
        for case, part in zip(cases, np.split(stack, np.cumsum(sizes)[:-1]), strict=True):
            totals[case] = totals[case] + np.float32(shares[case][i]) * part
    return [totals[case] for case in group]


def _score(
    arm: Arm,
    stage: str,
    case: int,
    probabilities: np.ndarray,
    rebuilt: np.ndarray,
    of_code: dict[str, Subject],
    treatment: Treatment,
    quality: QualityModel | None = None,
) -> CaseRow:
    cohort, config = arm.data.unlabelled, arm.networks.config
    found, geometry = cohort.cases[case], cohort.geometries[case]
    subject = of_code[found.subject]
    mask, rebuilt_mask = (x.argmax(-1).astype(np.uint8) for x in (probabilities, rebuilt))
    mask = keep_largest(mask, treatment.largest)
    pdc, phd = qc.pseudo_measures(mask, rebuilt_mask, geometry.spacing_mm)
    raised = qc.flags(pdc, phd)
    kinds = {flag.kind for flag in raised}

    image = read_image(found.image_path, cohort.orientation)
    prediction = restore_labels(probabilities, geometry, config.method.resampling)
    prediction = keep_largest(prediction, treatment.largest)
    folder = _folder(arm, stage)
    folder.mkdir(parents=True, exist_ok=True)
    prediction_path = folder / f"{found.name}_pred.nii.gz"
    reconstruction_path = folder / f"{found.name}_reconstruction.nii.gz"
    write_labels(prediction_path, prediction, image)
    write_labels(reconstruction_path, restore_labels(rebuilt, geometry, config.method.resampling), image)

    row: CaseRow = dict.fromkeys(NUMBER_COLUMNS, math.nan)  # some stay so, where there is no truth
    row |= {
        "segmenter": arm.networks.name,
        "view": arm.data.view,
        "stage": stage,
        "subject": found.subject,
        "phase": found.phase,
        "part": subject.part,
        "disease": subject.disease,
        "vendor": subject.vendor,
        "flag": "erroneous" if "erroneous" in kinds else "suspicious" if kinds else "",
        "reason": "; ".join(flag.reason for flag in raised),
        "image_path": beside(found.image_path, arm.folder),
        "label_path": beside(found.label_path, arm.folder),
        "prediction_path": beside(prediction_path, arm.folder),
        "reconstruction_path": beside(reconstruction_path, arm.folder),
    }
    row |= _volumes("volume_{}_ml", prediction, image.spacing_mm)
    for structure, dc, hd in zip(CARDIAC, pdc, phd, strict=True):
        row |= {f"pdc_{structure.key}": float(dc), f"phd_{structure.key}_mm": float(hd)}
    if quality is not None:
        row |= predicted_columns(quality, mask, rebuilt_mask, geometry.spacing_mm)
    if found.label_path is not None:
        truth = read_labels(found.label_path, like=image).array
        row |= case_metrics(prediction, truth, image.spacing_mm)
        row |= _volumes("truth_volume_{}_ml", truth, image.spacing_mm)
    return row


def _volumes(column: str, labels: np.ndarray, spacing_mm: tuple[float, float, float]) -> CaseRow:
    return {column.format(s.key): volume_ml(labels == s.id, spacing_mm) for s in CARDIAC}
