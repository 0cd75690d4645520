"""The regression against its normal equations, and what it makes of odd rows."""

import numpy as np
import pytest

from qcjax.quality.ridge import PENALTIES, Ridge, best_penalty, by_subject, cross_predicted, subject_weights


def test_without_a_penalty_it_is_weighted_least_squares() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal([1, -2, 0], [1, 3, 0.2], (200, 3))
    y = 2 + x @ [1.0, -0.5, 3.0] + rng.normal(0, 0.1, 200)
    w = rng.uniform(0.5, 2, 200)
    found = Ridge.fit(x, y, w, 0.0).predict(x)
    root = np.sqrt(w)[:, None]
    design = np.column_stack([np.ones(200), x])
    beta = np.linalg.lstsq(design * root, y * root[:, 0], rcond=None)[0]
    np.testing.assert_allclose(found, design @ beta, atol=1e-6)


def test_a_penalty_draws_to_the_mean() -> None:
    x = np.linspace(-1, 1, 20)[:, None]
    y = 3 * x[:, 0] + 1
    flat = Ridge.fit(x, y, np.ones(20), 1e9).predict(x)
    np.testing.assert_allclose(flat, 1.0, atol=1e-5)


def test_missing_and_infinite_signals() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    ridge = Ridge.fit(x, x[:, 0], np.ones(5), 0.0)
    np.testing.assert_allclose(ridge.predict(np.array([[np.nan]])), [2.0])  # the median's
    assert ridge.predict(np.array([[np.inf]]))[0] == pytest.approx(2 + 5 * np.sqrt(2))  # five spreads out
    with pytest.raises(ValueError, match="2 found, expected 1"):
        ridge.predict(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="all finite"):
        Ridge.fit(x, np.full(5, np.nan), np.ones(5), 1.0)


def test_subjects_are_held_out_whole() -> None:
    subjects = list("aabbbc")
    folds = list(by_subject(subjects, 2))
    np.testing.assert_array_equal(folds[0], [1, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(folds[1], [0, 0, 1, 1, 1, 0])
    np.testing.assert_allclose(subject_weights(subjects), [0.5, 0.5, 1 / 3, 1 / 3, 1 / 3, 1])


def test_a_held_out_subject_is_not_seen() -> None:
    """A subject whose target nothing explains is predicted as the others are, not as itself."""
    x = np.zeros((6, 1))
    y = np.array([1.0, 1, 1, 1, 9, 9])
    found = cross_predicted(x, y, list("aabbcc"), 1.0)
    np.testing.assert_allclose(found[4:], 1.0)
    with pytest.raises(ValueError, match="1 subjects found"):
        cross_predicted(x, y, ["a"] * 6)


def test_noise_is_penalised_and_a_sign_is_not() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 8))
    subjects = list(range(60))
    assert best_penalty(x, rng.normal(size=60), subjects) >= 100
    assert best_penalty(x, x[:, 0] * 2 + rng.normal(0, 0.1, 60), subjects) <= 1


def test_of_one_subject_the_largest_penalty_is_taken() -> None:
    assert best_penalty(np.ones((3, 1)), np.arange(3.0), ["a"] * 3) == max(PENALTIES) == PENALTIES[-1]
