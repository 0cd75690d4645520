"""Bounds by hand, and the coverage that they promise on drawn subjects."""

import numpy as np
import pytest

from qcjax.quality.conformal import coverage_interval, upper_quantile


def test_one_case_each_is_the_textbook_rank() -> None:
    residuals = np.array([5.0, 1, 9, 3, 7, 2, 8, 6, 4])  # 9 subjects: ceil(.9 · 10) = 9th
    assert upper_quantile(residuals, range(9)) == 9
    assert upper_quantile(residuals, range(9), 0.5) == 5
    assert upper_quantile(residuals[:8], range(8)) == np.inf  # eight can't promise nine in ten


def test_cases_of_a_subject_share_its_weight() -> None:
    # three subjects, each 1/4: a's four cases have 1/16 each
    residuals = np.array([1.0, 2, 3, 10, 4, 5])
    subjects = ["a", "a", "a", "a", "b", "c"]
    # up to 3: 3/16; up to 4: 7/16; up to 5: 11/16; up to 10: 12/16
    assert upper_quantile(residuals, subjects, 0.4) == 4
    assert upper_quantile(residuals, subjects, 0.45) == 5
    assert upper_quantile(residuals, subjects, 0.7) == 10
    assert upper_quantile(residuals, subjects, 0.76) == np.inf


def test_coverage_of_new_subjects_whose_cases_resemble_each_other() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        bias = rng.normal(size=60)
        cases = rng.integers(1, 5, 60)
        subjects = np.repeat(np.arange(60), cases)
        residuals = bias[subjects] + rng.normal(0, 0.5, len(subjects))
        bound = upper_quantile(residuals, subjects.tolist())
        new = rng.normal(size=500) + rng.normal(0, 0.5, 500)
        covered.append(np.mean(new <= bound))
    # at least the promised, at most 1 / (S + 1) more (0.016), give or take what 400 draws leave
    assert 0.9 - 0.006 < np.mean(covered) < 0.9 + 0.016 + 0.006


def test_what_can_be_expected_of_so_many_subjects() -> None:
    low, high = coverage_interval(50)
    assert high - low == pytest.approx(4 * 0.041, abs=0.02)  # an sd of .041
    with pytest.raises(ValueError, match="expected at least 9 for a coverage of 0.9"):
        coverage_interval(8)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        upper_quantile(np.zeros(3), range(3), 1.0)
    with pytest.raises(ValueError, match="1 of them NaN"):
        upper_quantile(np.array([0.0, np.nan]), range(2))
    assert upper_quantile(np.empty(0), []) == np.inf


def test_what_nine_subjects_promise_by_hand() -> None:
    """Their largest residual is the bound: its coverage has the distribution Beta(9, 1), x⁹."""
    assert coverage_interval(9) == pytest.approx((0.025 ** (1 / 9), 0.975 ** (1 / 9)))
