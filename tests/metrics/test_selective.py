import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcjax.metrics import selective

INF = math.inf
scores = st.lists(st.sampled_from([-INF, -1.0, 0.0, 0.5, 2.0, INF]), min_size=1, max_size=7)
results = st.lists(
    st.tuples(st.sampled_from([-INF, 0.0, 0.5, 1.0, INF]), st.sampled_from([0.0, 0.25, 1.0])),
    min_size=1,
    max_size=5,
)


def risks_over_all_orders(confidence, loss):
    """The risk by definition, averaged over every order that the confidences allow."""
    orders = [
        order
        for order in itertools.permutations(range(len(loss)))
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order))
    ]
    risks = [[np.mean([loss[i] for i in order[:k]]) for k in range(1, len(loss) + 1)] for order in orders]
    return np.mean(risks, axis=0)


def test_risk_and_coverage_by_hand():
    coverage, risk = selective.risk_coverage([0.9, 0.2, 0.5, 0.4], [0, 1, 1, 0])
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert selective.aurc([0.9, 0.2, 0.5, 0.4], [0, 1, 1, 0]) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    # of all four: 0, 1/4, 1/4, 1/2
    assert selective.augrc([0.9, 0.2, 0.5, 0.4], [0, 1, 1, 0]) == pytest.approx(1 / 4)
    # ideal: 0, 0, 1/3, 1/2
    assert selective.excess_aurc([0.9, 0.2, 0.5, 0.4], [0, 1, 1, 0]) == pytest.approx(1 / 8)


def test_ties_have_the_same_risk_in_any_order():
    np.testing.assert_allclose(selective.risk_coverage([1, 1, 1, 0], [1, 0, 0, 1]).risk, [1 / 3] * 3 + [0.5])
    np.testing.assert_allclose(selective.risk_coverage([1, 1, 1, 0], [0, 0, 1, 1]).risk, [1 / 3] * 3 + [0.5])


@settings(deadline=None, max_examples=60)
@given(results)
def test_risk_is_its_expectation_over_all_orders(pairs):
    confidence, loss = zip(*pairs, strict=True)
    expected = risks_over_all_orders(confidence, loss)
    np.testing.assert_allclose(selective.risk_coverage(confidence, loss).risk, expected)
    assert selective.aurc(confidence, loss) == pytest.approx(expected.mean())


@settings(deadline=None, max_examples=60)
@given(results)
def test_no_ranking_beats_the_ideal_one(pairs):
    confidence, loss = zip(*pairs, strict=True)
    best = min(
        selective.aurc([-order.index(i) for i in range(len(loss))], loss)
        for order in itertools.permutations(range(len(loss)))
    )
    assert selective.aurc(confidence, loss) - selective.excess_aurc(confidence, loss) == pytest.approx(best)
    assert selective.excess_aurc(confidence, loss) >= -1e-12
    assert selective.excess_aurc(-np.array(loss), loss) == pytest.approx(0)


def test_losses():
    np.testing.assert_array_equal(selective.failure_loss([0.0, 0.69, 0.7, 1.0]), [1, 1, 0, 0])
    np.testing.assert_array_equal(selective.failure_loss([0.4, 0.6], limit=0.5), [1, 0])
    np.testing.assert_allclose(selective.graded_loss([0.0, 0.7, 1.0]), [1, 0.3, 0])
    with pytest.raises(ValueError, match="dc: 1 NaN of 2"):
        selective.failure_loss([math.nan, 1.0])


def test_roc_auc_by_hand():
    assert selective.roc_auc([3, 4], [1, 2]) == 1
    assert selective.roc_auc([1, 2], [3, 4]) == 0
    assert selective.roc_auc([1, 1], [1, 1, 1]) == 0.5
    assert selective.roc_auc([INF, 1], [INF, 0]) == pytest.approx((0.5 + 1 + 0 + 1) / 4)


@settings(deadline=None, max_examples=80)
@given(scores, scores)
def test_roc_auc_counts_pairs(damaged, intact):
    wins = [(d > i) + (d == i) / 2 for d in damaged for i in intact]
    assert selective.roc_auc(damaged, intact) == pytest.approx(np.mean(wins))


