"""Pictures of cases in the uncertainty report: image, truth, the arms' masks and their variance maps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Integer
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from qcjax.data.nifti import read_image, read_labels
from qcjax.labels import CAVITY, EMIDEC, EMIDEC_LABELS
from qcjax.metrics.infarct import thirds
from qcjax.report import style
from qcjax.report.columns import Row
from qcjax.report.pictures import overlay, prepare_slice, show_image

DRAWN = tuple(
    structure for structure in EMIDEC if structure != CAVITY
)  # the myocardium's outline shows the cavity
VARIANCE_MAP = "inferno"
SHOWN_SHARE = 99.9  # percentile of the shown variance that is the brightest


@dataclass(frozen=True)
class CaseVolumes:
    """Volumes of one case, all (x, y, slices) on one grid."""

    image: np.ndarray
    truth: np.ndarray | None
    masks: Mapping[str, np.ndarray]  # arm -> label map
    variances: Mapping[str, np.ndarray]  # arm -> variance of the samples
    pixel_mm: tuple[float, float]  # (x, y)

    @property
    def guide(self) -> Integer[np.ndarray, "x y slices"]:
        """The label map that tells where the heart is: the truth, else the last arm's."""
        return self.truth if self.truth is not None else list(self.masks.values())[-1]


def load_case(rows: Mapping[str, Row], run_dir: Path) -> CaseVolumes | None:
    """What the rows of a case name, arm by arm.

    Args:
      rows: arm -> any of its rows for the case.
      run_dir: where relative paths start.

    Returns:
      None where the image or every mask is not named or not there.

    Raises:
      ValueError: a file that can't be read, or lies on another grid than the image.
    """

    def path(arm: str, column: str) -> Path | None:
        name = rows[arm][column]
        return run_dir / name if name and (run_dir / name).is_file() else None

    arms = list(rows)
    image_path = next((found for arm in arms if (found := path(arm, "image_path"))), None)
    label_path = next((found for arm in arms if (found := path(arm, "label_path"))), None)
    mask_paths = {arm: found for arm in arms if (found := path(arm, "mask_path"))}
    if image_path is None or not mask_paths:
        return None
    image = read_image(image_path)
    variances = {arm: read_image(found).array for arm in mask_paths if (found := path(arm, "variance_path"))}
    for arm, values in variances.items():
        if values.shape != image.array.shape:
            raise ValueError(
                f"{path(arm, 'variance_path')}: shape {values.shape} found, "
                f"expected {image.array.shape} as in {image_path}"
            )
    return CaseVolumes(
        image.array,
        read_labels(label_path, EMIDEC_LABELS, image).array if label_path else None,
        {arm: read_labels(found, EMIDEC_LABELS, image).array for arm, found in mask_paths.items()},
        variances,
        image.spacing_mm[:2],
    )


def position_slices(case: CaseVolumes) -> dict[str, int]:
    """The middle slice of each third of the heart, counted from 0."""
    parts = thirds(np.moveaxis(case.guide, 2, 0))
    return {position: int(found[len(found) // 2]) for position, found in parts.items() if len(found)}


def most_uncertain_slice(case: CaseVolumes) -> int:
    """Where the arms' variance has the largest sum; without variance the slice with most infarction."""
    maps = list(case.variances.values()) or [np.isin(case.guide, (3, 4)).astype(np.float32)]
    of_slice = sum(values.sum(axis=(0, 1), dtype=np.float64) for values in maps)
    return int(np.argmax(of_slice))


@matplotlib.rc_context(style.STYLE)
def draw_case(case: CaseVolumes, slices: Mapping[str, int], path: Path, dpi: int = 120) -> Path:
    """Two lines per slice: image and the arms' masks; truth and, below each mask, its variance map.

    Uncertainty paper, Fig. 3. All variance maps share one scale.

    Args:
      slices: what a slice is called -> its number, counted from 0.

    Returns:
      `path`, where the picture is.
    """
    arms = list(case.masks)
    lines = 2 if case.truth is not None or case.variances else 1
    columns = 1 + len(arms)
    side_in = style.WIDTH_IN / columns
    height_in = len(slices) * lines * (side_in + 0.17) + 0.8
    no_ticks: dict[str, Any] = {
        "xticks": [],
        "yticks": [],
    }  # laying out ticks that nobody sees takes half of the time
    figure, axes = style.new_figure(height_in, lines * len(slices), columns, subplot_kw=no_ticks)
    known = [case.truth] if case.truth is not None else []
    labels = (*case.masks.values(), *known)
    top = _brightest(case, slices.values())
    drawn = None
    for block, (name, number) in enumerate(slices.items()):
        shown = prepare_slice(case.image, labels, case.pixel_mm, number, EMIDEC)
        upper = axes[lines * block]
        show_image(upper[0], shown, f"{name}, slice {shown.number} of {shown.of}")
        for axis, arm, mask in zip(upper[1:], arms, shown.labels, strict=False):
            show_image(axis, shown, arm)
            overlay(axis, mask, DRAWN)
        if lines == 1:
            continue
        lower = axes[lines * block + 1]
        if known:
            show_image(lower[0], shown, "ground truth")
            overlay(lower[0], shown.labels[-1], DRAWN)
        else:
            lower[0].axis("off")
        for axis, arm, mask in zip(lower[1:], arms, shown.labels, strict=False):
            if arm in case.variances:
                variance = prepare_slice(case.variances[arm], labels, case.pixel_mm, number, EMIDEC)
                drawn = _show_variance(axis, variance.image, variance.pixel_mm, top, f"variance, {arm}")
                _outline(axis, mask > 1)
            else:
                axis.axis("off")
    if drawn is not None:
        every = [axis for row in axes for axis in row]
        bar = figure.colorbar(
            drawn, ax=every, location="bottom", shrink=0.55, aspect=34, pad=0.01, anchor=(1, 0.5),
            ticks=MaxNLocator(3), format="%.2g",
        )  # fmt: skip
        bar.set_label("variance of the samples", fontsize=9)
    return style.save(figure, path, dpi=dpi)


def _brightest(case: CaseVolumes, numbers: Iterable[int]) -> float:
    shown = list(numbers)
    planes = [values[:, :, number] for values in case.variances.values() for number in shown]
    top = max((float(np.percentile(plane, SHOWN_SHARE)) for plane in planes), default=0.0)
    return max(top, 1e-6)


def _show_variance(
    axis: Axes, variance: np.ndarray, pixel_mm: tuple[float, float], top: float, title: str
) -> AxesImage:
    drawn = axis.imshow(
        variance,
        cmap=VARIANCE_MAP,
        vmin=0,
        vmax=top,
        aspect=pixel_mm[0] / pixel_mm[1],
        interpolation="nearest",
    )
    axis.set_title(title, fontweight="normal", fontsize=10)
    axis.axis("off")
    return drawn


def _outline(axis: Axes, mask: np.ndarray) -> None:
    """The myocardium's border as a faint line, to see where a map's voxels lie."""
    if mask.any() and not mask.all():
        axis.contour(mask.astype(float), levels=[0.5], colors=["white"], linewidths=0.6, alpha=0.55)
