"""The gate between source and refined masks, by hand."""

import numpy as np
import pytest

from qcjax.qc.gate import gate, oracle_gate, random_gate, reason
from tests.unchecked import unchecked

NAN = np.nan


def test_only_a_gain_above_the_bound_is_accepted() -> None:
    source = np.array([[0.80, 0.70], [0.80, 0.70], [0.80, 0.70]])
    refined = np.array([[0.84, 0.74], [0.82, 0.71], [0.75, 0.65]])
    found = gate(source, refined, 0.02)
    assert found.gain == pytest.approx([0.04, 0.015, -0.05])
    assert found.accepted.tolist() == [True, False, False]
    assert gate(source, refined, 0.014).accepted.tolist() == [True, True, False]
    assert not gate(source, source, 0.0).accepted.any()  # what isn't better stays the source's


def test_a_structure_that_loses_more_than_the_bound_keeps_the_source() -> None:
    source, refined = np.array([[0.60, 0.90]]), np.array([[0.80, 0.86]])
    found = gate(source, refined, 0.02)
    assert found.gain == pytest.approx([0.08])
    assert not found.accepted.any()
    assert gate(source, refined, 0.05).accepted.all()


def test_a_structure_found_again_is_a_gain_and_one_that_is_lost_a_loss() -> None:
    found = gate(np.array([[0.0, 0.9], [0.7, 0.9]]), np.array([[0.7, 0.9], [0.0, 0.99]]))
    assert found.accepted.tolist() == [True, False]


def test_what_is_unknown_in_both_says_nothing_and_in_one_keeps_the_source() -> None:
    source = np.array([[NAN, 0.7], [NAN, 0.7], [0.8, 0.7], [NAN, NAN]])
    refined = np.array([[NAN, 0.8], [0.9, 0.8], [NAN, 0.8], [NAN, NAN]])
    found = gate(source, refined)
    assert found.accepted.tolist() == [True, False, False, False]
    assert found.gain[:3] == pytest.approx([0.1, 0.1, 0.1]) and np.isnan(found.gain[3])


def test_the_reason_says_what_decided() -> None:
    a, b = np.array([0.6, 0.9]), np.array([0.8, 0.86])
    assert reason(a, b, 0.02) == "a structure's predicted Dice falls by 0.040, more than 0.02"
    assert reason(a, b, 0.05) == "predicted Dice changes by +0.080, more than 0.05"
    assert reason(a, a, 0.02) == "predicted Dice changes by +0.000, not more than 0.02"
    assert reason(np.array([NAN]), np.array([NAN])) == "no quality is predicted of both masks"
    assert "can't be compared" in reason(np.array([NAN, 0.5]), np.array([0.5, 0.9]))


def test_the_random_gate_changes_as_many_cases_and_other_ones() -> None:
    accepted = np.arange(40) < 10
    draws = [random_gate(accepted, seed) for seed in range(200)]
    assert {int(x.sum()) for x in draws} == {10}
    assert np.mean(draws, 0) == pytest.approx(0.25, abs=0.15)
    assert (draws[3] == random_gate(accepted, 3)).all()


def test_the_oracle_takes_the_truly_better_mask_and_an_undefined_one_is_worse() -> None:
    source, refined = np.array([9.0, 5.0, NAN, 4.0, 3.0, NAN]), np.array([8.0, 6.0, 30.0, NAN, 3.0, NAN])
    assert oracle_gate(source, refined, smaller_is_better=True).tolist() == [
        True,
        False,
        True,
        False,
        False,
        False,
    ]
    assert oracle_gate(source, refined).tolist() == [False, True, True, False, False, False]


@pytest.mark.parametrize(
    ("refined", "bound", "said"),
    [(np.zeros((2, 3)), 0.02, "expected both"), (np.zeros((2, 2)), -1.0, "at least 0")],
)
def test_unfitting_arguments_are_refused(refined: np.ndarray, bound: float, said: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=said):
        gate(np.zeros((2, 2)), refined, bound)
