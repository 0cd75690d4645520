"""Contrast between blood and muscle, on a drawn heart whose intensities are known."""

import os
from pathlib import Path

import numpy as np
import pytest

from qcjax.data.datasets import acdc
from qcjax.data.nifti import read_image, read_labels
from qcjax.labels import ACDC_LABELS, CARDIAC, structures_named
from qcjax.qc import contrast
from qcjax.qc.corruptions import DAMAGES
from tests.drawn import drawn_heart
from tests.unchecked import unchecked

SPACING_MM = (8.0, 1.25, 2.0)
MASK = drawn_heart()


def drawn_image(blood: float = 300.0, muscle: float = 100.0, noise: float = 40.0) -> np.ndarray:
    """Both ventricles of one brightness, the myocardium of another, lungs dark, noise over all."""
    of_label = np.array([150.0, blood, muscle, blood])
    return of_label[MASK] + np.random.default_rng(0).normal(0, noise, MASK.shape)


def test_contrast_by_hand() -> None:
    image = np.array([1.0, 3.0, 10.0, 14.0, 99.0])
    muscle, blood = np.array([1, 1, 0, 0, 0], bool), np.array([0, 0, 1, 1, 0], bool)
    assert contrast.contrast(image, blood, muscle) == pytest.approx((12 - 2) / np.sqrt((4 + 1) / 2))
    assert np.isnan(contrast.contrast(image, blood, np.zeros(5, bool)))


def test_without_noise_and_without_contrast() -> None:
    assert (contrast.doubts(drawn_image(noise=0), MASK) == 0).all()
    expected = contrast.MEDIAN["lv"] / (contrast.MEDIAN["lv"] - contrast.LOW["lv"])
    assert contrast.doubts(np.ones(MASK.shape), MASK)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("of_spread", "doubt"), [(2.42, 0.0), (1.28, 1.0), (0.71, 1.5)])
def test_the_scale_is_that_of_sound_masks(of_spread: float, doubt: float) -> None:
    found = contrast.doubts(drawn_image(100 + 40 * of_spread), MASK)
    assert found[0] == pytest.approx(doubt, abs=0.03)
    assert found[1] == max(found[0], found[2])


def test_a_mask_in_another_place_is_doubted_and_flagged() -> None:
    image, rng = drawn_image(), np.random.default_rng(0)
    assert contrast.flags(contrast.doubts(image, MASK), CARDIAC) == []
    moved = contrast.doubts(image, DAMAGES["shifted"](MASK, SPACING_MM, rng))
    found = contrast.flags(moved, CARDIAC)
    assert [flag.structure for flag in found] == ["lv", "rv"]
    assert "not where the image shows it" in found[0].reason
    assert contrast.flags(moved, CARDIAC, limit=100.0) == []


def test_a_doubt_at_the_limit_is_no_flag() -> None:
    assert contrast.flags(np.array([1.5, 9.0, 1.5]), CARDIAC, limit=1.5) == []
    assert [f.structure for f in contrast.flags(np.array([1.5, 9.0, 1.6]), CARDIAC, limit=1.5)] == ["rv"]


def test_what_is_absent_is_in_infinite_doubt_and_no_matter_of_the_image() -> None:
    without = np.where(MASK == 3, 0, MASK)
    found = contrast.doubts(drawn_image(), without)
    assert np.isfinite(found[:2]).all() and found[2] == np.inf
    assert contrast.flags(found, CARDIAC) == []
    assert (contrast.doubts(drawn_image(), np.where(MASK == 2, 0, MASK)) == np.inf).all()


def test_structures_go_by_their_keys() -> None:
    image = drawn_image()
    other = structures_named(["rv", "scar", "myo", "lv"])
    ids = {s.key: s.id for s in other}
    mask = np.array([0, ids["lv"], ids["myo"], ids["rv"]], np.uint8)[MASK]
    lv, myo, rv = contrast.doubts(image, MASK)
    np.testing.assert_array_equal(contrast.doubts(image, mask, other), [rv, np.nan, myo, lv])
    assert np.isnan(contrast.doubts(image, MASK, structures_named(["lv", "rv"]))).all()


def test_an_image_of_another_shape_is_refused() -> None:
    with unchecked(), pytest.raises(ValueError, match="expected .* as its mask's"):
        contrast.doubts(drawn_image()[1:], MASK)


@pytest.mark.skipif("QCJAX_DATA" not in os.environ, reason="QCJAX_DATA is unset")
def test_on_real_images_untouched_masks_pass_and_moved_ones_do_not() -> None:
    subjects = acdc.scan(Path(os.environ["QCJAX_DATA"]) / "acdc").subjects[1:24:2]
    sound, moved = [], []
    for i, case in enumerate(case for subject in subjects for case in subject.cases):
        assert case.label_path is not None
        image = read_image(case.image_path)
        truth = read_labels(case.label_path, ACDC_LABELS, like=image)
        stack, mask = (np.ascontiguousarray(v.array.transpose(2, 1, 0)) for v in (image, truth))
        sound.append(contrast.doubts(stack, mask).max())
        shifted = DAMAGES["shifted"](mask, truth.spacing_mm[::-1], np.random.default_rng(i))
        moved.append(contrast.doubts(stack, shifted).max())
    assert len(sound) == 24 and max(sound) < 1.2
    assert np.mean(np.array(moved) > contrast.DOUBT_LIMIT) >= 0.95