def test_detection_rate_by_hand():
    intact = np.arange(100)  # two of them, 98 and 99, may be false alarms
    assert selective.alarm_threshold(intact) == 97
    assert selective.detection_rate([96, 97, 97.5, 200], intact) == 0.5
    assert selective.detection_rate([98, 99, 99.5, 200], intact, false_alarms=0.0) == 0.5
    assert selective.alarm_threshold(intact, false_alarms=0.29) == 70  # 29 lie above
    assert selective.detection_rate([INF, 1], [0, 0], 0.0) == 1
    assert (
        selective.detection_rate([INF, INF], [INF, 0, 0], 0.0) == 0
    )  # nothing is above an infinite threshold


@settings(deadline=None, max_examples=80)
@given(scores, scores, st.sampled_from([0.0, 0.02, 0.2, 0.5, 0.9]))
def test_the_threshold_is_the_smallest_that_is_allowed(damaged, intact, share):
    threshold = selective.alarm_threshold(intact, share)
    assert np.mean(np.array(intact) > threshold) <= share
    lower = [t for t in [-INF, *intact] if t < threshold]
    assert all(np.mean(np.array(intact) > t) > share for t in lower)
    assert selective.detection_rate(damaged, intact, share) == np.mean(np.array(damaged) > threshold)


def test_flag_counts():
    counts = selective.flag_counts([1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 1, 1, 1, 0])
    assert counts == (1, 3, 2, 1)
    assert counts.missed == 3 and counts.false_alarms == 2
    assert selective.flag_counts(np.array([True]), np.array([False])) == (0, 0, 1, 0)
    assert selective.flag_counts([], []) == (0, 0, 0, 0)


def test_flag_curve_over_one_limit_with_the_other_fixed():
    pdc, phd_mm = [0.9, 0.4, 0.6, 0.8, 0.0], [5.0, 20.0, 60.0, 40.0, math.nan]
    failed = [False, True, True, False, True]
    over_dc = selective.flag_curve(pdc, phd_mm, failed, [0.1, 0.5, 0.85], 50.0)
    np.testing.assert_array_equal(over_dc.caught, [2, 3, 3])
    np.testing.assert_array_equal(over_dc.missed, [1, 0, 0])
    np.testing.assert_array_equal(over_dc.false_alarms, [0, 0, 1])
    over_hd = selective.flag_curve(pdc, phd_mm, failed, 0.5, np.array([30.0, 50.0, 100.0]))
    np.testing.assert_array_equal(over_hd.caught, [3, 3, 2])
    np.testing.assert_array_equal(over_hd.false_alarms, [1, 0, 0])
    np.testing.assert_array_equal(over_hd.correctly_passed, [1, 2, 2])


def test_what_is_absent_is_flagged_at_any_limit():
    curve = selective.flag_curve([0.0, 0.9], [math.nan, INF], [1, 1], 0.0, [50.0, INF])
    np.testing.assert_array_equal(curve.caught, [2, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: selective.risk_coverage([math.nan, 1], [0, 1]), "confidence: 1 NaN of 2"),
        (lambda: selective.risk_coverage([1, 1], [0, math.nan]), "loss: 1 NaN"),
        (lambda: selective.risk_coverage([1, 1], [0, INF]), "infinite"),
        (lambda: selective.aurc([1, 1], [0]), "2 confidences and 1 losses"),
        (lambda: selective.aurc([], []), "at least one"),
        (lambda: selective.aurc([[1]], [0]), "expected one axis"),
        (lambda: selective.roc_auc([math.nan], [0]), "score_damaged: 1 NaN"),
        (lambda: selective.roc_auc([], [0]), "0 damaged and 1 intact"),
        (lambda: selective.detection_rate([1], [0], 1.0), "expected a share"),
        (lambda: selective.alarm_threshold([]), "no score"),
        (lambda: selective.flag_counts([1], [1, 0]), "expected pairs"),
        (lambda: selective.flag_counts([2], [1]), "truth values"),
        (lambda: selective.flag_curve([math.nan], [1], [1]), "pdc: 1 NaN"),
        (lambda: selective.flag_curve([0.5], [1, 2], [1]), "expected one"),
        (lambda: selective.flag_curve([0.5], [1], [1], [0.1, 0.2], [1, 2, 3]), "2 and 3 limits"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
