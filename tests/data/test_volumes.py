"""Volumes there and back: geometry by hand, independent oracles, phantom hearts, real files."""

from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from qcjax.data.cohort import orientation_of
from qcjax.data.nifti import read_image, read_labels
from qcjax.data.preprocess import plan, prepare_image, prepare_labels, restore_labels
from qcjax.data.subject import Case, Subject, Volume
from qcjax.data.volumes import (
    VolumeCohort,
    plan_volume,
    prepare_volume,
    prepare_volume_labels,
    prepare_volumes,
    restore_map,
    restore_volume,
    take_volumes,
)
from qcjax.labels import EMIDEC_LABELS
from tests.headers import store_otherwise
from tests.unchecked import unchecked

TARGET_MM = (10.0, 1.5, 1.5)


def volume(array: np.ndarray, spacing_mm: tuple[float, float, float]) -> Volume:
    return Volume(array, spacing_mm, np.diag([*spacing_mm, 1.0]), Path("volume.nii.gz"))


def heart(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """A cavity in a wall with an infarction and a core, narrowing towards the apex: (x, y, slices)."""
    x, y, z = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)), indexing="ij"
    )
    narrow = 1 - 0.25 * (z / (shape[2] * spacing_mm[2]) + 0.5)
    radius, angle = np.hypot(x, y) / narrow, np.arctan2(y, x)
    labels = np.zeros(shape, np.uint8)
    labels[radius < 36] = 2
    labels[(radius < 36) & (np.abs(angle) < 0.8)] = 3
    labels[(radius > 27) & (radius < 33) & (np.abs(angle) < 0.5)] = 4
    labels[radius < 24] = 1
    return labels


