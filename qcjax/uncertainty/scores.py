"""What is measured of one predicted volume: accuracy, calibration, uncertainty, and the monitor's opinion."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer

from qcjax.data.volumes import VolumeGeometry, restore_map, restore_volume
from qcjax.inference.monitor import Monitor
from qcjax.labels import EMIDEC_REGIONS
from qcjax.metrics.calibration import (
    Reliability,
    expected_calibration_error,
    region_probability,
    reliability,
    top_label_reliability,
)
from qcjax.metrics.infarct import heart_box, score_case, thirds
from qcjax.metrics.overlap import mask_dice
from qcjax.metrics.surface import hausdorff_distance
from qcjax.qc import uncertainty

REGIONS = tuple(tuple(sorted(r.ids)) for r in EMIDEC_REGIONS)


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one case, on the input file's own grid, and its scores."""

    labels: np.ndarray  # (x, y, slices) uint8, of the deterministic prediction
    mean_labels: np.ndarray  # of the samples' mean
    variance: np.ndarray  # (x, y, slices) float32
    rows: list[dict[str, Any]]
    reliability: dict[str, list[list[float]]]  # region -> confidence, frequency, count per bin


def judge_volume(
    probabilities: Float[np.ndarray, "s h w k"],
    samples: Float[np.ndarray, "n s h w k"],
    mask: Bool[np.ndarray, "s h w"],
    geometry: VolumeGeometry,
    truth: Integer[np.ndarray, "x y slices"],
    spacing_mm: tuple[float, float, float],
    monitor: Monitor | None,
) -> Prediction:
    """Score a deterministic prediction and dropout samples of a prepared volume against the truth.

    Args:
      probabilities: (s, h, w, k), deterministic.
      samples: (n, s, h, w, k).
      mask: (s, h, w) True for real voxels.
      geometry: of these s slices.
      truth: (x, y, slices) label map on the file's grid.
      spacing_mm: of that grid.
    """
    mean, variance, of_case = _of_case(samples, mask)
    labels = [restore_volume(p, geometry) for p in (probabilities, mean)]
    agreement = _agreement(samples.argmax(-1), mean.argmax(-1), truth, geometry)
    opinion = _opinion(monitor, labels[0], spacing_mm) if monitor else {}
    spacing = (spacing_mm[2], spacing_mm[1], spacing_mm[0])
    rows, calibrations = [], {}
    for name, values, segmented in zip(("deterministic", "mean"), (probabilities, mean), labels, strict=True):
        restored = _restored(values, geometry)
        stack, true_stack = segmented.transpose(2, 1, 0), truth.transpose(2, 1, 0)
        box = heart_box(true_stack, spacing)
        ece = expected_calibration_error(top_label_reliability(restored[box], true_stack[box]))
        for row in score_case(stack, true_stack, restored, spacing):
            position, structure = str(row["position"]), str(row["structure"])
            of_samples = agreement[position, structure]
            judged = opinion if name == "deterministic" and position == "all" else {}
            rows.append(
                {
                    "prediction": name,
                    **row,
                    **of_samples,
                    **judged.get(structure, {}),
                    **of_case,
                    "ece": ece,
                }
            )
        if name == "deterministic":
            calibrations = {
                r.key: _as_lists(
                    reliability(region_probability(restored[box], r.ids), r.inside(true_stack[box]))
                )
                for r in EMIDEC_REGIONS
            }
    return Prediction(labels[0], labels[1], restore_map(variance, geometry), rows, calibrations)


@jax.jit
def _measure(samples: Any, mask: Any) -> tuple[Any, Any, dict[str, Any]]:
    total = uncertainty.moments(samples[:, None])
    found, segmented, real = uncertainty.maps(total), total.mean.argmax(-1), mask[None]
    variance = uncertainty.aggregate(found.variance, segmented, real)

    def whole(values: Any) -> Any:
        return uncertainty.aggregate(values, segmented, real).whole

    of_case = {
        "variance": variance.whole,
        "variance_foreground": variance.foreground,
        "variance_interior": variance.interior,
        "entropy": whole(found.entropy),
        "expected_entropy": whole(total.entropy),
        "mutual_information": whole(found.mutual_information),
    }
    return total.mean[0], found.variance[0], of_case


