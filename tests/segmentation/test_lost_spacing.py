"""A pixel size that was lost: when it looks so, and which one is taken."""

from pathlib import Path

import numpy as np
import pytest

from qcjax.data.subject import Volume
from qcjax.labels import CARDIAC
from qcjax.segmentation.lost_spacing import CANDIDATES_MM, likely_pixel_mm, looks_lost
from qcjax.segmentation.model import Model


def volume(*shape: int) -> Volume:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return Volume(array, (1.0, 1.0, 1.0), np.eye(4), Path("image"))


def test_only_1_mm_along_all_axes_looks_lost() -> None:
    assert looks_lost((1.0, 1.0, 1.0))
    assert not looks_lost((1.0, 1.0, 8.0))
    assert not looks_lost((1.25, 1.25, 1.0))


@pytest.mark.parametrize("right", CANDIDATES_MM)
def test_the_size_is_taken_at_which_the_network_is_surest(right: float) -> None:
    asked = []

    def predict(v: Volume) -> np.ndarray:
        asked.append(v.array.shape[2])
        sure = 0.9 if v.spacing_mm[0] == right else 0.6
        found = np.full((4, 8, 8, 4), (1 - sure) / 3)
        for i in range(4):
            found[i, ..., i] = sure
        return found

    assert likely_pixel_mm(volume(8, 8, 9), predict, CARDIAC) == right
    assert asked == [4] * len(CANDIDATES_MM)


def test_masks_stay_on_the_images_grid_and_the_note_says_the_size(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcjax.segmentation.model.likely_pixel_mm", lambda *args: 1.5)
    model, image = Model.load(model_folder, 1), volume(96, 80, 2)
    (prepared,) = model.prepare_frames([image])
    assert prepared.geometry.resampled == (round(80 * 1.5 / 3.6), round(96 * 1.5 / 3.6))
    assert "as if it were 1.5 mm" in prepared.volume.notes[-1]
    result = model.segment(image.array, image.spacing_mm)
    assert result.labels.shape == image.array.shape
    counted = np.count_nonzero(result.labels == model.labels["lv"]) / 1000
    assert result.measures["lv"].volume_ml == pytest.approx(counted)  # in the header's millimetres
