"""Reverse classification accuracy on phantoms where the answer is known."""

import pickle
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from qcjax.data.nifti import Grid, read_image, read_labels
from qcjax.data.subject import Volume
from qcjax.labels import ACDC_LABELS, CARDIAC, LV, RV
from qcjax.metrics.overlap import dice
from qcjax.phantom import make_subject
from qcjax.qc.rca import Reference, Registration, _score, carry, estimate, nearest_in_size, register

pytest.importorskip("SimpleITK")


def volume(array: np.ndarray, spacing_mm: tuple[float, float, float]) -> Volume:
    return Volume(array, spacing_mm, np.diag([*spacing_mm, 1.0]), Path("image.nii.gz"))


def phantom(code: int, part: str = "train", matrix_scale: float = 0.6) -> Reference:
    made = make_subject(code, part, seed=3, matrix_scale=matrix_scale).images["SA", "ED"]
    return Reference(volume(made.image.astype(np.float32), made.spacing_mm), made.label)


def warped(subject: Reference, turn_deg: float, scale: float, shift_mm: float, wave_mm: float) -> Reference:
    """The subject turned, scaled, shifted, and bent smoothly, all in plane."""
    spacing = np.array(subject.image.spacing_mm)
    grid = np.indices(subject.truth.shape).astype(float) * spacing[:, None, None, None]
    middle = (np.array(subject.truth.shape) - 1) / 2 * spacing
    angle = np.deg2rad(turn_deg)
    x, y = (grid[i] - middle[i] - shift_mm for i in (0, 1))
    x, y = x + wave_mm * np.sin(y / 20), y + wave_mm * np.cos(x / 25)
    at = [
        ((np.cos(angle) * x - np.sin(angle) * y) / scale + middle[0]) / spacing[0],
        ((np.sin(angle) * x + np.cos(angle) * y) / scale + middle[1]) / spacing[1],
        grid[2] / spacing[2],
    ]
    image = ndimage.map_coordinates(subject.image.array, at, order=1, mode="nearest")
    return Reference(
        volume(image, subject.image.spacing_mm), ndimage.map_coordinates(subject.truth, at, order=0)
    )


@pytest.fixture(scope="module")
def subject() -> Reference:
    return phantom(5)


@pytest.fixture(scope="module")
def others() -> list[Reference]:
    return [phantom(code) for code in (6, 8, 11)]


def test_a_reference_that_is_the_test_image_itself_gives_dice_1(subject: Reference) -> None:
    found = estimate({"truth": subject.truth}, subject.image, [subject])["truth"]
    assert found.dc == pytest.approx([1, 1, 1], abs=0.03)
    assert (found.hd_mm <= max(subject.image.spacing_mm)).all()


@pytest.mark.parametrize(
    ("turn_deg", "scale", "shift_mm", "wave_mm"), [(25, 1.0, 20, 0), (0, 1.15, -8, 0), (-10, 0.92, 5, 3)]
)
def test_a_known_warp_is_undone(
    subject: Reference, turn_deg: float, scale: float, shift_mm: float, wave_mm: float
) -> None:
    reference = warped(subject, turn_deg, scale, shift_mm, wave_mm)
    before = dice(subject.truth, reference.truth)
    after = dice(
        carry(subject.truth, subject.image, reference, register(subject.image, reference)), reference.truth
    )
    assert after.mean() > 0.9
    assert (after > before).all()


def test_the_deformable_step_undoes_what_no_affine_map_can(subject: Reference) -> None:
    reference = warped(subject, 0, 1.0, 0, 4)
    found = [
        dice(
            carry(subject.truth, subject.image, reference, register(subject.image, reference, options)),
            reference.truth,
        ).mean()
        for options in (Registration(deformable_iterations=0), Registration())
    ]
    assert found[1] > found[0] + 0.02


def test_damaged_masks_are_estimated_lower_and_the_untouched_near_their_truth(
    subject: Reference, others: list[Reference]
) -> None:
    shifted = np.roll(subject.truth, int(20 / subject.image.spacing_mm[0]), axis=0)
    eroded = subject.truth * ndimage.binary_erosion(subject.truth > 0, np.ones((3, 3, 1)), iterations=2)
    without_rv = np.where(subject.truth == RV.id, 0, subject.truth).astype(np.uint8)
    masks = {"truth": subject.truth, "shifted": shifted, "eroded": eroded, "without_rv": without_rv}
    found = estimate(masks, subject.image, others)
    assert list(found) == list(masks)
    assert found["truth"].dc.mean() > 0.6
    assert found["shifted"].dc.mean() < found["truth"].dc.mean() - 0.2
    assert found["eroded"].dc.mean() < found["truth"].dc.mean() - 0.05
    assert np.nanmean(found["shifted"].hd_mm) > np.nanmean(found["truth"].hd_mm)
    rv = [s.key for s in CARDIAC].index("rv")
    assert found["without_rv"].dc[rv] == 0
    assert np.isnan(found["without_rv"].hd_mm[rv])
    assert np.array_equal(found["without_rv"].dc[:rv], found["truth"].dc[:rv])


def test_the_estimate_is_the_best_over_references_and_the_same_for_any_number_of_workers(
    subject: Reference, others: list[Reference]
) -> None:
    masks = {"truth": subject.truth}
    together = estimate(masks, subject.image, others[:2], workers=2)["truth"]
    alone = [estimate(masks, subject.image, [other], workers=1)["truth"] for other in others[:2]]
    assert np.array_equal(together.dc, np.max([a.dc for a in alone], axis=0))
    assert np.array_equal(together.hd_mm, np.min([a.hd_mm for a in alone], axis=0))


