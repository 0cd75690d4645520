"""The monitoring experiment's numbers, against ones worked out by hand and the paper's own table."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from qcjax.metrics.statistics import pearson_difference, pearson_interval
from qcjax.monitoring.gallery import sort_cases
from qcjax.monitoring.ranking import rank_methods
from qcjax.monitoring.summary import summarise_monitoring
from qcjax.monitoring.table import MeasureRow, read_measures, write_measures
from qcjax.report import published
from tests.monitoring.monitoring_runs import make_measure_row, make_rows

NAN = math.nan


def lv_rows(*cells: tuple[float, float, float, float]) -> list[MeasureRow]:
    """One subject each: dc, hd, pdc, phd of the LV."""
    return [
        make_measure_row(subject=f"s{i}", dc=dc, hd=hd, pdc=pdc, phd=phd)
        for i, (dc, hd, pdc, phd) in enumerate(cells)
    ]


# dc 0.9, 0.8, 0.7, 0 with pdc 0.8, 0.8, 0.6, 0: deviations 0.3, 0.2, 0.1, -0.6 and 0.25, 0.25, 0.05, -0.55;
# products 0.46, squares 0.5 and 0.43
FOUR = lv_rows((0.9, 5, 0.8, 4), (0.8, 7, 0.8, 6), (0.7, 20, 0.6, 8), (0.0, NAN, 0.0, NAN))


def test_pearson_with_and_without_failures() -> None:
    cells = summarise_monitoring(FOUR, n_resamples=50)["scopes"]["all"]["correlation"]["ours"]["lv"]["dc"]
    assert cells["counted"]["r"] == pytest.approx(0.46 / math.sqrt(0.5 * 0.43))
    assert cells["counted"]["n"] == 4
    # dropped: 0.1, 0, -0.1 and 1/15, 1/15, -2/15: 0.02 / sqrt(0.02 * 6/225)
    assert cells["dropped"]["r"] == pytest.approx(0.02 / math.sqrt(0.02 * 6 / 225))
    assert (cells["dropped"]["n"], cells["dropped"]["n_dropped"]) == (3, 1)


def test_an_undefined_distance_counts_as_the_worst_of_its_own_column() -> None:
    scope = summarise_monitoring(FOUR, n_resamples=50)["scopes"]["all"]
    assert scope["worst"] == {"hd": 20.0, "phd": 8.0}
    cells = scope["correlation"]["ours"]["lv"]["hd"]
    expected = np.corrcoef([5, 7, 20, 20], [4, 6, 8, 8])[0, 1]
    assert cells["counted"]["r"] == pytest.approx(expected)
    assert [cells["counted"][f"n_replaced_{which}"] for which in ("real", "pseudo", "both")] == [1, 1, 1]
    assert cells["dropped"]["r"] == pytest.approx(np.corrcoef([5, 7, 20], [4, 6, 8])[0, 1])


def test_both_replaced_are_fewer_than_either() -> None:
    rows = lv_rows((0.9, 5, 0.8, 4), (0.0, NAN, 0.0, NAN), (0.0, NAN, 0.9, 6), (0.8, 7, 0.0, NAN))
    counted = summarise_monitoring(rows, n_resamples=5)["scopes"]["all"]["correlation"]["ours"]["lv"]["hd"][
        "counted"
    ]
    assert [counted[f"n_replaced_{which}"] for which in ("real", "pseudo", "both")] == [2, 2, 1]


def test_a_mask_is_dropped_with_all_of_its_structures() -> None:
    rows = lv_rows((0.9, 5, 0.8, 4), (0.8, 7, 0.9, 6), (0.6, 9, 0.9, 8), (0.7, 6, 0.5, 9))
    rv = [
        row | {"structure": "rv"}
        for row in lv_rows((0.9, 5, 0.8, 4), (0.8, 7, 0.8, 6), (0, NAN, 0.4, 8), (0.7, 6, 0.5, 9))
    ]
    cells = summarise_monitoring(rows + rv, n_resamples=50)["scopes"]["all"]["correlation"]["ours"]
    for key in ("lv", "rv"):
        for measure in ("dc", "hd"):
            dropped = cells[key][measure]["dropped"]
            assert (dropped["n"], dropped["n_dropped"]) == (3, 1)
    assert cells["lv"]["dc"]["dropped"]["r"] == pytest.approx(
        np.corrcoef([0.9, 0.8, 0.7], [0.8, 0.9, 0.5])[0, 1]
    )


def test_zero_is_dropped_as_in_the_paper_but_counts_else() -> None:
    rows = lv_rows((1.0, 0.0, 0.9, 3), (0.9, 4, 0.8, 5), (0.8, 9, 0.0, NAN), (0.7, 12, 0.5, 9))
    cells = summarise_monitoring(rows, n_resamples=50)["scopes"]["all"]["correlation"]["ours"]["lv"]
    assert cells["hd"]["dropped"]["n"] == cells["dc"]["dropped"]["n"] == 2
    assert cells["hd"]["counted"]["n"] == cells["dc"]["counted"]["n"] == 4


@pytest.mark.parametrize("phase", ["ED", "ES"])
@pytest.mark.parametrize("key", ["lv", "myo", "rv"])
def test_ranking_of_the_papers_table_gives_the_papers_r_s(phase: str, key: str) -> None:
    rows = [
        make_measure_row(method=method, hd=hd, phd=phd, rca_hd=rca)
        for method, (hd, phd, rca) in published.MONITORING_RANKING[phase][key].items()
        if rca is not None  # the paper's r_s leave out the method for which RCA failed
    ]
    columns = {"hd": "hd", "ours": "phd", "rca": "rca_hd"}
    found = rank_methods(rows, columns, None, 10, 0)["r_s"]
    ours, rca = published.MONITORING_R_S[phase][key]
    assert found["ours"]["r"] == pytest.approx(ours)
    assert found["ours"]["n"] == 5
    assert found["rca"]["r"] == pytest.approx(rca)


def test_ranking_means_and_undefined_distances() -> None:
    rows = [
        make_measure_row(method="a", subject="s1", hd=4.0, phd=2.0),
        make_measure_row(method="a", subject="s2", hd=6.0, phd=4.0),
        make_measure_row(method="b", subject="s1", hd=5.0, phd=3.0),
        make_measure_row(method="b", subject="s2", hd=NAN, phd=NAN),
    ]
    columns = {"hd": "hd", "ours": "phd"}
    counted = rank_methods(rows, columns, {"hd": 30.0, "phd": 10.0}, 50, 0)
    assert (counted["methods"]["a"]["hd"], counted["methods"]["a"]["ours"]) == (5.0, 3.0)
    assert (counted["methods"]["b"]["hd"], counted["methods"]["b"]["ours"]) == (17.5, 6.5)
    assert counted["methods"]["b"]["undefined"] == {"hd": 1, "ours": 1}
    assert counted["r_s"]["ours"]["r"] == pytest.approx(1.0)
    dropped = rank_methods(rows, columns, None, 50, 0)
    assert dropped["methods"]["b"]["hd"] == 5.0 and dropped["methods"]["b"]["n"] == 1
    assert dropped["r_s"]["ours"]["r"] is None  # both means are equal: there is no order to compare


def test_a_distance_of_zero_ranks_nothing_in_the_papers_way() -> None:
    distances = {"a": ((0.0, 2.0), (6.0, 4.0)), "b": ((5.0, 0.0), (9.0, 8.0))}
    rows = [
        make_measure_row(method=method, subject=f"s{i}", hd=hd, phd=phd)
        for method, pairs in distances.items()
        for i, (hd, phd) in enumerate(pairs)
    ]
    columns = {"hd": "hd", "ours": "phd"}
    dropped = rank_methods(rows, columns, None, 10, 0)["methods"]
    assert [(dropped[m]["hd"], dropped[m]["ours"], dropped[m]["n"]) for m in "ab"] == [(6, 4, 1), (9, 8, 1)]
    counted = rank_methods(rows, columns, {"hd": 30.0, "phd": 30.0}, 10, 0)["methods"]
    assert [(counted[m]["hd"], counted[m]["ours"], counted[m]["n"]) for m in "ab"] == [(3, 3, 2), (7, 4, 2)]


def test_methods_are_ranked_over_the_images_that_all_of_them_have() -> None:
    cells = {"a": ((5.0, 3.0), (40.0, 20.0)), "b": ((6.0, 4.0),)}
    rows = [
        make_measure_row(method=method, subject=f"s{i}", hd=hd, phd=phd)
        for method, distances in cells.items()
        for i, (hd, phd) in enumerate(distances)
    ]
    columns = {"hd": "hd", "ours": "phd"}
    found = rank_methods(rows, columns, None, 10, 0)
    assert [found["methods"][m]["hd"] for m in "ab"] == [5.0, 6.0]  # over all that it has, a's mean is 22.5
    assert (found["n_cases"], found["n_left_out"]) == (1, 1)
    apart = rank_methods(rows[1:], columns, {"hd": 40.0, "phd": 20.0}, 10, 0)  # no image of both
    assert (apart["n_cases"], apart["n_left_out"], apart["methods"]["a"]["hd"]) == (0, 2, None)
    assert apart["r_s"]["ours"]["r"] is None


def test_dropping_for_rca_changes_nothing_of_ours() -> None:
    rows = [
        make_measure_row(method=m, subject=f"s{i}", hd=hd, phd=hd / 2, rca_hd=NAN if hd > 30 else hd + 1)
        for m, distances in {"a": (4.0, 50.0), "b": (6.0, 8.0)}.items()
        for i, hd in enumerate(distances)
    ]
    columns = {"hd": "hd", "ours": "phd"}
    alone = rank_methods(rows, columns, None, 20, 0)
    beside = rank_methods(rows, columns | {"rca": "rca_hd"}, None, 20, 0)
    assert beside["r_s"]["ours"] == alone["r_s"]["ours"]
    for method, mean in {"a": 27.0, "b": 7.0}.items():
        assert beside["methods"][method]["hd"] == alone["methods"][method]["hd"] == mean
    assert beside["methods"]["a"]["rca"] == 5.0  # the one that is defined


def test_flags_of_masks_and_structures() -> None:
    def mask(subject: str, lv: tuple[float, float, str], rv: tuple[float, float, str]) -> list[MeasureRow]:
        return [
            make_measure_row(subject=subject, structure=key, dc=dc, hd=hd, flag=flag)
            for key, (dc, hd, flag) in (("lv", lv), ("rv", rv))
        ]

    good = (0.9, 5.0, "")
    rows = [
        *mask("caught", (0.0, NAN, "erroneous"), good),
        *mask("caught too", (0.6, 30.0, "suspicious"), good),
        *mask("by the other", (0.6, 30.0, ""), (0.8, 9.0, "suspicious")),
        *mask("missed", good, (0.69, 12.0, "")),
        *mask("false alarm", (0.9, 5.0, "suspicious"), good),
        *mask("fine", good, (0.7, 12.0, "")),
    ]
    flags = summarise_monitoring(rows, n_resamples=10)["flags"]
    assert flags["case"]["failed"]["all"] == {
        "n": 6, "failures": 4, "caught_erroneous": 1, "caught_suspicious": 2, "missed": 1, "false_alarms": 1,
        "passed": 1,
    }  # fmt: skip
    assert flags["structure"]["failed"]["all"] == {
        "n": 12, "failures": 4, "caught_erroneous": 1, "caught_suspicious": 1, "missed": 2, "false_alarms": 2,
        "passed": 6,
    }  # fmt: skip
    absent = flags["case"]["absent"]["all"]
    assert (absent["failures"], absent["caught_erroneous"], absent["missed"]) == (1, 1, 0)
    assert flags["case"]["failed"]["methods"]["unet"] == flags["case"]["failed"]["all"]


def test_limits_of_the_flags() -> None:
    rows = lv_rows((0.5, 40, 0.45, 30), (0.9, 5, 0.8, 4), (0.0, NAN, 0.0, NAN))
    curves = summarise_monitoring(rows, n_resamples=10)["flag_curves"]
    assert (curves["n"], curves["failures"]) == (3, 2)
    at = {limit: i for i, limit in enumerate(curves["dc"]["limits"])}
    assert [curves["dc"]["caught"][at[limit]] for limit in (0.0, 0.4, 0.5)] == [1, 1, 2]
    assert [curves["dc"]["false_alarms"][at[limit]] for limit in (0.5, 0.82)] == [0, 1]
    assert curves["hd"]["false_alarms"][0] == 1 and curves["hd"]["false_alarms"][-1] == 0


def test_areas_under_risk_coverage_curves() -> None:
    rows = lv_rows((0.9, 5, 0.8, 4), (0.8, 7, 0.9, 6), (0.2, 20, 0.6, 8), (0.6, 20, 0.5, 9))
    for row, n_rules in zip(rows, (0, 0, 0, 2), strict=True):
        row["n_rules"] = n_rules
    risk = summarise_monitoring(rows, n_resamples=40)["scopes"]["all"]["risk"]
    assert risk["measures"] == ["pdc", "phd", "rules"]  # agreement, suspicion and RCA are nowhere defined
    cells = risk["failure"]["measures"]  # failures in the order of pDC: 0 0 1 1
    assert cells["pdc"]["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert cells["pdc"]["excess"] == pytest.approx(0)
    # three masks that break no rule: any order of their one failure alike, so 1/3 at each coverage
    assert cells["rules"]["aurc"] == pytest.approx((1 / 3 + 1 / 3 + 1 / 3 + 2 / 4) / 4)
    assert cells["rules"]["difference"]["mean"] == pytest.approx((1 / 3 + 1 / 3) / 4)
    graded = risk["graded"]["measures"]["pdc"]["aurc"]  # losses 0.2, 0.1, 0.8, 0.4 in the order of pDC
    assert graded == pytest.approx((0.2 + 0.3 / 2 + 1.1 / 3 + 1.5 / 4) / 4)
    ideal = (0.1 + 0.3 / 2 + 0.7 / 3 + 1.5 / 4) / 4
    assert risk["graded"]["measures"]["pdc"]["excess"] == pytest.approx(graded - ideal)


def test_rca_is_compared_on_its_own_masks() -> None:
    results = summarise_monitoring(make_rows(n_subjects=5, n_rca_subjects=2), n_resamples=60)
    assert results["scopes"]["all"]["estimators"] == ["ours"]
    scope = results["scopes"]["rca"]
    assert scope["estimators"] == ["ours", "rca"] and scope["n"]["subjects"] == 2
    for key in ("lv", "myo", "rv"):
        cell = scope["correlation_differences"][key]["hd"]
        r = {name: scope["correlation"][name][key]["hd"]["counted"]["r"] for name in ("ours", "rca")}
        assert cell["mean"] == pytest.approx(r["ours"] - r["rca"])
    assert "rca" in scope["risk"]["measures"] and "rca" not in results["scopes"]["all"]["risk"]["measures"]
    whole = summarise_monitoring(make_rows(n_subjects=3, n_rca_subjects=3), n_resamples=10)
    assert list(whole["scopes"]) == ["all"] and whole["scopes"]["all"]["estimators"] == ["ours", "rca"]


@pytest.mark.parametrize(
    "options",
    [
        {"truth": False},
        {"methods": ("one",)},
        {"n_rca_subjects": 0},
        {"n_subjects": 1},
        {"structures": ("rv",)},
    ],
)
def test_what_is_missing_leaves_the_rest(options: dict) -> None:
    rows = make_rows(**({"n_subjects": 3} | options))
    results = summarise_monitoring(rows, n_resamples=20)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert bool(results["scopes"]) == (options.get("truth", True))
    flagged = results["flagged"]["all"]
    cases = {(row["method"], row["subject"], row["phase"]) for row in rows}
    assert flagged["n"] == len(cases)
    erroneous = {(r["method"], r["subject"], r["phase"]) for r in rows if r["flag"] == "erroneous"}
    assert flagged["erroneous"] == len(erroneous)


def test_same_seed_same_intervals() -> None:
    rows = make_rows(n_subjects=4)
    assert summarise_monitoring(rows, seed=3, n_resamples=30) == summarise_monitoring(
        rows, seed=3, n_resamples=30
    )
    other = summarise_monitoring(rows, seed=4, n_resamples=30)
    assert other != summarise_monitoring(rows, seed=3, n_resamples=30)


def test_interval_of_pearson_covers_the_truth_as_often_as_it_should() -> None:
    rng = np.random.default_rng(0)
    covered, repetitions = 0, 200
    for _ in range(repetitions):
        a = rng.normal(size=80)
        cell = pearson_interval(a, 0.8 * a + 0.6 * rng.normal(size=80), np.arange(80), 300)  # r = 0.8
        assert cell["low"] is not None and cell["high"] is not None
        covered += cell["low"] < 0.8 < cell["high"]
    assert 0.88 < covered / repetitions < 0.99  # 95 % in theory; three standard errors are 4.6 %


def test_pearson_interval_draws_whole_groups() -> None:
    a = np.random.default_rng(1).normal(size=20)
    b = a + np.random.default_rng(2).normal(size=20)
    once = pearson_interval(a, b, np.arange(20), 300)
    repeated = pearson_interval(np.tile(a, 9), np.tile(b, 9), np.tile(np.arange(20), 9), 300)
    for key in ("low", "high"):
        assert repeated[key] == pytest.approx(once[key])  # nine copies of a subject tell nothing new


def test_difference_of_correlations_of_equals_is_zero() -> None:
    a = np.random.default_rng(1).normal(size=12)
    b = a + np.random.default_rng(2).normal(size=12)
    cell = pearson_difference(a, b, b, np.arange(12), 50)
    assert (cell["mean"], cell["low"], cell["high"], cell["n"]) == (0, 0, 0, 12)
    assert pearson_difference(a, b, np.full(12, NAN), np.arange(12), 50)["mean"] is None


def test_table_round_trip(tmp_path: Path) -> None:
    rows = make_rows(n_subjects=2)
    write_measures(tmp_path / "measures.csv", rows)
    again = read_measures(tmp_path / "measures.csv")
    assert [list(row) for row in again] == [list(row) for row in rows]
    for row, found in zip(rows, again, strict=True):
        for column, value in row.items():
            assert found[column] == value or (value != value and found[column] != found[column])
    assert any(math.isinf(row["suspicion"]) for row in again)


def test_table_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "measures.csv"
    with pytest.raises(ValueError, match=r"measure row 0: unknown columns \['dsc'\]"):
        write_measures(path, [make_measure_row(dsc=1.0)])
    write_measures(path, [make_measure_row(pdc=0.25)])
    path.write_text(path.read_text().replace("0.25", "a quarter"))
    with pytest.raises(ValueError, match=r"measures\.csv, line 2, column pdc: 'a quarter' found"):
        read_measures(path)


def test_most_suspicious_flagged_masks_come_first() -> None:
    rows = [
        make_measure_row(subject="1", flag="suspicious", suspicion=2.0),
        make_measure_row(subject="2", flag="", suspicion=5.0),
        make_measure_row(subject="3", flag="erroneous", suspicion=math.inf),
        make_measure_row(subject="4", flag="suspicious", suspicion=3.0),
        make_measure_row(subject="5", flag="", suspicion=0.1),
    ]
    flagged, others = sort_cases(rows)
    assert [case[0]["subject"] for case in flagged] == ["3", "4", "1"]
    assert [case[0]["subject"] for case in others] == ["2", "5"]
