import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qcjax.metrics import calibration
from tests.unchecked import unchecked

SEEDS = st.integers(0, 10**6)


def forecasts(seed, shape=(3, 8, 9), k=4):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.3), size=shape).astype(np.float32)
    return p, rng.integers(0, k, size=shape), rng.random(shape) < 0.6


def test_brier_by_hand():
    p = np.array([[0.0, 0.5], [1.0, 0.8]], np.float32)
    truth = np.array([[False, True], [False, True]])
    assert calibration.brier(p, truth) == pytest.approx((0 + 0.25 + 1 + 0.04) / 4)
    mask = np.array([[True, True], [False, False]])
    assert calibration.brier(p, truth, mask) == pytest.approx(0.125)
    assert np.isnan(calibration.brier(p, truth, np.zeros((2, 2), bool)))


def test_multiclass_brier_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    assert calibration.multiclass_brier(p, np.array([0, 2])) == pytest.approx((0.09 + 0.04 + 0.01 + 2) / 2)
    assert calibration.multiclass_brier(p, np.array([0, 2]), np.array([True, False])) == pytest.approx(0.14)
    assert np.isnan(calibration.multiclass_brier(p, np.array([0, 2]), np.zeros(2, bool)))


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_brier_scores_stay_in_their_range_and_agree(seed):
    p, truth, mask = forecasts(seed, k=2)
    binary = calibration.brier(p[..., 1], truth == 1, mask)
    assert 0 <= binary <= 1
    # Brier's own formula sums over both outcomes
    assert calibration.multiclass_brier(p, truth, mask) == pytest.approx(2 * binary, abs=1e-6)
    certain = np.eye(2, dtype=np.float32)
    assert calibration.multiclass_brier(certain[truth], truth) == 0
    assert calibration.multiclass_brier(certain[1 - truth], truth) == 2


def test_brier_of_a_calibrated_forecast_is_its_variance():
    p = np.full(1000, 0.3)
    truth = np.arange(1000) < 300
    assert calibration.brier(p, truth) == pytest.approx(0.3 * 0.7)
    for other in (0.2, 0.29, 0.31, 0.9):  # a proper score: the true frequency is best
        assert calibration.brier(np.full(1000, other), truth) > 0.21


def test_region_probability_sums_classes():
    p, _, _ = forecasts(0, k=5)
    np.testing.assert_allclose(calibration.region_probability(p, (3, 1)), p[..., 1] + p[..., 3], rtol=1e-6)
    np.testing.assert_allclose(calibration.region_probability(p, [0]), p[..., 0], rtol=1e-6)
    assert calibration.region_probability(p, [2]).dtype == np.float32
    for wrong in ((), (1, 1), (5,), (-1,)):
        with pytest.raises(ValueError, match="expected distinct classes of 0 to 4"):
            calibration.region_probability(p, wrong)


def test_reliability_by_hand():
    p = np.array([0.0, 0.25, 0.26, 0.5, 1.0, 0.9])  # bins (0, 1/4], … closed above, 0 in the first
    truth = np.array([False, True, False, True, True, True])
    found = calibration.reliability(p, truth, bins=4)
    np.testing.assert_array_equal(found.count, [2, 2, 0, 2])
    np.testing.assert_array_equal(found.frequency, [1, 1, 0, 2])
    np.testing.assert_allclose(found.confidence, [0.25, 0.76, 0, 1.9])
    # bin by bin 2/6 · |1/2 - 0.125| + 2/6 · |1/2 - 0.38| + 2/6 · |1 - 0.95|
    expected = (0.375 + 0.12 + 0.05) / 3
    assert calibration.expected_calibration_error(found) == pytest.approx(expected)


def test_reliability_of_a_mask():
    p, truth = np.array([[0.1, 0.9]]), np.array([[True, False]])
    found = calibration.reliability(p, truth, np.array([[False, True]]), bins=2)
    np.testing.assert_array_equal(found.count, [0, 1])
    np.testing.assert_array_equal(found.frequency, [0, 0])
    nothing = calibration.reliability(p, truth, np.zeros((1, 2), bool))
    assert nothing.count.size == 15
    assert np.isnan(calibration.expected_calibration_error(nothing))


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 20))
def test_reliability_matches_scipys_binning(seed, bins):
    p, truth, mask = forecasts(seed)
    region, there = 1 - p[..., 0], truth > 0
    region = np.clip(region, 1e-3, 1)
    found = calibration.reliability(region, there, mask, bins)
    # scipy closes its bins below: mirror them
    edges = np.linspace(0, 1, bins + 1)
    mirrored = 1 - region[mask].astype(np.float64)
    inside = np.abs(mirrored * bins - np.round(mirrored * bins)) > 1e-5
    if not inside.all():
        return
    count = stats.binned_statistic(mirrored, mirrored, "count", edges).statistic[::-1]
    hits = stats.binned_statistic(mirrored, there[mask].astype(float), "sum", edges).statistic[::-1]
    sums = stats.binned_statistic(mirrored, region[mask], "sum", edges).statistic[::-1]
    np.testing.assert_array_equal(found.count, count)
    np.testing.assert_array_equal(found.frequency, hits)
    np.testing.assert_allclose(found.confidence, sums, rtol=1e-6, atol=1e-9)


