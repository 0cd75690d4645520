import numpy as np
import pytest

from qcjax import qc
from qcjax.labels import CARDIAC, LV, MYO, RV
from qcjax.metrics.surface import hausdorff_distance
from tests.unchecked import unchecked

NAN = np.nan


def two_maps():
    mask, rebuilt = np.zeros((2, 12, 12), np.uint8), np.zeros((2, 12, 12), np.uint8)
    mask[0, 2:6, 2:6] = LV.id
    rebuilt[0, 2:6, 3:7] = LV.id
    mask[1, 2, 2] = MYO.id
    return mask, rebuilt


def test_pseudo_measures():
    mask, rebuilt = two_maps()
    pdc, phd = qc.pseudo_measures(mask, rebuilt, (10.0, 1.5, 1.5))
    np.testing.assert_allclose(pdc, [0.75, 0, 0])  # MYO in the mask alone, RV in neither
    np.testing.assert_allclose(phd, [1.5, NAN, NAN])
    assert phd[0] == hausdorff_distance(mask == LV.id, rebuilt == LV.id, (10.0, 1.5, 1.5))


def test_absence_may_be_legitimate():
    pdc, phd = qc.pseudo_measures(*two_maps(), (10.0, 1.5, 1.5), (RV, MYO, LV), optional_structures=(RV, MYO))
    np.testing.assert_allclose(pdc, [1, 0, 0.75])  # from both only
    np.testing.assert_allclose(phd, [0, NAN, 1.5])


def test_structures_apart_are_not_absent():
    mask, rebuilt = np.zeros((1, 9, 9), int), np.zeros((1, 9, 9), int)
    mask[0, 1, 1], rebuilt[0, 1, 6] = RV.id, RV.id
    pdc, phd = qc.pseudo_measures(mask, rebuilt, (8.0, 2.0, 2.0), (RV,), optional_structures=(RV,))
    assert (pdc[0], phd[0]) == (0, 10)


def test_inconsistency_map():
    mask, rebuilt = two_maps()
    found = qc.inconsistency_map(mask, rebuilt)
    assert found.sum() == 4 + 4 + 1
    assert found[1, 2, 2]


def test_flags():
    found = qc.flags(np.array([0.0, 0.49, 0.9]), np.array([NAN, 50.0, 50.5]))
    assert [(f.structure, f.kind) for f in found] == [
        ("lv", "erroneous"),
        ("myo", "suspicious"),
        ("rv", "suspicious"),
    ]
    assert "absent" in found[0].reason
    assert "Dice 0.49 is below 0.5" in found[1].reason
    assert "Hausdorff" not in found[1].reason
    assert "50.5 mm is above 50 mm" in found[2].reason
    both = qc.flags(np.array([0.0]), np.array([80.0]), (RV,))
    assert both[0].kind == "suspicious"
    assert " and " in both[0].reason


def test_flags_at_the_limits_and_by_other_limits():
    pdc, phd = np.array([0.5, 0.7, 1.0]), np.array([50.0, 20.0, 0.0])
    assert qc.flags(pdc, phd) == []
    assert [f.structure for f in qc.flags(pdc, phd, hd_limit=10.0, dc_limit=0.6)] == ["lv", "myo"]


def test_thresholds_by_hand():
    pdc = np.array([[0.5, 0.6, 0.7, 0.8, 0.9], [0.4, 0.9, 0.6, 0.7, 0.8]])
    phd = np.array([[9.0, 4.0, 6.0, 8.0, 30.0], [2.0, 5.0, 7.0, 9.0, 10.0]])
    # the best: pDC .5 .9 .7 .8 .9, quartiles .7 and .9; pHD 2 4 6 8 10, quartiles 4 and 8
    low, up = qc.thresholds(pdc, phd)
    assert low == pytest.approx(0.7 - 1.5 * 0.2)
    assert up == pytest.approx(8 + 1.5 * 4)


def test_absent_structures_stay_out_of_both_quartiles():
    rng = np.random.default_rng(0)
    pdc, phd = rng.uniform(0.5, 1, (2, 9)), rng.uniform(1, 20, (2, 9))
    expected = qc.thresholds(pdc, phd)
    # as many cases again in which no candidate has the structure
    more_pdc = np.concatenate([pdc, np.zeros((2, 9))], axis=1)
    more_phd = np.concatenate([phd, np.full((2, 9), NAN)], axis=1)
    assert qc.thresholds(more_pdc, more_phd) == expected
    # a candidate that misses it doesn't count where another has it
    third_pdc, third_phd = np.vstack([pdc, np.zeros(9)]), np.vstack([phd, np.full(9, NAN)])
    assert qc.thresholds(third_pdc, third_phd) == expected
    found = qc.out_of_distribution(more_pdc, more_phd, expected)
    assert found[9:].all()
    np.testing.assert_array_equal(found[:9], qc.out_of_distribution(pdc, phd, expected))


def test_infinite_distances_count_as_absent():
    pdc, phd = np.array([[0.8, 0.9, 0.0]]), np.array([[3.0, 5.0, NAN]])
    assert qc.thresholds(pdc, phd) == qc.thresholds(pdc, np.where(np.isnan(phd), np.inf, phd))