def _of_case(samples: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """The samples' mean (s, h, w, k), their variance (s, h, w), and its and other measures' means over the case."""
    mean, variance, of_case = jax.device_get(_measure(samples, mask))
    return mean, variance, {key: float(value[0]) for key, value in of_case.items()}


def _agreement(
    samples: np.ndarray, mean: np.ndarray, truth: np.ndarray, geometry: VolumeGeometry
) -> dict[tuple[str, str], dict[str, float]]:
    """DiceWithinSamples and mean pairwise Dice of each region, over the stack and over each third of it."""
    places = {"all": np.arange(len(mean))}
    for position, slices in thirds(truth.transpose(2, 1, 0)).items():
        places[position] = np.flatnonzero(np.isin(_file_slices(geometry), slices))
    both = np.concatenate([mean[None], samples]).astype(np.uint8)
    overlap = np.asarray(_overlaps(both), np.float64)  # (slices, regions, 1 + n, 1 + n)
    found = {}
    for position, slices in places.items():
        within, pairwise = uncertainty.sample_dice(overlap[slices].sum(0))
        for region, a, b in zip(EMIDEC_REGIONS, within, pairwise, strict=True):
            found[position, region.key] = {"dice_within_samples": float(a), "pairwise_dice": float(b)}
    return found


_overlaps = jax.jit(partial(uncertainty.overlaps, regions=REGIONS))


def _file_slices(geometry: VolumeGeometry) -> np.ndarray:
    """The file's slice that each prepared slice shows most of."""
    first, last = geometry.plane.box[2]
    place = (np.arange(geometry.slices) + 0.5) * (last - first) / geometry.slices
    return first + np.floor(place).astype(int)


def _opinion(
    monitor: Monitor, labels: np.ndarray, spacing_mm: tuple[float, float, float]
) -> dict[str, dict[str, float]]:
    """Pseudo Dice and HD of each region, between the mask and its reconstruction.

    What a normal heart doesn't have may be absent from both: that is agreement.
    """
    rebuilt = monitor.score(labels, spacing_mm).reconstruction
    optional = [s.key for s in monitor.optional]
    found = {}
    for region in EMIDEC_REGIONS:
        a, b = region.inside(labels), region.inside(rebuilt)
        if not (a.any() or b.any() or region.key in optional):
            found[region.key] = {"pdc": 0.0, "phd_mm": np.nan}
        else:
            found[region.key] = {"pdc": mask_dice(a, b), "phd_mm": hausdorff_distance(a, b, spacing_mm)}
    return found


def _restored(probabilities: np.ndarray, geometry: VolumeGeometry) -> np.ndarray:
    """On the file's grid, (slices, h, w, k); background where the volume was cut off."""
    maps = [
        restore_map(probabilities[..., c], geometry).transpose(2, 1, 0)
        for c in range(1, probabilities.shape[-1])
    ]
    foreground = np.clip(np.stack(maps, -1), 0, 1)
    return np.concatenate([np.clip(1 - foreground.sum(-1, keepdims=True), 0, 1), foreground], -1)


def _as_lists(found: Reliability) -> list[list[float]]:
    return [np.asarray(x, float).tolist() for x in found]


def pooled_reliability(cases: Sequence[dict[str, list[list[float]]]]) -> dict[str, dict[str, list[float]]]:
    """The reliability of several cases together: region -> mean confidence, frequency and count per bin."""
    result = {}
    for region in EMIDEC_REGIONS:
        confidence, frequency, count = np.sum([case[region.key] for case in cases], axis=0)
        safe = np.maximum(count, 1)
        result[region.key] = {
            "confidence": (confidence / safe).tolist(),
            "frequency": (frequency / safe).tolist(),
            "count": count.tolist(),
        }
    return result
