import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcjax.metrics import failure_detection
from qcjax.metrics.failure_detection import failure_table, higher_is_better
from qcjax.metrics.selective import aurc, excess_aurc
from qcjax.metrics.statistics import bootstrap_weights, interval_95, pearson, pearson_interval, spearman

DC = np.array([0.9, 0.2, 0.7, 0.5])


def cohort(seed, subjects=8):
    """Results of subjects of different sizes, with ties, and two measures of different worth."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"s{i}" for i in range(subjects)], rng.integers(1, 4, size=subjects))
    dc = rng.random(groups.size).round(1)
    good = (dc + 0.2 * rng.normal(size=dc.size)).round(1)
    poor = (dc + 2.0 * rng.normal(size=dc.size)).round(1)
    return dc, {"good": good, "poor": poor}, groups


def resamples(groups, n_resamples, seed):
    """The results of each bootstrap sample, one by one."""
    names, members = np.unique(groups, return_inverse=True)
    for weights in bootstrap_weights(names.size, n_resamples, seed).astype(int):
        yield np.repeat(np.arange(len(groups)), weights[members])


def test_figures_by_hand():
    found = failure_table(DC, {"ideal": DC * 10, "worst": -DC}, list("abcd"), n_resamples=50)
    assert list(found) == ["ideal", "worst"]
    # losses 0.1, 0.3, 0.5, 0.8 in this order: risks 0.1, 0.2, 0.3, 0.425
    assert found["ideal"]["aurc"]["value"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.425) / 4)
    assert found["ideal"]["excess_aurc"]["value"] == 0
    assert found["ideal"]["excess_aurc"]["high"] == pytest.approx(0, abs=1e-12)
    assert found["ideal"]["pearson"]["r"] == pytest.approx(1)
    spearman_of_worst = found["worst"]["spearman"]
    assert [spearman_of_worst[key] for key in ("r", "low", "high")] == pytest.approx([-1, -1, -1])
    # 0.8, 1.3 / 2, 1.6 / 3, 1.7 / 4
    assert found["worst"]["aurc"]["value"] == pytest.approx((0.8 + 0.65 + 1.6 / 3 + 0.425) / 4)
    assert found["ideal"]["n"] == 4
    assert found["ideal"]["difference"] is None


def test_what_grows_with_uncertainty_is_negated():
    better = {"dice_within_samples", "pairwise_dice", "pdc"}
    found = higher_is_better({name: [2.0] for name in failure_detection.MEASURES})
    assert {name for name, values in found.items() if values[0] == 2} == better
    assert {name for name, values in found.items() if values[0] == -2} == found.keys() - better
    assert len(found) == 10


def test_what_is_undefined_is_the_worst():
    measure = np.array([3.0, np.nan, 2.0, 2.5])
    found = failure_table(
        DC, {"m": measure, "infinite": np.where(measure > 0, measure, -np.inf)}, list("abcd")
    )
    assert found["m"] == found["infinite"]
    assert found["m"]["n_undefined"] == 1
    assert found["m"]["n"] == found["m"]["pearson"]["n"] == found["m"]["spearman"]["n"] == 4
    # in ranks below every other, for Pearson's r level with the lowest
    assert found["m"]["spearman"]["r"] == pytest.approx(spearman(DC, [4, 1, 2, 3])["r"])
    assert found["m"]["pearson"]["r"] == pytest.approx(pearson(DC, [3, 2, 2, 2.5])["r"])
    assert found["m"]["aurc"]["value"] == pytest.approx(aurc([4, 1, 2, 3], 1 - DC))


def test_results_without_truth_are_dropped_and_counted():
    dc, measures, groups = cohort(0)
    known = failure_table(dc, measures, groups, n_resamples=100)
    more = failure_table(
        np.append(dc, [np.nan, np.nan]),
        {name: np.append(v, [9.0, np.nan]) for name, v in measures.items()},
        np.append(groups, ["x", "y"]),
        n_resamples=100,
    )
    for name in measures:
        assert known[name]["n_dropped"] == 0
        assert more[name]["n_dropped"] == 2
        assert more[name] | {"n_dropped": 0} == known[name]


def test_nothing_to_tell():
    empty = {"r": None, "low": None, "high": None}
    none_defined = failure_table(DC, {"m": [np.nan] * 4, "ok": DC}, list("abcd"), reference="ok")["m"]
    assert none_defined["pearson"] == empty | {"n": 0}
    assert none_defined["spearman"]["r"] is none_defined["spearman"]["low"] is None
    assert none_defined["aurc"] == {"value": None, "low": None, "high": None}
    assert all(d["mean"] is d["low"] is None for d in none_defined["difference"].values())
    assert none_defined["n_undefined"] == 4
    no_truth = failure_table([np.nan] * 2, {"m": [1.0, 2.0]}, ["a", "b"])["m"]
    assert (no_truth["n"], no_truth["n_dropped"], no_truth["aurc"]["value"]) == (0, 2, None)
    one_subject = failure_table(DC, {"m": DC}, ["a"] * 4)["m"]
    assert one_subject["aurc"]["value"] is not None
    assert (
        one_subject["aurc"]["low"] is one_subject["spearman"]["high"] is one_subject["pearson"]["low"] is None
    )
    constant = failure_table(DC, {"m": np.ones(4)}, list("abcd"))["m"]
    assert constant["spearman"]["r"] is constant["spearman"]["low"] is None
    assert constant["aurc"]["value"] == pytest.approx((1 - DC).mean())  # any order is as likely


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6))
def test_intervals_match_resampling_one_by_one(seed):
    dc, measures, groups = cohort(seed)
    found = failure_table(dc, measures, groups, seed=seed, reference="poor", n_resamples=60)
    drawn = {"spearman": [], "aurc": [], "excess_aurc": [], "d_spearman": [], "d_aurc": []}
    for i in resamples(groups, 60, seed):
        good, poor = measures["good"][i], measures["poor"][i]
        r = [spearman(dc[i], v)["r"] for v in (good, poor)]
        r = [np.nan if x is None else x for x in r]
        areas = [aurc(v, 1 - dc[i]) for v in (good, poor)]
        drawn["spearman"].append(r[0])
        drawn["aurc"].append(areas[0])
        drawn["excess_aurc"].append(excess_aurc(good, 1 - dc[i]))
        drawn["d_spearman"].append(r[0] - r[1])
        drawn["d_aurc"].append(areas[0] - areas[1])
    good = found["good"]
    for key in ("spearman", "aurc", "excess_aurc"):
        assert (good[key]["low"], good[key]["high"]) == pytest.approx(
            interval_95(np.array(drawn[key])), abs=1e-9
        )
    for key in ("spearman", "aurc"):
        limits = good["difference"][key]["low"], good["difference"][key]["high"]
        assert limits == pytest.approx(interval_95(np.array(drawn[f"d_{key}"])), abs=1e-9)
    assert good["pearson"] == pearson_interval(dc, measures["good"], groups, 60, seed)


def test_differences_have_the_sign_of_what_is_better():
    dc, measures, groups = cohort(3, subjects=40)
    found = failure_table(dc, measures, groups, reference="poor", n_resamples=500)
    difference = found["good"]["difference"]
    for key in ("pearson", "spearman"):
        assert difference[key]["mean"] == pytest.approx(found["good"][key]["r"] - found["poor"][key]["r"])
        assert difference[key]["low"] > 0
    assert difference["aurc"]["mean"] == pytest.approx(
        found["good"]["aurc"]["value"] - found["poor"]["aurc"]["value"]
    )
    assert difference["aurc"]["high"] < 0
    assert all((d["n"], d["n_missing"]) == (found["good"]["n"], 0) for d in difference.values())
    assert found["poor"]["difference"] is None


def test_chunks_change_nothing(monkeypatch):
    dc, measures, groups = cohort(5)
    whole = failure_table(dc, measures, groups, reference="good", n_resamples=97)
    monkeypatch.setattr(failure_detection, "_CHUNK", 10 * dc.size)
    assert failure_table(dc, measures, groups, reference="good", n_resamples=97) == whole
    assert failure_table(dc, measures, groups, seed=1, n_resamples=97) != whole


def test_uncertainty_is_negated():
    columns = {
        "dice_within_samples": [0.9, 0.2],
        "variance": [0.1, 0.3],
        "phd_mm": [3.0, np.inf],
        "pdc": [1.0, np.nan],
    }
    turned = failure_detection.higher_is_better(columns)
    np.testing.assert_array_equal(turned["dice_within_samples"], [0.9, 0.2])
    np.testing.assert_array_equal(turned["variance"], [-0.1, -0.3])
    np.testing.assert_array_equal(
        turned["phd_mm"], [-3.0, -np.inf]
    )  # an absent structure: undefined, the worst
    found = failure_table([0.9, 0.2], turned, ["a", "b"])
    assert all(entry["spearman"]["r"] == pytest.approx(1) for entry in found.values())
    with pytest.raises(ValueError, match="measures: colour found"):
        failure_detection.higher_is_better({"colour": [1.0]})


def test_what_does_not_go_together_is_refused():
    for arguments, options, message in [
        ((DC, {"m": [0.1, 0.2, 0.3]}, list("abcd")), {}, r"m: shape \(3,\) found, expected \(4,\)"),
        ((DC, {"m": DC}, list("abc")), {}, "groups: shape"),
        ((DC, {"m": DC}, list("abcd")), {"reference": "pdc"}, "reference: 'pdc' found, expected one of m"),
        ((DC, {"m": DC + np.inf}, list("abcd")), {}, r"m: \+∞ found"),
        ((DC, {"m": DC}, list("abcd")), {"n_resamples": 0}, "n_resamples: 0 found"),
    ]:
        with pytest.raises(ValueError, match=message):
            failure_table(*arguments, **options)