def test_where_nothing_is_defined_nothing_is_in_distribution():
    pdc, phd = np.zeros((3, 4)), np.full((3, 4), NAN)
    limits = qc.thresholds(pdc, phd)
    assert np.isnan(limits).all()
    assert qc.out_of_distribution(pdc, phd, limits).all()
    # nor is a case that has measures: there is nothing to compare it with
    assert qc.out_of_distribution(np.array([[0.9]]), np.array([[3.0]]), limits).all()
    chosen = qc.select(pdc, phd, limits.up)
    np.testing.assert_array_equal(chosen, np.zeros((2, 4)))


def test_one_case_defines_its_own_thresholds():
    pdc, phd = np.array([[0.7], [0.8]]), np.array([[6.0], [9.0]])
    limits = qc.thresholds(pdc, phd)
    assert limits == (0.8, 6.0)
    # no candidate alone meets both: the first fails pDC, the second pHD
    assert qc.out_of_distribution(pdc, phd, limits).all()


def test_out_of_distribution_needs_every_candidate_outside():
    limits = qc.Thresholds(0.6, 12.0)
    pdc = np.array([[0.5, 0.5, 0.6, 0.9, 0.0], [0.9, 0.7, 0.5, 0.0, 0.0]])
    phd = np.array([[5.0, 5.0, 12.0, 12.1, NAN], [5.0, 13.0, 5.0, NAN, NAN]])
    found = qc.out_of_distribution(pdc, phd, limits)
    np.testing.assert_array_equal(found, [False, True, False, True, True])


def test_absence_is_out_of_distribution_under_any_thresholds():
    limits = qc.Thresholds(-1.0, 1e9)  # wide spread: the lower threshold passes a pDC of 0
    found = qc.out_of_distribution(np.array([[0.0, 0.0]]), np.array([[NAN, 40.0]]), limits)
    np.testing.assert_array_equal(found, [True, False])


def test_select():
    pdc = np.array(
        [
            [0.9, 0.9, 0.9, 0.8, 0.0, 0.0],
            [0.8, 0.8, 0.8, 0.8, 0.0, 0.1],
            [0.7, 0.7, 0.7, 0.8, 0.0, 0.0],
        ]
    )
    phd = np.array(
        [
            [9.0, 20.0, 20.0, 10.0, NAN, NAN],
            [8.0, 9.0, 30.0, 3.0, NAN, 50.0],
            [1.0, 1.0, 15.0, 3.0, NAN, NAN],
        ]
    )
    chosen = qc.select(pdc, phd, 10.0)
    # best by pDC passes; the next passes; none passes; 10 isn't below 10; all undefined; one defined
    np.testing.assert_array_equal(chosen.first, [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(chosen.second, [0, 1, 2, 1, 0, 1])


def test_select_breaks_ties_by_the_lower_index():
    chosen = qc.select(np.full((3, 2), 0.8), np.array([[5.0, 50.0]] * 3), 10.0)
    np.testing.assert_array_equal(chosen, np.zeros((2, 2)))


def test_a_structure_elsewhere_ranks_above_an_absent_one():
    chosen = qc.select(np.zeros((2, 1)), np.array([[NAN], [70.0]]), 10.0)
    assert (chosen.first[0], chosen.second[0]) == (1, 1)


def select_one_by_one(pdc, phd, up):
    order = sorted(range(len(pdc)), key=lambda i: (-pdc[i], i))
    for i in order:
        if phd[i] < up:
            return i, i
    by_hd = sorted(range(len(phd)), key=lambda i: (np.inf if np.isnan(phd[i]) else phd[i], i))
    return order[0], by_hd[0]


def test_phases_have_their_own_thresholds():
    rng = np.random.default_rng(4)
    pdc, phd = rng.uniform(0.01, 1, (3, 40)).round(1), rng.uniform(1, 30, (3, 40)).round()
    phases = ["ED", "ES"] * 20
    phd[:, 1::2] *= 3
    limits = qc.thresholds_by_phase(pdc, phd, phases)
    assert limits["ES"] == qc.thresholds(pdc[:, 1::2], phd[:, 1::2])
    assert limits["ED"] != limits["ES"]
    each = qc.by_phase(limits, phases)
    assert each.up.shape == (40,)
    found = qc.out_of_distribution(pdc, phd, each)
    np.testing.assert_array_equal(found[::2], qc.out_of_distribution(pdc[:, ::2], phd[:, ::2], limits["ED"]))
    up = np.where(np.arange(40) % 3, each.up, 6.0)  # low enough that some cases have no candidate
    chosen = qc.select(pdc, phd, up)
    expected = [select_one_by_one(pdc[:, j], phd[:, j], up[j]) for j in range(40)]
    np.testing.assert_array_equal(np.transpose(chosen), expected)
    assert (chosen.first != chosen.second).any()


@unchecked()
def test_what_makes_no_sense_is_refused():
    mask, rebuilt = two_maps()
    with pytest.raises(ValueError, match="same shape"):
        qc.inconsistency_map(mask, rebuilt[:1])
    with pytest.raises(ValueError, match="phd"):
        qc.flags(np.ones(3), np.ones(2), CARDIAC)
    good = np.ones((2, 3))
    with pytest.raises(ValueError, match="pdc: NaN"):
        qc.select(good * NAN, good, 1.0)
    with pytest.raises(ValueError, match="one for each case"):
        qc.thresholds_by_phase(good, good, ["ED"])
    with pytest.raises(ValueError, match="phases"):
        qc.by_phase({"ED": qc.Thresholds(0.0, 1.0)}, ["ED", "ES"])
    with pytest.raises(ValueError, match="candidates, cases"):
        qc.thresholds(np.ones((0, 3)), np.ones((0, 3)))
