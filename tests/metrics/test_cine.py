"""Curves drawn by hand, and what is wrong with them."""

import numpy as np
import pytest

from qcjax.metrics.cine import curve_faults, find_phases

T = np.arange(30) / 30
BEAT = 120 - 35 * (1 - np.cos(2 * np.pi * T))  # 120 ml at the start, 50 ml in frame 16


def test_phases_are_the_extremes() -> None:
    assert find_phases(BEAT) == (0, 15)
    assert find_phases(np.array([np.nan, 3.0, 1.0, 3.0])) == (1, 2)


def test_a_sound_beat_has_no_faults() -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, 30)
    assert curve_faults(BEAT + noise) == []
    # a plateau of diastasis and a late atrial kick are no second minimum
    kick = BEAT.copy()
    kick[22:26] = kick[22]
    assert curve_faults(kick) == []


def test_one_frame_that_failed_jumps() -> None:
    broken = BEAT.copy()
    broken[8] -= 40
    assert curve_faults(broken) == ["frame 9 jumps by 33 ml"]


def test_a_curve_that_falls_twice() -> None:
    twice = 100 - 25 * (1 - np.cos(4 * np.pi * np.arange(32) / 32))
    assert curve_faults(twice) == ["2 minima, in frames 9, 25"]


def test_a_scan_that_starts_in_systole() -> None:
    assert curve_faults(np.roll(BEAT, 12)) == [
        "the largest volume is in frame 13 of 30, not near the start or the end"
    ]


def test_lost_and_empty_frames_are_said() -> None:
    holes = BEAT.copy()
    holes[3], holes[15] = np.nan, 0.0
    found = curve_faults(holes)
    assert found[:2] == ["frame 4 has no volume", "frame 16 is empty"]
    assert curve_faults(np.full(6, 5.0)) == ["the volume is the same in all frames"]


def test_of_two_frames_nothing_can_be_said() -> None:
    assert curve_faults(np.array([100.0, 40.0])) == []


@pytest.mark.parametrize("volumes", [[1.0], [np.nan, 2.0], [0.0, 0.0]])
def test_no_curve(volumes: list[float]) -> None:
    with pytest.raises(ValueError, match="expected at least two, not all empty"):
        find_phases(np.array(volumes))


def test_a_jump_is_measured_from_the_nearer_neighbour() -> None:
    broken = BEAT.copy()
    broken[22] -= 40  # to 41.3 ml, between 74.2 and 88.7
    assert curve_faults(broken) == ["frame 23 jumps by 33 ml"]