def as_image(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (50.0 + 40 * labels + rng.normal(0, 5, labels.shape)).astype(np.float32)


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(5, dtype=np.float32)[labels]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def test_the_plan_by_hand() -> None:
    image = np.zeros((40, 30, 9), np.float32)
    image[10:30, 4:28, 1:8] = 7  # 7 slices of 13 mm are 9.1 of 10 mm
    geometry = plan_volume(volume(image, (1.5, 1.0, 13.0)), TARGET_MM, 32, depth=12)
    assert (geometry.slices, geometry.depth, geometry.stack_shape) == (9, 12, (12, 32, 32))
    assert geometry.real == slice(1, 10)
    np.testing.assert_allclose(geometry.spacing_mm, (91 / 9, 1.5, 1.5))
    for slice_mm, slices in ((10.4, 7), (9.6, 7), (10.6, 7), (11.0, 8), (5.0, 4), (0.1, 1)):
        geometry = plan_volume(volume(image, (1.5, 1.0, slice_mm)), TARGET_MM, 32)
        assert (geometry.slices, geometry.depth) == (slices, slices)
    with pytest.raises(ValueError, match="volume.nii.gz: found an image of zeros"):
        plan_volume(volume(np.zeros((4, 4, 2), np.float32), TARGET_MM), TARGET_MM, 16)


def test_at_the_targets_slice_spacing_it_is_the_slices_preparation() -> None:
    labels = heart((70, 80, 5), (1.4, 1.25, 10.2))
    image = volume(as_image(labels), (1.4, 1.25, 10.2))
    geometry = plan_volume(image, TARGET_MM, 48, depth=8)
    plane = plan(image, TARGET_MM[1:], 48)
    stack, real = prepare_volume(image, geometry)
    prepared = prepare_volume_labels(volume(labels, image.spacing_mm), geometry)
    assert stack.dtype == np.float32 and prepared.dtype == np.uint8 and real.dtype == bool
    np.testing.assert_array_equal(stack[1:6], prepare_image(image, plane))
    np.testing.assert_array_equal(prepared[1:6], prepare_labels(volume(labels, image.spacing_mm), plane))
    for array in (stack, prepared, real):
        assert array.shape == (8, 48, 48) and not array[[0, 6, 7]].any()
    assert real[1:6].all()  # the image is larger than the square
    np.testing.assert_array_equal(
        restore_volume(one_hot(prepared), geometry), restore_labels(one_hot(prepared[1:6]), plane)
    )


def test_the_mask_is_where_the_image_is() -> None:
    image = np.zeros((20, 30, 4), np.float32)
    image[2:18, 5:25, 1:] = np.random.default_rng(0).uniform(1, 2, (16, 20, 3))
    geometry = plan_volume(volume(image, (1.5, 1.5, 13.0)), TARGET_MM, 24, depth=6)
    stack, real = prepare_volume(volume(image, (1.5, 1.5, 13.0)), geometry)
    expected = np.zeros((6, 24, 24), bool)
    expected[1:5, 2:22, 4:20] = True  # 3 slices of 13 mm are 4; h is y
    np.testing.assert_array_equal(real, expected)
    np.testing.assert_array_equal(stack != 0, expected)
    np.testing.assert_allclose((stack[real].mean(), stack[real].std()), (0, 1), atol=1e-5)


@pytest.mark.parametrize("slice_mm", [13.0, 6.0])
def test_slices_are_resampled_as_areas(slice_mm: float) -> None:
    """Against scipy's linear zoom along the slices; nothing changes in plane."""
    spacing_mm = (1.5, 1.5, slice_mm)
    labels = heart((64, 64, 7), spacing_mm)
    image = volume(as_image(labels), spacing_mm)
    geometry = plan_volume(image, TARGET_MM, 64)

    def zoom(array: np.ndarray) -> np.ndarray:
        factor = geometry.slices / array.shape[2]
        zoomed = ndimage.zoom(array, (1, 1, factor), order=1, mode="nearest", grid_mode=True)
        return zoomed.transpose(2, 1, 0)

    expected = zoom(image.array)
    stack, real = prepare_volume(image, geometry)
    np.testing.assert_allclose(stack, (expected - expected.mean()) / expected.std(), atol=1e-4)
    assert real.all()
    shares = np.stack([zoom((labels == c).astype(np.float64)) for c in range(5)])
    prepared = prepare_volume_labels(volume(labels, spacing_mm), geometry)
    clear = np.diff(np.sort(shares, axis=0)[-2:], axis=0)[0] > 1e-4  # ties fall either way
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(prepared[clear], shares.argmax(0)[clear])


def test_probabilities_and_maps_go_back_linearly_along_all_axes() -> None:
    spacing_mm = (1.2, 1.8, 13.0)
    image = volume(np.random.default_rng(1).uniform(1, 2, (50, 40, 5)).astype(np.float32), spacing_mm)
    geometry = plan_volume(image, TARGET_MM, 36, depth=9)  # cropped from 48 x 40 to 36 x 36
    assert geometry.plane.resampled == (48, 40) and geometry.slices == 6 and geometry.real == slice(1, 7)
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet([2.0, 1.0, 1.0], geometry.stack_shape).astype(np.float32)

    def back(values: np.ndarray, outside: float) -> np.ndarray:
        whole = np.full((6, 48, 40), outside, np.float32)
        whole[:, 6:42, 2:38] = values[1:7]
        return ndimage.zoom(
            whole, (5 / 6, 40 / 48, 50 / 40), order=1, mode="nearest", grid_mode=True
        ).transpose(2, 1, 0)

    found = restore_map(probabilities[..., 1], geometry)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, back(probabilities[..., 1], 0.0), atol=1e-5)
    expected = np.stack([back(probabilities[..., c], float(c == 0)) for c in range(3)])
    assert np.mean(restore_volume(probabilities, geometry) == expected.argmax(0)) > 0.999


def test_what_is_outside_of_the_box_or_the_square_is_background() -> None:
    image = np.zeros((40, 40, 6), np.float32)
    image[4:34, 8:38, 1:5] = np.random.default_rng(0).uniform(1, 2, (30, 30, 4))
    geometry = plan_volume(volume(image, (1.5, 1.5, 13.0)), TARGET_MM, 20, depth=8)
    everywhere = one_hot(np.full(geometry.stack_shape, 2))
    expected = np.zeros(image.shape)
    expected[9:29, 13:33, 1:5] = 1
    np.testing.assert_array_equal(restore_volume(everywhere, geometry), 2 * expected)
    np.testing.assert_allclose(restore_map(everywhere[..., 2], geometry), expected, atol=1e-6)


