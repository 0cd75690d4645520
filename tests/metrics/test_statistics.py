import numpy as np
import pytest
from scipy import stats

from qcjax.metrics.statistics import (
    holm,
    interval_95,
    paired_bootstrap,
    pearson,
    pearson_difference,
    pearson_interval,
    sign_flip_p,
    spearman,
    summary,
)


def test_summary_by_hand():
    assert summary([2.0, 4.0, np.nan, 9.0, np.inf]) == {
        "mean": 5.0,
        "sd": pytest.approx(np.sqrt(13)),
        "n": 3,
        "n_missing": 2,
    }
    assert summary([7.0]) == {"mean": 7.0, "sd": None, "n": 1, "n_missing": 0}
    assert summary([np.nan]) == {"mean": None, "sd": None, "n": 0, "n_missing": 1}
    assert summary([]) == {"mean": None, "sd": None, "n": 0, "n_missing": 0}


def test_bootstrap_direction_and_missing_pairs():
    found = paired_bootstrap([1.0, np.nan, 3.0, 5.0], [2.0, 2.0, 5.0, np.inf], n_resamples=200)
    assert found["mean"] == pytest.approx(1.5)  # b - a
    assert (found["n"], found["n_missing"]) == (2, 2)
    assert found["low"] == 1.0
    assert found["high"] == 2.0


def test_bootstrap_is_the_same_for_the_same_seed():
    a, b = np.random.default_rng(0).normal(size=(2, 30))
    assert paired_bootstrap(a, b, seed=5) == paired_bootstrap(a, b, seed=5)
    assert paired_bootstrap(a, b, seed=5)["low"] != paired_bootstrap(a, b, seed=6)["low"]


def test_bootstrap_agrees_with_scipys():
    a, b = np.random.default_rng(1).normal(size=(2, 80))
    found = paired_bootstrap(a, b + 0.3, seed=0)
    oracle = stats.bootstrap(
        ((b + 0.3 - a),), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(9)
    ).confidence_interval
    assert found["low"] == pytest.approx(oracle.low, abs=0.02)
    assert found["high"] == pytest.approx(oracle.high, abs=0.02)


def test_bootstrap_draws_whole_groups():
    rng = np.random.default_rng(2)
    of_subject = rng.normal(size=40)
    difference = np.repeat(of_subject, 2)  # both phases of a subject tell the same
    subjects = np.repeat([f"{i:03d}" for i in range(40)], 2)
    grouped = paired_bootstrap(np.zeros(80), difference, subjects, seed=3)
    alone = paired_bootstrap(np.zeros(40), of_subject, seed=3)
    ungrouped = paired_bootstrap(np.zeros(80), difference, seed=3)
    assert (grouped["low"], grouped["high"]) == pytest.approx((alone["low"], alone["high"]))
    assert grouped["high"] - grouped["low"] > 1.25 * (ungrouped["high"] - ungrouped["low"])


