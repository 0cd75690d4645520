"""Preparation and the way back: hand-computable geometry, independent oracles, real round trips."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from qcjax.data.nifti import read_grid, read_image, read_labels
from qcjax.data.preprocess import (
    from_square,
    median_spacing,
    plan,
    plan_mask,
    prepare_image,
    prepare_labels,
    prepare_mask,
    restore_labels,
    restore_labels_cubic,
    to_square,
)
from qcjax.data.subject import Volume
from qcjax.labels import ACDC_LABELS, MNMS2_LABELS


def volume(array: np.ndarray, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 8.0)) -> Volume:
    return Volume(array, spacing_mm, np.diag([*spacing_mm, 1.0]), Path("volume.nii.gz"))


def discs(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    """A disc (1) in a ring (2), and a disc (3) beside them: (x, y, slices)."""
    x, y = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape[:2]), indexing="ij")
    labels = np.zeros(shape[:2], np.uint8)
    labels[np.hypot(x - 2 * radius, y) < radius] = 3
    labels[np.hypot(x, y) < 1.4 * radius] = 2
    labels[np.hypot(x, y) < radius] = 1
    return np.repeat(labels[..., None], shape[2], axis=2)


def test_the_plan_by_hand() -> None:
    image = np.zeros((40, 30, 5), np.float32)
    image[10:30, 4:28, 1:4] = 7
    image[15, 15, 2] = 0  # a hole inside the box changes nothing
    geometry = plan(volume(image, (1.5, 1.0, 8.0)), (1.25, 2.0), 16)
    assert geometry.shape == (40, 30, 5)
    assert geometry.box == ((10, 30), (4, 28), (1, 4))
    assert geometry.resampled == (19, 15)  # h: 24 pixels of 1 mm to 1.25 mm; w: 20 pixels of 1.5 mm to 2 mm
    assert geometry.stack_shape == (3, 16, 16)
    np.testing.assert_allclose(geometry.spacing_mm, (8.0, 24 / 19, 2.0))
    with pytest.raises(ValueError, match="volume.nii.gz: found an image of zeros"):
        plan(volume(np.zeros((4, 4, 2), np.float32)), (1, 1), 16)


def test_without_resampling_the_way_there_is_crop_zscore_and_pad() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((12, 9, 4), np.float32)
    image[2:12, 1:8, 1:4] = rng.uniform(1, 100, (10, 7, 3))
    given = volume(image)
    geometry = plan(given, (1.0, 1.0), 8)  # w is cropped from 10 to 8, h padded from 7 to 8
    stack = prepare_image(given, geometry)
    box = image[2:12, 1:8, 1:4].transpose(2, 1, 0)
    expected = np.zeros((3, 8, 8))
    expected[:, 0:7] = ((box - box.mean()) / box.std())[:, :, 1:9]
    np.testing.assert_allclose(stack, expected, atol=1e-5)
    assert stack.dtype == np.float32

    labels = volume(rng.integers(0, 4, image.shape).astype(np.uint8))
    prepared = prepare_labels(labels, geometry)
    assert prepared.dtype == np.uint8
    back = restore_labels(prepared, geometry)
    expected_back = np.zeros_like(back)
    expected_back[3:11, 1:8, 1:4] = labels.array[3:11, 1:8, 1:4]  # what was cut off is background
    np.testing.assert_array_equal(back, expected_back)


@pytest.mark.parametrize("target", [(0.8, 1.3), (1.9, 0.6)])
@pytest.mark.parametrize("preset", ["paper", "original"])
def test_images_against_scipys_spline(target: tuple[float, float], preset: str) -> None:
    given = volume(np.random.default_rng(1).uniform(1, 100, (21, 26, 2)).astype(np.float32))
    geometry = plan(given, target, 64)
    h, w = geometry.resampled
    slices = []
    for s in range(2):
        source = given.array[..., s].T
        zoomed = ndimage.zoom(source, (h / 26, w / 21), order=3, mode="nearest", grid_mode=True)
        slices.append(np.clip(zoomed, source.min(), source.max()) if preset == "original" else zoomed)
    expected = (np.stack(slices) - np.mean(slices)) / np.std(slices)
    stack = prepare_image(given, geometry, preset)
    top, left = (64 - h) // 2, (64 - w) // 2
    np.testing.assert_allclose(stack[:, top : top + h, left : left + w], expected, atol=2e-4)
    assert np.count_nonzero(stack) <= 2 * h * w


@pytest.mark.parametrize("target", [(0.8, 1.3), (1.9, 0.6)])
def test_labels_against_scipys_linear_zoom(target: tuple[float, float]) -> None:
    labels = discs((40, 36, 2), 7)
    given = volume(np.ones(labels.shape, np.float32))
    geometry = plan(given, target, 80)
    h, w = geometry.resampled

    def zoom(source: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        factors = np.divide(shape, source.shape)
        one_hot = [
            ndimage.zoom((source == c).astype(float), factors, order=1, mode="nearest", grid_mode=True)
            for c in range(4)
        ]
        return np.argmax(np.round(one_hot, 6), axis=0)

    prepared = prepare_labels(volume(labels), geometry)
    top, left = (80 - h) // 2, (80 - w) // 2
    inside = prepared[0, top : top + h, left : left + w]
    np.testing.assert_array_equal(inside, zoom(labels[..., 0].T, (h, w)))
    assert np.count_nonzero(prepared[0]) == np.count_nonzero(inside)
    restored = restore_labels(prepared, geometry)
    np.testing.assert_array_equal(restored[..., 0].T, zoom(inside, (36, 40)))


def test_probabilities_are_interpolated_before_the_argmax() -> None:
    given = volume(np.ones((40, 36, 3), np.float32))
    geometry = plan(given, (1.7, 1.7), 32)
    logits = np.random.default_rng(2).normal(size=(3, 32, 32, 4)) * 2
    logits[..., 0] += 1
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    h, w = geometry.resampled  # (21, 24): padded by 5 and 4
    shown = probabilities[:, 5 : 5 + h, 4 : 4 + w]
    full = ndimage.zoom(shown, (1, 36 / h, 40 / w, 1), order=1, mode="nearest", grid_mode=True)
    restored = restore_labels(probabilities.astype(np.float32), geometry)
    assert np.mean(restored == full.argmax(-1).T) > 0.9999
    one_hot = np.eye(4)[probabilities.argmax(-1)]
    assert np.mean(restored == restore_labels(one_hot, geometry)) < 0.99
    np.testing.assert_array_equal(
        restore_labels(one_hot, geometry), restore_labels(one_hot.argmax(-1).astype(np.uint8), geometry)
    )


def test_there_and_back_is_centred() -> None:
    """A half-pixel slip on either way would treat an image and its mirror image differently."""
    labels = discs((90, 90, 2), 12)
    geometry = plan(volume(np.ones(labels.shape, np.float32)), (1.37, 1.37), 64)
    assert geometry.resampled == (66, 66)  # an even number is cropped, so the centre stays
    prepared = prepare_labels(volume(labels), geometry)
    mirrored = prepare_labels(volume(labels[::-1, ::-1]), geometry)
    np.testing.assert_array_equal(mirrored, prepared[:, ::-1, ::-1])
    back = restore_labels(prepared, geometry)
    np.testing.assert_array_equal(restore_labels(mirrored, geometry), back[::-1, ::-1])
    for c in (1, 2, 3):
        assert dice(back == c, labels == c) > 0.95


@pytest.mark.parametrize("side", [17, 18])
def test_a_mask_is_centred_on_its_foreground(side: int) -> None:
    labels = np.zeros((40, side, 3), np.uint8)
    labels[30:37, 2:7, :2] = 1  # median column (x) 33, row (y) 4
    geometry, resampled = prepare_mask(volume(labels), 1.0, 16, "mask")
    stack = to_square(resampled, geometry)
    assert stack.shape == (3, 16, 16) and stack.sum() == labels.sum()
    rows, columns = (np.flatnonzero(stack.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    assert abs(rows.mean() - 7.5) <= 1 and abs(columns.mean() - 7.5) <= 1
    np.testing.assert_array_equal(from_square(stack, geometry), resampled)
    np.testing.assert_array_equal(restore_labels(stack, geometry), labels)
    labels[0:2, 15:17, 2] = 2  # far away and outside of the square
    apart, both = prepare_mask(volume(labels), 1.0, 16, "mask")
    assert np.abs(np.subtract(apart.offset, geometry.offset)).max() <= 1
    assert set(np.unique(to_square(both, apart))) == {0, 1}


def test_a_mask_in_the_middle_and_an_empty_one_stay_where_they_are() -> None:
    middle = np.zeros((21, 31, 2), np.uint8)
    middle[8:13, 10:21] = 1
    for labels in (middle, np.zeros_like(middle)):
        (ours, ours_resampled), (theirs, theirs_resampled) = (
            prepare_mask(volume(labels), 1.0, 16, centre) for centre in ("mask", "image")
        )
        np.testing.assert_array_equal(to_square(ours_resampled, ours), to_square(theirs_resampled, theirs))


def test_where_no_label_reaches_one_half_the_presets_differ() -> None:
    labels = np.array([[1, 2], [3, 3], [3, 3]], np.uint8)[..., None]
    geometry = plan(volume(np.ones(labels.shape, np.float32)), (2.0, 1.5), 2)
    assert geometry.resampled == (
        1,
        2,
    )  # the first pixel sees .375 of 1, .375 of 2, .25 of 3; the second only 3
    assert prepare_labels(volume(labels), geometry, "paper")[0, 0].tolist() == [1, 3]
    assert prepare_labels(volume(labels), geometry, "original")[0, 0].tolist() == [0, 3]


def test_the_original_takes_the_argmax_before_it_interpolates() -> None:
    geometry = plan(volume(np.ones((3, 1, 1), np.float32)), (1.0, 1.5), 2)
    assert geometry.resampled == (1, 2)
    stack = np.zeros((1, 2, 2, 3), np.float32)
    stack[0, 0] = [
        [0.0, 0.6, 0.4],
        [0.1, 0.0, 0.9],
    ]  # half way between: 1 and 2 by labels, 2 by probabilities
    assert restore_labels(stack, geometry, "paper").ravel().tolist() == [1, 2, 2]
    assert restore_labels(stack, geometry, "original").ravel().tolist() == [1, 1, 2]


def test_shapes_that_do_not_belong_together() -> None:
    given = volume(np.random.default_rng(0).uniform(1, 2, (8, 8, 2)).astype(np.float32))
    geometry = plan(given, (1, 1), 8)
    other = volume(np.ones((8, 8, 3), np.float32))
    for call in (prepare_image, prepare_labels):
        with pytest.raises(ValueError, match=r"found shape \(8, 8, 3\); expected \(8, 8, 2\)"):
            call(other, geometry)
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\); expected \(2, 8, 8\)"):
        restore_labels(np.zeros((3, 8, 8), np.uint8), geometry)
    with pytest.raises(ValueError, match="found a constant image"):
        prepare_image(volume(np.ones((8, 8, 2), np.float32)), geometry)


def test_the_median_spacing_is_given_as_h_and_w() -> None:
    assert median_spacing([(1.0, 2.0, 9.0), (1.2, 2.4, 8.0), (3.0, 6.0, 8.0)]) == (2.4, 1.2)
    with pytest.raises(ValueError, match="no spacings found"):
        median_spacing([])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 8.0), (1.7, 0.8, 8.0), (0.6, 2.1, 8.0)])
def test_the_cubic_way_back_is_the_arg_max_of_every_labels_spline(
    spacing_mm: tuple[float, float, float],
) -> None:
    shape = (60, 44, 3)
    geometry = plan_mask(shape, spacing_mm, (1.0, 1.0), 128)
    resampled = np.zeros((3, *geometry.resampled), np.uint8)
    rng = np.random.default_rng(0)
    resampled[1, 4:18, 5:16] = rng.integers(0, 4, (14, 11))  # ragged: splines overshoot
    resampled[2] = discs((*geometry.resampled[::-1], 1), 6.0)[..., 0].T
    factors = (1, shape[1] / geometry.resampled[0], shape[0] / geometry.resampled[1])
    of_label = [
        ndimage.zoom((resampled == v).astype(float), factors, order=3, mode="nearest", grid_mode=True)
        for v in range(4)
    ]
    found = restore_labels_cubic(to_square(resampled, geometry), geometry)
    np.testing.assert_array_equal(found, np.argmax(of_label, axis=0).T)
    assert set(np.unique(found)) == {0, 1, 2, 3}
    assert not restore_labels_cubic(np.zeros(geometry.stack_shape, np.uint8), geometry).any()


@pytest.mark.skipif("QCJAX_DATA" not in os.environ, reason="needs QCJAX_DATA, a folder of real data")
@pytest.mark.parametrize("kind", ["acdc", "SA", "LA"])
def test_real_masks_there_and_back(kind: str) -> None:
    """At the median spacing and 256 x 256; what is lost is detail of images with finer pixels than that."""
    data = Path(os.environ["QCJAX_DATA"])
    if kind == "acdc":
        masks = sorted((data / "acdc" / "training").glob("patient*/*_gt.nii.gz"))
        target, masks, mapping = (
            median_spacing(read_grid(m).spacing_mm for m in masks),
            masks[::10],
            ACDC_LABELS,
        )
    else:
        masks = sorted((data / "mnms2_subject_001").glob(f"001_{kind}_E?_gt.nii.gz"))
        target, mapping = median_spacing(read_grid(m).spacing_mm for m in masks), MNMS2_LABELS
    assert masks
    found = []
    for path in masks:
        image = read_image(path.with_name(path.name.replace("_gt", "")))
        mask = read_labels(path, mapping, like=image)
        geometry = plan(image, target, 256)
        assert prepare_image(image, geometry).std() > 0
        back = restore_labels(prepare_labels(mask, geometry), geometry)
        found.append(
            [dice(back == c, mask.array == c) if (mask.array == c).any() else np.nan for c in (1, 2, 3)]
        )
    assert np.all(np.nanmean(found, axis=0) >= 0.98)
    assert np.nanmin(found) >= 0.95