def test_ece_of_a_perfectly_calibrated_forecast_is_0():
    levels = np.repeat([0.1, 0.4, 0.75, 1.0], 200)
    truth = np.concatenate([np.arange(200) < round(200 * p) for p in (0.1, 0.4, 0.75, 1.0)])
    found = calibration.reliability(levels, truth)
    assert calibration.expected_calibration_error(found) == pytest.approx(0, abs=1e-12)
    worst = calibration.reliability(truth.astype(float), ~truth)
    assert calibration.expected_calibration_error(worst) == 1


def test_top_label_by_hand():
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.0, 0.75, 0.25]], np.float32)
    found = calibration.top_label_reliability(p, np.array([0, 0, 2, 1]), bins=2)
    np.testing.assert_array_equal(found.count, [0, 4])
    np.testing.assert_array_equal(found.frequency, [0, 3])
    np.testing.assert_allclose(found.confidence, [0, 2.85], rtol=1e-6)
    # over-confident in one, under-confident in three: they cancel in one bin, 2.85 of 4 against 3 of 4
    assert calibration.expected_calibration_error(found) == pytest.approx(0.15 / 4, abs=1e-7)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_cases_add_up(seed):
    p, truth, mask = forecasts(seed)
    parts = [calibration.top_label_reliability(p[i], truth[i], mask[i]) for i in range(len(p))]
    together, whole = calibration.pooled(parts), calibration.top_label_reliability(p, truth, mask)
    for a, b in zip(together, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert together.count.sum() == mask.sum()
    assert 0 <= calibration.expected_calibration_error(whole) <= 1


def test_pooled_refuses_what_does_not_add_up():
    p, truth = np.array([0.2]), np.array([True])
    with pytest.raises(ValueError, match="0 cases"):
        calibration.pooled([])
    with pytest.raises(ValueError, match=r"\[3, 4\] bins"):
        calibration.pooled([calibration.reliability(p, truth, bins=b) for b in (3, 4)])


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_entropy_matches_scipy(seed):
    p, _, mask = forecasts(seed)
    assert calibration.mean_entropy(p, mask) == pytest.approx(stats.entropy(p[mask], axis=1).mean(), abs=1e-5)


def test_entropy_ends():
    assert calibration.mean_entropy(np.eye(4)) == 0
    assert calibration.mean_entropy(np.full((2, 3, 5), 0.2)) == pytest.approx(np.log(5))
    assert np.isnan(calibration.mean_entropy(np.eye(4), np.zeros(4, bool)))


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_what_is_no_probability_is_refused(bad):
    p = np.array([0.5, bad])
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        calibration.brier(p, np.array([True, False]))
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        calibration.mean_entropy(p[:, None])
    calibration.brier(p, np.array([True, False]), np.array([True, False]))  # where it counts only


def test_rounding_is_no_error():
    p = np.array([1 + 2e-7, -1e-8], np.float32)
    assert calibration.brier(p, np.array([True, False])) == 0
    np.testing.assert_array_equal(
        calibration.reliability(p, np.array([True, False]), bins=3).count, [1, 0, 1]
    )


@unchecked()
def test_arrays_that_do_not_go_together_are_refused():
    p, truth, mask = forecasts(0)
    with pytest.raises(ValueError, match="expected the same"):
        calibration.brier(p[..., 0], truth[:2] == 0)
    with pytest.raises(ValueError, match="dtype int64 found, expected bool"):
        calibration.brier(p[..., 0], truth)
    with pytest.raises(ValueError, match="classes last"):
        calibration.multiclass_brier(p, truth[:2])
    with pytest.raises(ValueError, match="expected classes 0 to 3"):
        calibration.multiclass_brier(p, truth + 1)
    with pytest.raises(ValueError, match="expected bool of shape"):
        calibration.top_label_reliability(p, truth, mask[:2])
    with pytest.raises(ValueError, match="expected bool of shape"):
        calibration.mean_entropy(p, mask.astype(int))
    with pytest.raises(ValueError, match="bins: 0 found"):
        calibration.reliability(p[..., 0], truth == 0, bins=0)