def test_bootstrap_weighs_pairs_not_groups():
    # groups of sizes 1 and 3: the four equally likely draws have means 0, 3/4, 3/4 and 1
    found = paired_bootstrap(np.zeros(4), [0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"], n_resamples=2000)
    assert found == {"mean": 0.75, "low": 0.0, "high": 1.0, "n": 4, "n_missing": 0}


def test_bootstrap_needs_two_groups():
    found = paired_bootstrap([1.0, 2.0], [2.0, 2.0], ["a", "a"])
    assert (found["mean"], found["low"], found["high"]) == (0.5, None, None)
    assert paired_bootstrap([np.nan], [1.0]) == {
        "mean": None,
        "low": None,
        "high": None,
        "n": 0,
        "n_missing": 1,
    }


def test_correlations():
    a = [1.0, 2.0, 3.0, np.nan, 5.0, 7.0]
    b = [1.0, 4.0, 9.0, 16.0, np.inf, 49.0]
    defined = np.array([1.0, 2.0, 3.0, 7.0])
    assert pearson(a, b) == {"r": pytest.approx(np.corrcoef(defined, defined**2)[0, 1]), "n": 4}
    assert spearman(a, b) == {"r": pytest.approx(1.0), "n": 4}
    assert spearman([1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0])["r"] == pytest.approx(np.sqrt(0.9))


@pytest.mark.parametrize("correlation", [pearson, spearman])
@pytest.mark.parametrize(
    ("a", "b", "n"),
    [([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], 3), ([1.0], [1.0], 1), ([], [], 0), ([1.0, np.nan], [2.0, 1.0], 1)],
)
def test_undefined_correlations(correlation, a, b, n):
    assert correlation(a, b) == {"r": None, "n": n}


def test_what_is_not_paired_is_refused():
    with pytest.raises(ValueError, match="expected pairs"):
        pearson([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="groups"):
        paired_bootstrap([1.0], [2.0], ["a", "b"])
    with pytest.raises(ValueError, match="n_resamples"):
        paired_bootstrap([1.0], [2.0], n_resamples=0)
    with pytest.raises(ValueError, match="one axis"):
        summary(np.ones((2, 2)).tolist())


TARGET = [0.1, 0.9, 0.4, np.nan, 0.7, 0.3, 0.8, 0.2]
FIRST = [1.0, 3.0, 2.0, 5.0, np.inf, 2.5, 2.0, 1.0]
SECOND = [2.0, 2.0, 1.0, 5.0, 4.0, 2.5, 3.0, np.nan]
SUBJECTS = ["c", "a", "a", "b", "b", "c", "d", "d"]


def drawn_again(columns, n_resamples, seed):
    """Of the cases in which all columns are finite: those of each draw of subjects, one by one."""
    table = np.array(columns)
    known = np.isfinite(table).all(axis=0)
    names = sorted({s for s, k in zip(SUBJECTS, known, strict=True) if k})
    times = np.random.default_rng(seed).multinomial(
        len(names), [1 / len(names)] * len(names), size=n_resamples
    )
    for draw in times:
        rows = [
            i
            for i, (s, k) in enumerate(zip(SUBJECTS, known, strict=True))
            if k
            for _ in range(draw[names.index(s)])
        ]
        yield table[:, rows]


def r_of(x, y):
    return np.corrcoef(x, y)[0, 1] if np.ptp(x) > 0 and np.ptp(y) > 0 else np.nan


def test_the_interval_of_pearsons_r_is_that_of_subjects_drawn_again():
    found = pearson_interval(TARGET, SECOND, SUBJECTS, n_resamples=300, seed=4)
    drawn = [r_of(x, y) for x, y in drawn_again((TARGET, SECOND), 300, 4)]
    assert np.isnan(drawn).any()  # one subject alone may be constant
    assert [found["low"], found["high"]] == pytest.approx(list(np.nanquantile(drawn, (0.025, 0.975))))
    known = [i for i in range(8) if np.isfinite(TARGET[i]) and np.isfinite(SECOND[i])]
    assert found["r"] == pytest.approx(r_of(np.array(TARGET)[known], np.array(SECOND)[known]))
    assert found["n"] == 6
    assert pearson_interval(TARGET, SECOND, SUBJECTS) == pearson_interval(TARGET, SECOND, SUBJECTS, 2000, 0)


def test_the_interval_of_a_difference_of_two_rs_is_that_of_the_same_draws():
    found = pearson_difference(TARGET, FIRST, SECOND, SUBJECTS, n_resamples=300, seed=4)
    drawn = [r_of(t, b) - r_of(t, a) for t, a, b in drawn_again((TARGET, FIRST, SECOND), 300, 4)]
    limits = list(np.nanquantile(drawn, (0.025, 0.975)))
    assert [found["low"], found["high"]] == pytest.approx(limits)
    assert (found["n"], found["n_missing"]) == (5, 3)
    whole = np.array([TARGET, FIRST, SECOND])[:, [0, 1, 2, 5, 6]]
    assert found["mean"] == pytest.approx(r_of(whole[0], whole[2]) - r_of(whole[0], whole[1]))
    again = pearson_difference(TARGET, FIRST, SECOND, SUBJECTS)
    assert again == pearson_difference(TARGET, FIRST, SECOND, SUBJECTS, 2000, 0)


def test_two_groups_are_enough_for_an_interval_and_one_is_not():
    a, b, both = [1.0, 2.0, 4.0, 3.0], [1.0, 3.0, 2.0, 5.0], ["a", "a", "b", "b"]
    assert pearson_interval(a, b, both, 50)["low"] is not None
    assert pearson_difference(a, b, a, both, 50)["low"] is not None
    assert pearson_interval(a, b, ["a"] * 4, 50)["low"] is None
    assert pearson_difference(a, b, a, ["a"] * 4, 50)["low"] is None


def test_quantiles_of_what_is_defined():
    assert interval_95(np.array([np.nan, *range(41), np.inf])) == (1.0, 39.0)
    assert interval_95(np.array([np.nan])) == (None, None)


def test_correlations_of_two_pairs_are_defined():
    assert pearson([1.0, 2.0], [3.0, 1.0])["r"] == pytest.approx(-1)
    with pytest.raises(ValueError, match="in 2 groups"):
        pearson_interval([1.0], [2.0], ["a", "b"])


def test_holm_by_hand_keeps_the_order_and_leaves_out_what_is_undefined():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02, np.nan, 0.9]) == [pytest.approx(0.04), None, pytest.approx(0.9)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_sign_flips_by_hand():
    """Of three subjects, all better by 1, 2 of 8 sign patterns reach the sum: a quarter."""
    p = sign_flip_p([0, 0, 0], [1, 1, 1], ["a", "b", "c"], 20_000)
    assert p == pytest.approx(0.25, abs=0.02)
    # both cases of a subject are flipped together: again three
    assert sign_flip_p([0] * 6, [1] * 6, list("aabbcc"), 20_000) == pytest.approx(0.25, abs=0.02)
    assert sign_flip_p([0, 1], [1, 0], ["a", "b"], 500) == 1
    assert sign_flip_p([0, np.nan], [1, 2], ["a", "b"]) is None
    many = sign_flip_p(np.zeros(12), np.ones(12), np.arange(12), 1000)
    assert many == pytest.approx(1 / 1001, abs=0.004)