@pytest.mark.parametrize("spacing_mm, floor", [((1.46, 1.46, 10.0), 0.99), ((1.4, 1.4, 13.0), 0.95)])
def test_phantom_masks_there_and_back(spacing_mm: tuple[float, float, float], floor: float) -> None:
    labels = heart((120, 110, 7), spacing_mm)
    geometry = plan_volume(volume(as_image(labels), spacing_mm), (10.0, 1.458, 1.458), 96, depth=10)
    back = restore_volume(one_hot(prepare_volume_labels(volume(labels, spacing_mm), geometry)), geometry)
    found = [dice(back == c, labels == c) for c in (1, 2, 3, 4)]
    assert min(found) >= floor, found


def test_the_way_there_and_back_is_centred() -> None:
    """A slip by half a slice on either way would treat a volume and its mirror image differently."""
    spacing_mm = (1.5, 1.5, 13.0)
    labels = heart((60, 60, 7), spacing_mm)
    geometry = plan_volume(volume(as_image(labels), spacing_mm), TARGET_MM, 60)
    prepared = prepare_volume_labels(volume(labels, spacing_mm), geometry)
    mirrored = prepare_volume_labels(volume(labels[..., ::-1], spacing_mm), geometry)
    assert np.mean(mirrored == prepared[::-1]) > 0.999  # ties
    probabilities = one_hot(prepared) * 0.8 + 0.04
    back = restore_volume(probabilities, geometry)
    assert np.mean(restore_volume(probabilities[::-1], geometry) == back[..., ::-1]) > 0.999


def test_shapes_that_do_not_belong_together() -> None:
    given = volume(np.random.default_rng(0).uniform(1, 2, (8, 8, 4)).astype(np.float32), (1.5, 1.5, 13.0))
    other = volume(np.ones((8, 8, 3), np.float32), given.spacing_mm)
    for target in (TARGET_MM, (13.0, 1.5, 1.5)):
        geometry = plan_volume(given, target, 8)
        for call in (prepare_volume, prepare_volume_labels):
            with pytest.raises(ValueError, match=r"found shape \(8, 8, 3\); expected \(8, 8, 4\)"):
                call(other, geometry)
        shape = geometry.stack_shape
        with pytest.raises(ValueError, match=r"shape \(2, 8, 8, 5\); expected \("):
            restore_volume(np.zeros((2, 8, 8, 5), np.float32), geometry)
        with unchecked(), pytest.raises(ValueError, match="expected 4 axes"):
            restore_volume(np.zeros(shape, np.float32), geometry)
        with unchecked(), pytest.raises(ValueError, match="expected 3 axes"):
            restore_map(np.zeros((*shape, 5), np.float32), geometry)


@pytest.fixture
def subjects(tmp_path: Path) -> list[Subject]:
    """Three cases on grids of their own, labels as floats."""
    found = []
    for i, (slices, slice_mm) in enumerate([(4, 10.0), (5, 13.0), (3, 10.0)]):
        spacing_mm = (1.5, 1.4, slice_mm)
        labels = heart((70, 66, slices), spacing_mm)
        paths = tmp_path / f"image_{i}.nii.gz", tmp_path / f"label_{i}.nii.gz"
        affine = np.diag([*spacing_mm, 1.0])
        for path, array in zip(paths, (as_image(labels, i), labels.astype(np.float64)), strict=True):
            nib.save(nib.Nifti1Image(array, affine), path)
        found.append(Subject(f"{i}", "", "", "train", (Case(f"{i}", "SA", "ED", *paths),)))
    return found


