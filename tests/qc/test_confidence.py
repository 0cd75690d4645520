"""What probabilities tell, by hand and against what they were drawn from."""

import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.labels import LV, MYO
from qcjax.qc.confidence import (
    band_width_mm,
    confidence_sums,
    fit_temperature,
    interior_entropy,
    soft_dice_confidence,
    with_temperature,
)

TWO = (LV, MYO)


def of_lv(p: np.ndarray) -> np.ndarray:
    """Probabilities of background, LV and MYO where only the LV's is told."""
    return np.stack([1 - p, p, np.zeros_like(p)], -1)


def test_soft_dice_by_hand() -> None:
    p = of_lv(np.array([[0.9, 0.6, 0.2, 0.0]]))
    # ŷ holds the first two: 2 (.9 + .6) / (.9 + .6 + .2 + 2)
    np.testing.assert_allclose(soft_dice_confidence(p, TWO), [3.0 / 3.7, 0.0])


def test_soft_dice_is_the_expected_dice_where_probabilities_are_true() -> None:
    """To the difference between the ratio of expectations and that of draws, small for many voxels."""
    rng = np.random.default_rng(0)
    p = rng.uniform(size=20000)
    truth = rng.uniform(size=(50, 20000)) < p
    mask = p > 0.5
    real = 2 * (truth & mask).sum(1) / (truth.sum(1) + mask.sum())
    assert soft_dice_confidence(of_lv(p), (LV,))[0] == pytest.approx(real.mean(), abs=2e-3)


def test_temperature_is_found_again() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (20000, 4))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    truth = (rng.uniform(size=(20000, 1)) > p.cumsum(-1)).sum(-1).clip(0, 3)
    overconfident = with_temperature(p, 0.5)
    found = fit_temperature(overconfident, truth)
    assert found == pytest.approx(2.0, rel=0.05)
    np.testing.assert_allclose(with_temperature(overconfident, 2.0), p, atol=1e-6)


def test_what_is_no_temperature() -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        with_temperature(np.full((2, 2), 0.5), 0.0)
    with pytest.raises(ValueError, match="0 voxels with 0 classes found"):
        fit_temperature(np.empty((0, 3)), np.empty(0, np.int64))


def test_entropy_counts_the_inside_alone() -> None:
    p = np.zeros((1, 9, 9))
    p[0, 1:8, 1:8] = 0.6  # the border of a square of 7 × 7
    p[0, 3:6, 3:6] = 1.0
    h = -(0.6 * np.log(0.6) + 0.4 * np.log(0.4))
    # at 1 mm the pixels more than 2 mm from the nearest outside are the inner 3 × 3, sure of themselves
    assert interior_entropy(of_lv(p), (8, 1, 1), TWO, margin_mm=2.0)[0] == pytest.approx(0, abs=1e-9)
    assert np.isnan(interior_entropy(of_lv(p), (8, 1, 1), TWO)[1])
    # nothing lies that deep: all 49 pixels count
    assert interior_entropy(of_lv(p), (8, 1, 1), (LV,), margin_mm=9.0)[0] == pytest.approx(h * 40 / 49)


def test_width_of_a_band_along_a_straight_border() -> None:
    p = np.zeros((1, 20, 20))
    p[0, :8] = 1.0
    p[0, 8:11] = (0.8,), (0.5001,), (0.3,)  # three rows of 2 mm; two of them belong to the mask
    area = 3 * 20 * 2.0 * 3.0
    border = 2 * 20 * 3.0 + 2 * 10 * 2.0  # of a block of 10 rows and 20 columns, within the image's frame
    np.testing.assert_allclose(band_width_mm(of_lv(p), (8, 2, 3), (LV,)), [area / border])


def test_bands_without_a_mask() -> None:
    p = np.full((1, 4, 4), 0.3)
    found = band_width_mm(of_lv(p), (8, 2, 3), TWO)
    assert found[0] == np.inf and np.isnan(found[1])
    with pytest.raises(ValueError, match="two rising probabilities"):
        band_width_mm(of_lv(p), (8, 2, 3), TWO, band=(0.9, 0.1))


def test_sums_of_slices_make_the_confidence_of_a_stack_on_host_and_device_alike() -> None:
    p = np.random.default_rng(5).dirichlet(np.full(4, 0.3), (3, 6, 7)).astype(np.float32)
    sums = confidence_sums(p)
    assert [x.shape for x in sums] == [(3, 3)] * 4
    of_stack = 2 * sums.common.sum(0) / (sums.probable + sums.inside).sum(0)
    np.testing.assert_allclose(of_stack, soft_dice_confidence(p), rtol=1e-5)
    lv = p[1].argmax(-1) == 1
    entropy = -(p[1][lv] * np.log(p[1][lv])).sum()
    assert sums.entropy[1, 0] == pytest.approx(entropy, rel=1e-5)
    for ours, theirs in zip(confidence_sums(jnp.asarray(p)), sums, strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-5)