def test_a_structure_that_neither_mask_nor_reference_has_is_absent(subject: Reference) -> None:
    only_lv = np.where(subject.truth == LV.id, LV.id, 0).astype(np.uint8)
    found = estimate({"m": only_lv}, subject.image, [Reference(subject.image, only_lv)])["m"]
    assert found.dc[0] > 0.9
    assert found.dc[1:].tolist() == [0, 0]
    assert np.isnan(found.hd_mm[1:]).all()


def test_images_of_other_shapes_and_spacings_are_registered(subject: Reference) -> None:
    array = subject.image.array[4:, :, ::2]
    x, y, z = subject.image.spacing_mm
    sparse = Reference(volume(array, (x, y, 2 * z)), subject.truth[4:, :, ::2])
    carried = carry(subject.truth, subject.image, sparse, register(subject.image, sparse))
    assert carried.shape == sparse.truth.shape
    assert carried.dtype == np.uint8
    assert dice(carried, sparse.truth).mean() > 0.8


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_a_constant_image_fails_nothing(subject: Reference, value: float) -> None:
    blank = volume(np.full_like(subject.image.array, value), subject.image.spacing_mm)
    found = estimate({"truth": subject.truth}, blank, [subject])["truth"]
    assert ((found.dc >= 0) & (found.dc <= 1)).all()


def test_a_reference_without_a_heart_fails_nothing(subject: Reference) -> None:
    nothing = Reference(subject.image, np.zeros_like(subject.truth))
    found = estimate({"truth": subject.truth}, subject.image, [nothing])["truth"]
    assert found.dc.tolist() == [0, 0, 0]
    assert np.isnan(found.hd_mm).all()


def test_transforms_can_be_stored(subject: Reference, others: list[Reference]) -> None:
    transform = register(subject.image, others[0])
    again = pickle.loads(pickle.dumps(transform))
    point = (10.0, -5.0, 3.0)
    assert again.TransformPoint(point) == pytest.approx(transform.TransformPoint(point))


def test_references_are_those_nearest_in_size() -> None:
    def grid(shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> Grid:
        return Grid(Path("a.nii.gz"), shape, spacing_mm, np.eye(4), nib.Nifti1Header())

    test = volume(np.zeros((100, 120, 10), np.float32), (2.0, 2.0, 10.0))
    candidates = [
        grid((100, 120, 20), (2.0, 2.0, 5.0)),  # the same extent in twice the slices
        grid((100, 120, 12), (2.0, 2.0, 10.0)),
        grid((200, 240, 10), (1.0, 1.0, 10.0)),  # the same size
        grid((100, 120, 10), (3.0, 3.0, 10.0)),
        grid((100, 120, 10), (2.0, 2.0, 10.0)),  # the same size
    ]
    assert nearest_in_size(test, candidates, 5) == [2, 4, 1, 3, 0]
    assert nearest_in_size(test, candidates, 1) == [2]
    with pytest.raises(ValueError, match="6 references asked for, expected 1 to 5"):
        nearest_in_size(test, candidates, 6)


def test_what_is_wrong_with_the_input_is_said(subject: Reference) -> None:
    with pytest.raises(ValueError, match="references: none found"):
        estimate({"m": subject.truth}, subject.image, [])
    with pytest.raises(ValueError, match="mask of m: shape"):
        estimate({"m": subject.truth[1:]}, subject.image, [subject])
    with pytest.raises(ValueError, match="2 slices or more"):
        register(volume(subject.image.array[..., :1], subject.image.spacing_mm), subject)
    with pytest.raises(ValueError, match="truth of image"):
        register(subject.image, Reference(subject.image, subject.truth[1:]))


def test_without_simpleitk_the_extra_is_named(subject: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ImportError, match="needs SimpleITK: pip install SimpleITK"):
        estimate({"m": subject.truth}, subject.image, [subject])


def test_real_hearts_are_found(real_data: Path) -> None:
    def read(patient: str, frame: str) -> Reference:
        path = real_data / "acdc" / "training" / patient / f"{patient}_frame{frame}.nii.gz"
        image = read_image(path)
        label_path = path.with_name(path.name.replace(".nii.gz", "_gt.nii.gz"))
        return Reference(image, read_labels(label_path, ACDC_LABELS).array)

    test = read("patient005", "01")
    references = [read(patient, "01") for patient in ("patient014", "patient062")]
    found = estimate({"truth": test.truth}, test.image, references)["truth"]
    assert (found.dc > [0.85, 0.6, 0.75]).all()


def test_what_is_carried_is_measured_in_mm_or_in_voxels() -> None:
    truth, carried = np.zeros((6, 5, 2), np.uint8), np.zeros((6, 5, 2), np.uint8)
    truth[1, 2] = carried[4, 2] = LV.id  # three voxels apart along x
    truth[1, 4] = RV.id
    reference = Reference(volume(truth.astype(np.float32), (2.0, 3.0, 8.0)), truth)
    for unit, hd in (("mm", 6.0), ("voxels", 3.0)):
        found = _score(carried, reference, CARDIAC, unit)
        np.testing.assert_array_equal(found.hd_mm, [hd, np.nan, np.nan])
        np.testing.assert_array_equal(found.dc, [0, 0, 0])
