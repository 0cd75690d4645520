"""What the folds' networks make of subjects that they haven't seen: measures of every case, and their summary."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from qcjax.data.cohort import Cohort
from qcjax.data.nifti import read_image, read_labels
from qcjax.data.preprocess import restore_labels
from qcjax.data.write import write_labels
from qcjax.inference.monitor import Monitor
from qcjax.inference.signals import signals_of
from qcjax.labels import Structure
from qcjax.metrics.clinical import volume_ml
from qcjax.metrics.statistics import bootstrap_weights, interval_95
from qcjax.metrics.surface import case_metrics
from qcjax.qc.components import keep_largest
from qcjax.qc.confidence import ConfidenceSums, confidence_sums
from qcjax.quality.model import Estimate, KnownCase
from qcjax.runtime.arrays import write_arrays
from qcjax.segmentation.turns import judge_turned

RESAMPLES = 2000
MEASURES = ("dice", "hd_mm", "hd95_mm", "pdc", "phd_mm", "volume_ml", "true_volume_ml")
Record = dict[str, Any]


def judge_case(
    cohort: Cohort,
    number: int,
    probabilities: Float[np.ndarray, "slices size size k"],
    monitor: Monitor,
    mapping: dict[int, int],
    single: Sequence[Structure],
    direction: complex | None = None,
    keep: Callable[[str], Path] | None = None,
) -> Record:
    """A case's measures against its truth, on the image's own grid, and what the monitor says without it.

    Args:
      probabilities: (slices, size, size, 1 + k), of a network that hasn't seen the case.
      mapping: label value in the files -> id of the structure.
      single: structures of which only the largest piece counts.
      direction: of the RV as seen from the LV, in the monitor's training masks.
      keep: a file's ending -> where mask and probabilities of this case are kept; None: nowhere.
    """
    case, structures = cohort.cases[number], monitor.structures
    assert case.label_path is not None
    image = read_image(case.image_path, monitor.orientation)
    truth = read_labels(case.label_path, mapping, like=image)
    mask = keep_largest(restore_labels(probabilities, cohort.geometries[number]), single)
    spacing = image.spacing_mm
    measured = case_metrics(mask, truth.array, spacing, structures)
    score = judge_turned(monitor, mask, spacing, direction)
    sums = ConfidenceSums(*(x[None] for x in confidence_sums(probabilities)))
    signals = signals_of(mask, spacing, score, sums)
    record: Record = {"case": case.name, "subject": case.subject, "phase": case.phase, "structures": {}}
    for i, s in enumerate(structures):
        values = (measured[f"dc_{s.key}"], measured[f"hd_{s.key}_mm"], measured[f"hd95_{s.key}_mm"])
        volumes = (volume_ml(x == s.id, spacing) for x in (mask, truth.array))
        found = (*values, float(score.pdc[i]), float(score.phd[i]), *volumes)
        record["structures"][s.key] = dict(zip(MEASURES, rounded(found), strict=True))
    record["signals"] = {name: rounded(values) for name, values in signals.items()}
    record["verdict"] = score.verdict
    (record["suspicion"],) = rounded([score.suspicion])
    if keep is not None:
        stored = {inside: value for value, inside in mapping.items()}
        by_id = np.array([stored[i] for i in range(1 + len(structures))])
        write_labels(keep(".nii.gz"), by_id[mask], image, 1)
        write_arrays(keep(".safetensors"), {"probabilities": probabilities.astype(np.float16)})
    return record


@dataclass(frozen=True)
class Example:
    """A case that a network hasn't seen, in arrays (x, y, slices) of one grid, ids of structures."""

    name: str
    image: np.ndarray
    mask: np.ndarray
    reconstruction: np.ndarray
    truth: np.ndarray
    spacing_mm: tuple[float, float, float]


