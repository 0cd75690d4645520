"""Signals by hand, and that one network's mean the same as several's."""

import numpy as np
import pytest

from qcjax.labels import CARDIAC
from qcjax.qc.confidence import ConfidenceSums, confidence_sums
from qcjax.quality.scales import logit
from qcjax.quality.signals import confidence_signals, mask_signals, of_case

MASK_PIXELS = (3, 6, 2)  # of lv, myo, rv in each slice


def sums(*networks: tuple[float, float, float]) -> ConfidenceSums:
    """Of one structure in one slice each: Σ p, Σ ŷ, Σ p ŷ; an entropy of 0.5 for each pixel."""
    table = np.array(networks, np.float32)[:, None, None]
    return ConfidenceSums(table[..., 0], table[..., 1], table[..., 2], 0.5 * table[..., 1])


def test_confidence_is_that_of_each_network_averaged() -> None:
    first, second = confidence_signals(sums((10, 8, 7))), confidence_signals(sums((12, 12, 12)))
    assert first["confidence"] == pytest.approx(logit(np.array([14 / 18])))
    assert first["worst_slice"] == pytest.approx(np.log(4 / 18 + 1e-3))
    assert first["entropy"] == pytest.approx(np.log(0.501))
    both = confidence_signals(sums((10, 8, 7), (12, 12, 12)))
    for name, found in both.items():
        assert found == pytest.approx((first[name] + second[name]) / 2)


def test_a_network_without_the_structure_does_not_count() -> None:
    found = confidence_signals(sums((10, 8, 7), (2, 0, 0)))
    assert found["confidence"] == pytest.approx(confidence_signals(sums((10, 8, 7)))["confidence"])
    assert np.isnan(confidence_signals(sums((2, 0, 0)))["confidence"]).all()


def test_two_alike_networks_tell_what_one_tells() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), (3, 8, 8))
    one = confidence_signals([x[None] for x in confidence_sums(p)])
    two = confidence_signals([np.stack([x, x]) for x in confidence_sums(p)])
    for name in one:
        assert one[name] == pytest.approx(two[name])


def test_signals_of_a_mask_by_hand() -> None:
    mask = np.zeros((2, 4, 8), np.uint8)
    for s, n in zip(CARDIAC, MASK_PIXELS, strict=True):
        mask[:, s.id, :n] = s.id
    measured = np.tile([[0.2], [9.0], [np.e - 1], [0.0], [0.1], [2.0]], (1, 3))
    measured[:, 2] = np.inf  # as of a structure that the monitor doesn't rebuild
    found = mask_signals(mask, (10.0, 2.0, 2.0), measured, CARDIAC)
    assert found["pdc"][:2] == pytest.approx(np.log(0.805 / 0.205))
    assert found["phd"][:2] == pytest.approx(np.log(10))
    assert found["slice_difference"][:2] == pytest.approx(1)
    assert found["gaps"][:2] == pytest.approx(2)
    assert np.isnan([found[n][2] for n in ("pdc", "phd", "alone")]).all()
    assert found["area"] == pytest.approx(np.log(np.array(MASK_PIXELS) * 4))
    assert found["ratio_1"] == pytest.approx(np.log(3 / 6))  # lv to myo, for every structure


def test_others_are_the_mean_of_those_that_are_known() -> None:
    found = of_case({"pdc": np.array([1.0, 2.0, np.nan])})
    assert found["pdc_of_others"] == pytest.approx([2.0, 1.0, 1.5])
    assert np.isnan(of_case({"pdc": np.array([1.0])})["pdc_of_others"]).all()
