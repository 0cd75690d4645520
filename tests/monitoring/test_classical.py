"""The segmentation without learning: plausible on phantoms, harmless on anything."""

from pathlib import Path

import numpy as np
import pytest

from qcjax.data.nifti import read_image, read_labels
from qcjax.data.subject import Volume
from qcjax.labels import ACDC_LABELS, LV, MYO, RV
from qcjax.metrics.overlap import dice
from qcjax.monitoring.classical import segment
from qcjax.phantom import make_subject


def volume(array: np.ndarray, spacing_mm: tuple[float, float, float] = (1.5, 1.5, 10.0)) -> Volume:
    return Volume(array, spacing_mm, np.diag([*spacing_mm, 1.0]), Path("image.nii.gz"))


def drawn(shift: tuple[int, int] = (0, 0), scale: float = 1.0) -> tuple[Volume, np.ndarray]:
    """A bright disc in a dark ring beside a bright crescent, and its labels."""
    x, y = np.indices((120, 110))
    x, y = x - 60 - shift[0], y - 55 - shift[1]
    labels = np.zeros((120, 110, 5), np.uint8)
    labels[np.hypot(x + 26, y) < 20] = RV.id
    labels[np.hypot(x, y) < 21] = MYO.id
    labels[np.hypot(x, y) < 15] = LV.id
    intensity = np.array([20.0, 200.0, 70.0, 190.0])[labels]
    image = intensity + np.random.default_rng(0).normal(0, 8, labels.shape)
    return volume((scale * image).astype(np.float32)), labels


@pytest.mark.parametrize(("shift", "scale"), [((0, 0), 1.0), ((8, -6), 1e4), ((-5, 10), 1e-3)])
def test_a_drawn_heart_is_segmented_whatever_its_place_and_its_intensities(
    shift: tuple[int, int], scale: float
) -> None:
    image, labels = drawn(shift, scale)
    found = segment(image)
    assert found.dtype == np.uint8
    assert found.shape == labels.shape
    assert (dice(found, labels) > [0.95, 0.8, 0.85]).all()


def test_structures_follow_the_spacing() -> None:
    image, labels = drawn()
    coarse = volume(image.array[::2, ::2], (3.0, 3.0, 10.0))
    assert (dice(segment(coarse), labels[::2, ::2]) > [0.85, 0.6, 0.7]).all()


def test_the_cavity_is_found_in_most_phantoms() -> None:
    scores = []
    for code in (1, 3, 5, 8, 161, 165):
        part = "train" if code <= 160 else "validation"
        for phase in ("ED", "ES"):
            made = make_subject(code, part, seed=0, matrix_scale=0.6).images["SA", phase]
            found = segment(volume(made.image.astype(np.float32), made.spacing_mm))
            slices = np.flatnonzero((made.label == LV.id).any(axis=(0, 1)))
            middle = slices[len(slices) // 2]
            scores.append(dice(found[..., middle], made.label[..., middle]))
    lv, myo, _ = np.array(scores).T
    assert np.mean(lv > 0.6) >= 0.75
    assert np.median(lv) > 0.8
    assert np.median(myo) > 0.6


def test_the_same_image_gives_the_same_labels() -> None:
    image, _ = drawn()
    assert np.array_equal(segment(image), segment(image))


@pytest.mark.parametrize("value", [0.0, 100.0, np.nan])
def test_a_constant_image_is_background(value: float) -> None:
    found = segment(volume(np.full((64, 64, 6), value, np.float32)))
    assert found.shape == (64, 64, 6)
    assert not found.any()


ODD = {
    "noise": np.random.default_rng(1).normal(size=(80, 70, 4)),
    "one slice": drawn()[0].array[..., :1],
    "tiny": np.arange(12.0).reshape(2, 2, 3),
    "one voxel": np.ones((1, 1, 1)),
    "no slice": np.ones((20, 20, 0)),
    "two axes": np.ones((20, 20)),
    "one bright pixel": np.pad(np.ones((1, 1, 3)), ((40, 40), (40, 40), (0, 0))),
    "infinite": np.where(np.arange(3600).reshape(30, 30, 4) % 7, 1.0, np.inf),
    "half bright": np.repeat(np.arange(80)[:, None, None] > 40, 80, axis=1) * np.ones((1, 1, 5)),
    "a bar": np.pad(np.ones((70, 4, 3)), ((5, 5), (38, 38), (0, 0))),
}


@pytest.mark.parametrize("name", ODD)
def test_no_image_raises(name: str) -> None:
    array = ODD[name].astype(np.float32)
    found = segment(volume(array))
    assert found.shape == array.shape
    assert found.dtype == np.uint8
    assert found.max(initial=0) <= 3


def test_real_cavities_are_found_in_most(real_data: Path) -> None:
    scores = []
    for number in range(1, 101, 12):
        folder = real_data / "acdc" / "training" / f"patient{number:03d}"
        label_path = min(folder.glob("*_gt.nii.gz"))
        labels = read_labels(label_path, ACDC_LABELS).array
        image = read_image(label_path.with_name(label_path.name.replace("_gt", "")))
        scores.append(dice(segment(image), labels))
    assert np.median(scores, axis=0)[0] > 0.6