def test_a_cohort_has_one_shape(subjects: list[Subject]) -> None:
    seen: list[None] = []
    cohort = prepare_volumes(subjects, TARGET_MM, 48, on_case=lambda: seen.append(None))
    assert len(seen) == 3 and [case.subject for case in cohort.cases] == ["0", "1", "2"]
    assert [g.slices for g in cohort.geometries] == [4, 6, 3] and {g.depth for g in cohort.geometries} == {6}
    for array, dtype in zip(cohort.volumes, (np.float32, np.uint8, bool), strict=True):
        assert array.shape == (3, 6, 48, 48) and array.dtype == dtype
    for i, (case, geometry) in enumerate(zip(cohort.cases, cohort.geometries, strict=True)):
        image, mask = prepare_volume(read_image(case.image_path), geometry)
        assert case.label_path is not None
        label = prepare_volume_labels(read_labels(case.label_path, EMIDEC_LABELS), geometry)
        for array, expected in zip(cohort.volumes, (image, label, mask), strict=True):
            np.testing.assert_array_equal(array[i], expected)
    assert set(np.unique(cohort.volumes.label)) == {0, 1, 2, 3, 4}

    batch = jax.jit(take_volumes)(cohort.volumes, np.array([2, 0]), np.array([1.0, 0.0]))
    np.testing.assert_array_equal(batch.image[..., 0], cohort.volumes.image[[2, 0]])
    np.testing.assert_array_equal(batch.label, cohort.volumes.label[[2, 0]])
    np.testing.assert_array_equal(batch.mask, cohort.volumes.mask[[2, 0]])
    assert batch.label.dtype == np.int32 and batch.weight.tolist() == [1, 0]


@pytest.mark.parametrize(("order", "signs"), [((1, 0, 2), (1, -1, 1)), ((2, 0, 1), (1, 1, -1))])
def test_a_file_that_is_stored_otherwise_is_prepared_alike(
    subjects: list[Subject], order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    def prepared() -> VolumeCohort:
        return prepare_volumes(subjects, TARGET_MM, 48, orientation=orientation_of(subjects, "SA"))

    as_it_was = prepared()
    for path in (subjects[1].cases[0].image_path, subjects[1].cases[0].label_path):
        assert path is not None
        store_otherwise(path, order, signs)
    found = prepared()
    np.testing.assert_allclose(found.volumes.image, as_it_was.volumes.image, atol=1e-5)
    np.testing.assert_array_equal(found.volumes.label, as_it_was.volumes.label)
    np.testing.assert_array_equal(found.volumes.mask, as_it_was.volumes.mask)


def test_without_labels_nothing_is_read_of_them(subjects: list[Subject]) -> None:
    with_truth = prepare_volumes(subjects, TARGET_MM, 48, depth=8)
    for subject in subjects:
        label_path = subject.cases[0].label_path
        assert label_path is not None
        label_path.write_bytes(b"not a file to be read")
    without = prepare_volumes(subjects, TARGET_MM, 48, depth=8, with_labels=False)
    assert without.volumes.image.shape[1] == 8 and not without.volumes.label.any()
    np.testing.assert_array_equal(without.volumes.image, with_truth.volumes.image)  # labels decide nothing
    assert without.geometries == with_truth.geometries
    unlabelled = [
        Subject("x", "", "", "test", (Case("x", "SA", "ED", subjects[0].cases[0].image_path, None),))
    ]
    with pytest.raises(ValueError, match="image_0.nii.gz: no ground truth found"):
        prepare_volumes(unlabelled, TARGET_MM, 48)
    assert prepare_volumes([], TARGET_MM, 48, depth=5).volumes.image.shape == (0, 5, 48, 48)


@pytest.mark.parametrize("name, floor", [("sampleNegative", 0.999), ("samplePositive", 0.9)])
def test_real_masks_there_and_back(real_data: Path, name: str, floor: float) -> None:
    """The second is resampled across slices, from 13 mm to 10 mm and back."""
    folder = real_data / "emidec_samples" / name
    image = read_image(folder / "Images" / f"{name}.nii.gz")
    labels = read_labels(folder / "Contours" / f"{name}.nii.gz", EMIDEC_LABELS, like=image)
    geometry = plan_volume(image, (10.0, 1.458, 1.458), 128)
    prepared = prepare_volume_labels(labels, geometry)
    assert geometry.stack_shape == (9, 128, 128)
    back = restore_volume(one_hot(prepared), geometry)
    found = {c: dice(back == c, labels.array == c) for c in (1, 2, 3, 4) if (labels.array == c).any()}
    assert min(found.values()) >= floor, found
