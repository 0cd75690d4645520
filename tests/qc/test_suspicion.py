"""The scale of doubt, by hand."""

import numpy as np
import pytest

from qcjax.labels import LV, MYO
from qcjax.qc.suspicion import LEAST_SPREAD, TrainingSpread, features

TWO = (LV, MYO)


def test_features_by_hand() -> None:
    mask, rebuilt = np.zeros((2, 2, 6, 6), np.uint8)
    mask[:, 1:3, 1:3] = 1
    mask[:, 4, :] = 2
    rebuilt[:] = mask
    rebuilt[1, 1, 1:3] = 0  # two pixels of 2 × 3 mm
    found = features(mask, rebuilt, (8.0, 2.0, 3.0), np.array([0.9, 1.0]), np.array([2.0, 0.0]), TWO)
    expected = [[0.1, 0.0], [2.0, 0.0], [12**0.5, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_structure_that_is_lost_and_comes_back_shows_by_its_area() -> None:
    mask = np.zeros((5, 6, 6), np.uint8)
    for s, size in enumerate((2, 4, 1, 3, 2)):
        mask[s, :size, 0] = 1
    mask[:, 5, 0] = 2
    found = features(mask, mask, (8.0, 2.0, 3.0), np.ones(2), np.zeros(2), TWO)
    np.testing.assert_allclose(found[3], [(2 * 6.0) ** 0.5, 0.0])  # slice 3 lacks two pixels to slice 4


def test_a_structure_that_ends_too_early_shows_by_what_goes_on_without_it() -> None:
    mask = np.zeros((5, 6, 6), np.uint8)
    for s, size in enumerate((0, 0, 3, 4, 2)):
        mask[s, :size, 0] = 1
    for s, size in enumerate((2, 6, 6, 4, 0)):
        mask[s, 5, :size] = 2
    found = features(mask, mask, (8.0, 2.0, 3.0), np.ones(2), np.zeros(2), TWO)
    np.testing.assert_allclose(found[4], [8 / 18, 2 / 9])


@pytest.mark.parametrize(
    ("slices", "gaps"), [("0110", 0), ("1011", 1), ("10010", 2), ("1010100", 2), ("1", 0), ("000", 0)]
)
def test_slices_that_lack_a_structure_between_two_that_have_it_are_counted(slices: str, gaps: int) -> None:
    mask = np.zeros((len(slices), 4, 4), np.uint8)
    mask[[s == "1" for s in slices], 0, 0] = 1
    mask[:, 3, 3] = 2
    found = features(mask, mask, (8.0, 1.0, 1.0), np.ones(2), np.zeros(2), TWO)
    assert found[5].tolist() == [gaps, 0]


def test_a_single_structure_has_no_others() -> None:
    mask = np.ones((2, 4, 4), np.uint8)
    found = features(mask, mask, (8.0, 1.0, 1.0), np.ones(1), np.zeros(1), (LV,))
    np.testing.assert_array_equal(found, np.zeros((6, 1)))


def test_an_absent_structure_is_infinitely_suspicious() -> None:
    mask = np.zeros((1, 4, 4), np.uint8)
    found = features(mask, mask, (8.0, 1.0, 1.0), np.zeros(2), np.array([np.nan, np.nan]), TWO)
    assert np.isinf(found).all()
    reference = TrainingSpread.of([np.full((6, 2), v) for v in (0.0, 1.0, 2.0)])
    assert reference.suspicion(found) == np.inf


def test_the_limit_lets_two_in_a_hundred_through() -> None:
    rng = np.random.default_rng(0)
    measured = list(rng.exponential(size=(500, 6, 2)))
    reference = TrainingSpread.of(measured)
    above = np.mean([reference.suspicion(m) > 1 for m in measured])
    assert above == pytest.approx(0.02, abs=0.003)
    assert reference.suspicion(np.array(reference.median)) == 0
    assert TrainingSpread.from_json(reference.to_json()) == reference


def test_masks_that_are_rebuilt_alike_have_the_scale_of_their_least_spread() -> None:
    reference = TrainingSpread.of([np.zeros((6, 2))] * 3)
    assert (reference.limit, reference.n) == (1.0, 3)
    assert reference.spread == [[least] * 2 for least in LEAST_SPREAD]


def test_one_measure_far_out_is_enough() -> None:
    reference = TrainingSpread.of(list(np.random.default_rng(1).normal(size=(100, 6, 2))))
    far = np.array(reference.median)
    far[2, 1] += 200
    assert reference.suspicion(far) > 10


def test_one_bad_reference_mask_in_twenty_blunts_no_measure() -> None:
    sound = np.random.default_rng(3).exponential(scale=20, size=(200, 6, 2))
    outliers = sound[:10] + np.array([[0], [1000], [0], [0], [0], [0]])
    clean, spoilt = (np.array(TrainingSpread.of(list(x)).spread) for x in (sound, [*sound, *outliers]))
    assert (spoilt < 1.5 * clean).all()


def test_the_reconstructions_three_measures_count_as_one() -> None:
    reference = TrainingSpread.of(list(np.random.default_rng(4).normal(size=(100, 6, 1))))
    median, spread = np.array(reference.median), np.array(reference.spread)
    thrice, once = median.copy(), median.copy()
    thrice[:3] += spread[:3]
    once[3] += spread[3]
    assert reference.suspicion(thrice) == pytest.approx(reference.suspicion(once))
    assert reference.suspicion(once) == pytest.approx(1 / reference.limit)


def test_masks_without_every_structure_set_no_scale() -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        TrainingSpread.of([np.full((6, 2), np.inf)])


def test_what_is_rebuilt_better_than_usual_is_not_suspicious() -> None:
    spread = TrainingSpread([[1.0]] * 6, [[0.5]] * 6, 1.0, 5, [1.0] * 6)
    assert spread.suspicion(np.zeros((6, 1))) == 0
    worse = np.zeros((6, 1))
    worse[3] = 2.0  # two spreads above the median
    assert spread.suspicion(worse) == 2