def typical(records: Sequence[Record]) -> int:
    """The place of the case whose mean Dice over its structures is the median, among records."""
    dice = [np.mean([v["dice"] or 0 for v in record["structures"].values()]) for record in records]
    return int(np.argsort(dice, kind="stable")[len(dice) // 2])


def example_of(
    cohort: Cohort,
    number: int,
    probabilities: Float[np.ndarray, "s h w k"],
    monitor: Monitor,
    mapping: dict[int, int],
    direction: complex | None,
) -> Example:
    """A case with its mask and what the monitor rebuilds of it; arguments as of `judge_case`."""
    case = cohort.cases[number]
    assert case.label_path is not None
    image = read_image(case.image_path, monitor.orientation)
    truth = read_labels(case.label_path, mapping, like=image).array
    mask = restore_labels(probabilities, cohort.geometries[number])
    rebuilt = judge_turned(monitor, mask, image.spacing_mm, direction).reconstruction
    return Example(case.name, image.array, mask, rebuilt, truth, image.spacing_mm)


def rounded(values: Iterable[float]) -> list[float | None]:
    """Numbers as records keep them: to five digits, None where they aren't finite."""
    return [round(float(v), 5) if np.isfinite(v) else None for v in values]


def known_case(record: Record) -> KnownCase:
    """What predicted quality learns from a case's record."""
    of = record["structures"].values()
    dice, hd_mm = ([found[m] for found in of] for m in ("dice", "hd_mm"))
    return KnownCase(record["subject"], record["signals"], dice, hd_mm)


def reference_of(
    records: Sequence[Record], estimates: Sequence[Mapping[str, Estimate]] | None
) -> dict[str, dict[str, list[float]]]:
    """What `quality.drift` compares cohorts with: values of held-out masks by measure and structure, rising."""
    found: dict[str, dict[str, list[float]]] = {}
    for key in records[0]["structures"]:
        for measure in ("volume_ml", "pdc"):
            values = [record["structures"][key][measure] for record in records]
            found.setdefault(measure, {})[key] = sorted(v for v in values if v is not None)
        if estimates is not None:
            dice = [round(e[key].dice, 4) for e in estimates if np.isfinite(e[key].dice)]
            found.setdefault("predicted_dice", {})[key] = sorted(dice)
    return found


def interval(values: Mapping[str, Sequence[float | None]]) -> Record:
    """Mean of a measure over all cases with its 95 % interval by bootstrap over subjects, and how many lack it.

    Args:
      values: subject -> its cases' values; None where undefined.
    """
    sums = np.array([sum(v for v in of if v is not None) for of in values.values()], float)
    counts = np.array([sum(v is not None for v in of) for of in values.values()], float)
    missing = sum(v is None for of in values.values() for v in of)
    if not counts.sum():
        return {"mean": None, "low": None, "high": None, "n": 0, "n_missing": missing}
    weights = bootstrap_weights(len(sums), RESAMPLES, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = interval_95((weights @ sums) / (weights @ counts))
    mean = float(sums.sum() / counts.sum())
    return {"mean": mean, "low": low, "high": high, "n": int(counts.sum()), "n_missing": missing}


def bland_altman(found: Sequence[float], true: Sequence[float]) -> Record:
    """Mean difference of two measurements of the same, and the limits of agreement: mean ± 1.96 sd."""
    difference = np.asarray(found, float) - np.asarray(true, float)
    sd = float(difference.std(ddof=1)) if difference.size > 1 else float("nan")
    bias = float(difference.mean())
    return {"bias": bias, "sd": sd, "low": bias - 1.96 * sd, "high": bias + 1.96 * sd, "n": difference.size}


def summarise(records: Sequence[Record], keys: Sequence[str]) -> Record:
    """Per structure: Dice, HD, HD95 and pDC with intervals, and how the volumes agree."""
    found: Record = {}
    for key in keys:
        own: dict[str, list[Record]] = {}
        for record in records:
            own.setdefault(record["subject"], []).append(record["structures"][key])
        every = [v for of in own.values() for v in of]
        found[key] = {
            m: interval({subject: [v[m] for v in of] for subject, of in own.items()})
            for m in ("dice", "hd_mm", "hd95_mm", "pdc")
        }
        found[key]["volume_ml"] = bland_altman(
            [v["volume_ml"] for v in every], [v["true_volume_ml"] for v in every]
        )
    return found
