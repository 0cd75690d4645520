"""The masks of many methods on test cases: judged by the monitor, by other means, and against the truth."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qcjax.data.datasets.acdc import STORED_LABELS
from qcjax.data.geometry import Orientation
from qcjax.data.nifti import read_grid, read_image, read_labels
from qcjax.data.subject import Case, Subject, Volume
from qcjax.data.write import write_labels
from qcjax.inference.monitor import Monitor, Score
from qcjax.labels import ACDC_LABELS, CARDIAC, remap
from qcjax.metrics.agreement import mean_pairwise_dice
from qcjax.metrics.surface import EmptyPolicy, case_metrics
from qcjax.monitoring.table import NUMBER_COLUMNS, MeasureRow
from qcjax.qc import contrast, rca
from qcjax.qc.anatomy import broken_rules
from qcjax.runtime.folder import beside


class Judged(NamedTuple):
    """One case: a row per method and structure, and what judging a mask took."""

    rows: list[MeasureRow]
    seconds: list[float]  # per mask, an equal share of its image's: preparing, rebuilding, measuring


def judge_case(
    monitor: Monitor,
    case: Case,
    disease: str,
    masks: Mapping[str, Path],
    run: Path,
) -> Judged:
    """Every method's mask of one image.

    Args:
      masks: method -> file in ACDC's label values; methods without a mask of this image are absent.
      run: the run's folder, which the reconstructions go to.

    Raises:
      InvalidFile: an image or a mask that can't be used.
    """
    image = read_image(case.image_path, monitor.orientation)
    volumes = {m: read_labels(p, ACDC_LABELS, like=image) for m, p in masks.items()}
    stacks = [np.ascontiguousarray(v.array.transpose(2, 1, 0)) for v in volumes.values()]
    agreement = (
        mean_pairwise_dice(stacks) if len(stacks) > 1 else np.full((len(stacks), len(CARDIAC)), np.nan)
    )
    truth = None if case.label_path is None else read_labels(case.label_path, ACDC_LABELS, like=image)
    rows: list[MeasureRow] = []
    started = time.perf_counter()
    scores = monitor.score_all([volume.array for volume in volumes.values()], image.spacing_mm)
    share = (time.perf_counter() - started) / max(1, len(scores))
    for i, (method, volume) in enumerate(volumes.items()):
        score = scores[i]
        path = run / "reconstructions" / method / f"{case.subject}_{case.phase}.nii.gz"
        write_labels(path, remap(score.reconstruction, STORED_LABELS), image)
        common = {
            "method": method,
            "subject": case.subject,
            "phase": case.phase,
            "disease": disease,
            "image_path": beside(case.image_path, run),
            "label_path": beside(case.label_path, run),
            "mask_path": beside(masks[method], run),
            "reconstruction_path": beside(path, run),
        }
        rows += [
            common | row for row in _structure_rows(score, stacks[i], volume, image, truth, agreement[i])
        ]
    return Judged(rows, [share] * len(scores))


def _structure_rows(
    score: Score,
    stack: np.ndarray,
    mask: Volume,
    image: Volume,
    truth: Volume | None,
    agreement: np.ndarray,
) -> Iterator[MeasureRow]:
    broken = broken_rules(stack, image.spacing_mm[::-1])
    doubts = contrast.doubts(image.array.transpose(2, 1, 0), stack)
    empty: EmptyPolicy = "nan" if score.unit == "mm" else "original"  # as the pseudo measures
    real = {} if truth is None else case_metrics(mask.array, truth.array, image.spacing_mm, empty=empty)
    for i, structure in enumerate(CARDIAC):
        key = structure.key
        flags = [flag for flag in score.flags if flag.structure == key]
        rules = [b.reason for b in broken if b.structure == key]
        row: MeasureRow = dict.fromkeys(NUMBER_COLUMNS, math.nan)
        row |= {
            "structure": key,
            "distance_unit": score.unit,
            "pdc": float(score.pdc[i]),
            "phd": float(score.phd[i]),
            "flag": flags[0].kind if flags else "",
            "reason": "; ".join(flag.reason for flag in flags),
            "agreement": float(agreement[i]),
            "rules": "; ".join(rules),
            "n_rules": len(rules),
            "suspicion": score.suspicion,
            "doubt": float(doubts[i]),
        }
        if truth is not None:
            hd = real[f"hd_{key}_{score.unit}"]  # of preset original inf where a structure is missing
            row |= {"dc": real[f"dc_{key}"], "hd": hd if math.isfinite(hd) else math.nan}
        yield row


def judge_by_rca(
    case: Case,
    masks: Mapping[str, Path],
    training: Sequence[Subject],
    n: int,
    unit: str = "mm",
    orientation: Orientation | None = None,
) -> dict[str, list[tuple[float, float]]]:
    """Reverse classification accuracy of every method's mask of one image.

    Args:
      training: subjects with truth; the references are the n nearest in size, in the same phase.
      unit: of the distances, "mm" or "voxels": that of what they stand beside.
      orientation: what the axes of all are brought to; None: as stored, but for the slices.

    Returns:
      method -> (Dice, Hausdorff distance) per structure.

    Raises:
      ImportError: SimpleITK is missing.
      ValueError: fewer than n subjects.
    """
    candidates = [c for s in training for c in s.cases if c.phase == case.phase and c.label_path]
    grids = [read_grid(c.image_path) for c in candidates]
    chosen = [candidates[i] for i in rca.nearest_in_size(read_grid(case.image_path), grids, n)]
    references = []
    for reference in chosen:
        image = read_image(reference.image_path, orientation)
        assert reference.label_path is not None
        truth = read_labels(reference.label_path, ACDC_LABELS, like=image)
        references.append(rca.Reference(image, truth.array))
    test = read_image(case.image_path, orientation)
    arrays = {m: read_labels(p, ACDC_LABELS, like=test).array for m, p in masks.items()}
    found = rca.estimate(arrays, test, references, unit=unit)
    return {m: list(zip(e.dc.tolist(), e.hd_mm.tolist(), strict=True)) for m, e in found.items()}
