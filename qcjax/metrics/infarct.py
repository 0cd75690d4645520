"""EMIDEC's measures of myocardium, infarction and no-reflow, also by slice position (Lalande et al., Data 2020).

Label maps are (slices, h, w): 0 background, 1 cavity, 2 normal myocardium, 3 infarction, 4 no-reflow. What is
scored are the regions of `labels.EMIDEC_REGIONS`: the myocardium includes what is infarcted, and the infarction
its no-reflow. Where only one of two masks has a region, or neither, the project's policy holds: Dice 0 and
distance NaN, or Dice 1 and distance 0.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from qcjax.labels import EMIDEC_REGIONS
from qcjax.metrics.calibration import check_probabilities
from qcjax.metrics.overlap import check_label_maps, joint_box, mask_dice
from qcjax.metrics.surface import Spacing, hausdorff_distance, positive_spacing

POSITIONS = ("apical", "mid", "basal")
MARGIN_MM = 10.0  # of the heart's box in plane
_TAPER = 0.9  # a ventricle whose ends differ by less than 10 % tells nothing about where its apex is
_MYOCARDIUM = next(i for i, region in enumerate(EMIDEC_REGIONS) if region.key == "myocardium")


def thirds(truth: Integer[np.ndarray, "s h w"]) -> dict[str, Int[np.ndarray, " _"]]:
    """The slices with myocardium, in three parts: "apical", "mid" and "basal".

    As even as possible: what is left over is the middle's (one slice) or the two ends' (two), so that the parts
    don't depend on the order of the slices; one slice is mid, two are apical and basal.

    The apex is at the end where the left ventricle, cavity and myocardium, is smaller, by its mean area over a
    third of the slices. Ends that differ by less than 10 % don't tell; the first slice is then the apex, as it
    is in all files of EMIDEC.

    Args:
      truth: true label map.

    Returns:
      Ascending slice indices of each part; none where there is no slice for it.
    """
    slices = np.flatnonzero((truth > 1).any(axis=(1, 2)))
    n = len(slices)
    end = (n + 1) // 3
    first, last = slices[:end], slices[n - end :]
    area = np.count_nonzero(truth, axis=(1, 2))
    if area[last].sum() < _TAPER * area[first].sum():
        first, last = last, first
    return {"apical": first, "mid": slices[end : n - end], "basal": last}


def heart_box(
    labels: Integer[np.ndarray, "s h w"], spacing_mm: Spacing, margin_mm: float = MARGIN_MM
) -> tuple[slice, slice, slice]:
    """The box of all that isn't background, with a margin in plane, cut off at the border.

    Probabilities are averaged in it, because a score over the whole image measures mostly how much background
    there is. It is to come from the true labels, so that it is the same for every model that is compared.

    Args:
      labels: label map; one without any label has the whole array as its box.
      spacing_mm: (s, h, w).
      margin_mm: at least so wide, in whole voxels; none across slices.

    Raises:
      ValueError: a spacing that isn't three positive values, or a negative margin.
    """
    spacing = positive_spacing(spacing_mm, 3)
    if not margin_mm >= 0:
        raise ValueError(f"margin_mm: {margin_mm} found, expected at least 0")
    occupied = labels != 0
    if not occupied.any():
        return slice(0, labels.shape[0]), slice(0, labels.shape[1]), slice(0, labels.shape[2])
    rows, h, w = joint_box(occupied, occupied)
    margins = [math.ceil(margin_mm / step - 1e-9) for step in spacing[1:]]
    h, w = (
        slice(max(0, part.start - margin), min(size, part.stop + margin))
        for part, margin, size in zip((h, w), margins, labels.shape[1:], strict=True)
    )
    return rows, h, w


def score_case(
    predicted: Integer[np.ndarray, "s h w"],
    truth: Integer[np.ndarray, "s h w"],
    probabilities: Float[np.ndarray, "s h w k"],
    spacing_mm: Spacing,
) -> list[dict[str, str | float]]:
    """Every measure of one case, of the whole stack and of each third of it, for each region.

    A position is scored as a stack of its own: what is predicted in slices without true myocardium counts in
    the whole stack only. Its slices are those of `thirds`; a position without any has no rows.

    Args:
      predicted, truth: label maps of one shape.
      probabilities: of the k classes 0 … k - 1, on the same grid.
      spacing_mm: (s, h, w); across slices from centre to centre.

    Returns:
      A row per position ("all", then "apical", "mid", "basal") and region: ``position``, ``structure``, ``dc``,
      ``hd_mm``, ``volume_ml`` (predicted), ``true_volume_ml``, ``volume_error_ml`` (absolute difference),
      ``volume_error_percent`` (absolute difference of the region's shares of the myocardium, in percentage
      points; NaN for what isn't part of it, and where only one map has any myocardium; 0 where neither has),
      ``brier`` (of the region as a binary one, mean over the `heart_box` of the position's true labels) and
      ``brier_volume`` (over all voxels of its slices).

    Raises:
      ValueError: shapes differ, labels that aren't among the classes, a spacing that isn't three positive
        values, or probabilities outside [0, 1] or NaN.
    """
    spacing = positive_spacing(spacing_mm, 3)
    member = _membership(predicted, truth, probabilities)
    squares = np.square(probabilities @ member.astype(probabilities.dtype) - member[truth])
    rows: list[dict[str, str | float]] = []
    for position, slices in ({"all": np.arange(len(truth))} | thirds(truth)).items():
        if not len(slices):
            continue
        block = slice(int(slices[0]), int(slices[-1]) + 1)
        keep = np.isin(np.arange(block.start, block.stop), slices)
        rows += _score_stack(
            position,
            np.where(keep[:, None, None], predicted[block], 0),  # slices between keep their distance
            np.where(keep[:, None, None], truth[block], 0),
            squares[block][keep],
            truth[block][keep],
            member,
            spacing,
        )
    return rows


def _membership(
    predicted: np.ndarray, truth: np.ndarray, probabilities: np.ndarray
) -> Bool[np.ndarray, "k regions"]:
    """Which class belongs to which region, once the arrays are found to go together."""
    check_label_maps(predicted, truth)
    *space, k = probabilities.shape
    if tuple(space) != truth.shape:
        raise ValueError(
            f"probabilities of shape {probabilities.shape} found, expected {truth.shape} and an axis of classes"
        )
    needed = 1 + max(max(region.ids) for region in EMIDEC_REGIONS)
    if k < needed:
        raise ValueError(f"probabilities of {k} classes found, expected {needed}")
    for name, labels in (("predicted", predicted), ("truth", truth)):
        if labels.size and not (labels.min() >= 0 and labels.max() < k):
            raise ValueError(
                f"{name}: labels {labels.min()} to {labels.max()} found, expected classes 0 to {k - 1}"
            )
    check_probabilities(probabilities)
    return np.array([[i in region.ids for region in EMIDEC_REGIONS] for i in range(k)])


def _score_stack(
    position: str,
    predicted: np.ndarray,
    truth: np.ndarray,
    squares: Float[np.ndarray, "slices h w regions"],
    heart: np.ndarray,
    member: np.ndarray,
    spacing: np.ndarray,
) -> list[dict[str, str | float]]:
    """Rows of one position: `squares` are the squared errors in its slices, `heart` their true labels."""
    voxel_ml = float(np.prod(spacing)) / 1000
    brier = squares[heart_box(heart, spacing)].mean(axis=(0, 1, 2), dtype=np.float64)
    brier_volume = squares.mean(axis=(0, 1, 2), dtype=np.float64)
    crop = (slice(None), *(_widened(part) for part in joint_box(predicted, truth)[1:]))
    masks = [(member[:, i][predicted[crop]], member[:, i][truth[crop]]) for i in range(len(EMIDEC_REGIONS))]
    sizes = [(int(np.count_nonzero(a)), int(np.count_nonzero(b))) for a, b in masks]
    rows: list[dict[str, str | float]] = []
    for i, region in enumerate(EMIDEC_REGIONS):
        (a, b), (size_a, size_b) = masks[i], sizes[i]
        part_of_wall = region.ids < EMIDEC_REGIONS[_MYOCARDIUM].ids
        rows.append(
            {
                "position": position,
                "structure": region.key,
                "dc": mask_dice(a, b),
                "hd_mm": hausdorff_distance(a, b, spacing),
                "volume_ml": size_a * voxel_ml,
                "true_volume_ml": size_b * voxel_ml,
                "volume_error_ml": abs(size_a - size_b) * voxel_ml,
                "volume_error_percent": _share_error(sizes[i], sizes[_MYOCARDIUM])
                if part_of_wall
                else math.nan,
                "brier": float(brier[i]),
                "brier_volume": float(brier_volume[i]),
            }
        )
    return rows


def _share_error(part: tuple[int, int], wall: tuple[int, int]) -> float:
    """Difference of the predicted and the true share in percentage points; each pair is predicted, true."""
    if not all(wall):
        return math.nan if any(wall) else 0.0
    return 100 * abs(part[0] / wall[0] - part[1] / wall[1])


def _widened(part: slice) -> slice:
    """One element more at either end, so that no axis of a cropped mask has length 1 where the array's hasn't."""
    return slice(max(0, part.start - 1), part.stop + 1)
