"""Which slice and which part of it a picture shows, and which cases are chosen."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import nibabel
import numpy as np
import pytest

from qcjax.refinement.curves import draw_curves, draw_ood
from qcjax.refinement.examples import refinement_examples
from qcjax.refinement.pictures import draw_flagged
from qcjax.refinement.table import CaseRow
from qcjax.report.pictures import MARGIN_MM, prepare_slice

NewRow = Callable[..., CaseRow]
SHAPE = (60, 50, 3)


def heart(rv: tuple[int, int], lv: tuple[int, int]) -> np.ndarray:
    """A square RV and a square LV, centred at (x, y), in the middle slice."""
    labels = np.zeros(SHAPE, np.uint8)
    for label, (x, y) in ((3, rv), (1, lv)):
        labels[x - 3 : x + 4, y - 3 : y + 4, 1] = label
    return labels


@pytest.mark.parametrize(
    ("rv", "lv"), [((20, 25), (35, 25)), ((35, 25), (20, 25)), ((28, 15), (28, 30)), ((28, 30), (28, 15))]
)
def test_the_right_ventricle_is_on_the_left(rv: tuple[int, int], lv: tuple[int, int]) -> None:
    labels = heart(rv, lv)
    shown = prepare_slice(labels.astype(np.float32), (labels,), (1.0, 1.0), 1)
    columns = [np.argwhere(shown.labels[0] == label)[:, 1].mean() for label in (3, 1)]
    rows = [np.argwhere(shown.labels[0] == label)[:, 0].mean() for label in (3, 1)]
    assert columns[0] < columns[1] - 10
    assert rows[0] == rows[1]
    assert np.array_equal(shown.image, shown.labels[0])


def test_the_cut_is_square_in_mm_and_has_a_margin() -> None:
    labels = np.zeros((200, 200, 1), np.uint8)
    labels[90:110, 95:105, 0] = 3  # 20 x 20 mm at 1 x 2 mm
    shown = prepare_slice(labels.astype(np.float32), (labels,), (1.0, 2.0), 0)
    side_mm = 20 + 2 * MARGIN_MM
    height_mm, width_mm = (n * mm for n, mm in zip(shown.image.shape, shown.pixel_mm, strict=True))
    assert width_mm == side_mm
    assert abs(height_mm - side_mm) <= 2.0  # a pixel
    assert shown.pixel_mm == (2.0, 1.0)


def test_an_empty_mask_shows_the_whole_slice() -> None:
    image = np.ones(SHAPE, np.float32)
    shown = prepare_slice(image, (np.zeros(SHAPE, np.uint8),), (1.0, 1.0), 2)
    assert shown.image.shape == (50, 60)
    assert (shown.number, shown.of) == (3, 3)


def test_flagged_picture_paints_where_mask_and_reconstruction_differ(new_row: NewRow, tmp_path: Path) -> None:
    mask, rebuilt = heart((20, 25), (35, 25)), heart((20, 25), (35, 25))
    volumes = {"image": np.zeros(SHAPE, np.float32), "prediction": mask, "reconstruction": rebuilt}
    row = new_row(**{f"{name}_path": f"{name}.nii.gz" for name in volumes})

    def pink() -> int:
        for name, array in volumes.items():
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
        path = draw_flagged(row, tmp_path, tmp_path / "flagged.png")
        assert path is not None
        red, green, blue = (matplotlib.image.imread(path)[..., channel] for channel in range(3))
        return int(((red > 0.75) & (green < 0.3) & (blue > 0.6)).sum())

    assert pink() == 0
    rebuilt[17:24, 22:29, 1] = 0
    assert pink() > 500


def test_a_volume_of_another_shape_is_named(new_row: NewRow, tmp_path: Path) -> None:
    row = new_row(image_path="a.nii", prediction_path="b.nii", reconstruction_path="a.nii")
    for name, shape in (("a.nii", SHAPE), ("b.nii", (4, 4, 4))):
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / name)
    with pytest.raises(ValueError, match=r"b\.nii: shape \(4, 4, 4\) found, expected \(60, 50, 3\)"):
        draw_flagged(row, tmp_path, tmp_path / "flagged.png")


def test_examples_are_the_greatest_gain_and_loss(new_row: NewRow) -> None:
    before = [new_row(subject=name, dc_rv=0.5) for name in ("201", "202", "203", "204")]
    after = [
        new_row(subject=name, dc_rv=dc, stage="refined")
        for name, dc in (("204", 0.45), ("203", 0.2), ("202", 0.6), ("201", 0.9))
    ]
    gain, loss = refinement_examples(before, after)
    assert (gain.kind, gain.after["subject"], loss.kind, loss.after["subject"]) == (
        "gain",
        "201",
        "loss",
        "203",
    )
    assert [example.kind for example in refinement_examples(before[:2], after)] == ["gain"]
    assert refinement_examples(before, []) == []


def test_examples_go_by_pdc_without_truth(new_row: NewRow) -> None:
    (gain,) = refinement_examples([new_row(pdc_rv=0.5)], [new_row(pdc_rv=0.75)])
    assert "pDC 0.50 before, 0.75 after" in gain.words


def test_charts_without_data_are_not_drawn(tmp_path: Path) -> None:
    assert draw_curves([], ["segmenter"], tmp_path / "a.png") is None
    assert draw_ood({"nnunet": {"SA": {"thresholds": {}, "cases_after_k": []}}}, tmp_path / "b.png") is None
    assert not list(tmp_path.iterdir())
