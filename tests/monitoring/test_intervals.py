"""The intervals of the monitoring tables: subjects drawn again one cohort at a time, every figure worked out anew."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from scipy import stats

from qcjax.monitoring.ranking import rank_methods
from qcjax.monitoring.risk import summarise_risk
from qcjax.monitoring.summary import summarise_monitoring
from qcjax.monitoring.table import MeasureRow
from tests.monitoring.monitoring_runs import make_measure_row

NAN = math.nan

SEED, DRAWS = 7, 60
KEYS = ("lv", "rv")


def rows_of(
    methods: Sequence[str] = ("a", "b", "c"), subjects: int = 5, rca: bool = True
) -> list[MeasureRow]:
    """Two structures in both phases; some distances undefined."""
    rng = np.random.default_rng(1)
    rows = []
    for method in methods:
        for i in range(subjects):
            for phase in ("ED", "ES"):
                for key in KEYS:
                    dc, hd = rng.uniform(0.3, 0.95), rng.uniform(3, 30)
                    absent = key == "rv" and (method, i) in {(methods[0], 1), ("c", 0), ("c", 1), ("c", 3)}
                    lost = (method, i, phase, key) == ("b", 2, "ES", "lv")  # by the reconstruction
                    pdc = 0.0 if lost else np.clip(dc + rng.normal(0, 0.1), 0, 1)
                    pair = {"dc": dc, "hd": NAN if absent else hd, "pdc": pdc}
                    pair |= {
                        "phd": NAN if lost else hd + rng.normal(0, 4),
                        "suspicion": 2 - dc,
                        "agreement": dc / 2,
                    }
                    estimate = {"rca_dc": rng.uniform(0, 1), "rca_hd": rng.uniform(3, 30)} if rca else {}
                    identity = {"method": method, "subject": f"s{i}", "phase": phase, "structure": key}
                    rows.append(make_measure_row(**identity, **pair, **estimate))
    return rows


def drawn(rows: list[MeasureRow], n: int) -> Iterator[list[MeasureRow]]:
    """The rows of each draw of as many subjects, a subject's as often as it is drawn."""
    names = sorted({r["subject"] for r in rows})
    for times in np.random.default_rng(SEED).multinomial(len(names), [1 / len(names)] * len(names), size=n):
        yield [r for r in rows for _ in range(times[names.index(r["subject"])])]


def limits(values: list[float]) -> list[float]:
    return list(np.nanquantile(values, (0.025, 0.975)))


def counted(rows: list[MeasureRow], column: str, worst: float) -> np.ndarray:
    return np.array([worst if np.isnan(r[column]) else r[column] for r in rows])


def largest(rows: list[MeasureRow], column: str) -> float:
    return max(r[column] for r in rows if not np.isnan(r[column]))


@pytest.fixture(scope="module")
def rows() -> list[MeasureRow]:
    return rows_of()


@pytest.fixture(scope="module")
def scope(rows: list[MeasureRow]) -> dict:
    return summarise_monitoring(rows, seed=SEED, n_resamples=DRAWS)["scopes"]["all"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("measure", "real", "ours", "rca"), [("dc", "dc", "pdc", "rca_dc"), ("hd", "hd", "phd", "rca_hd")]
)
def test_correlations(
    rows: list[MeasureRow], scope: dict, key: str, measure: str, real: str, ours: str, rca: str
) -> None:
    worst = {c: largest(rows, c) if measure == "hd" else NAN for c in (real, ours, rca)}
    own = [r for r in rows if r["structure"] == key]

    def r_of(cases: list[MeasureRow], column: str) -> float:
        return np.corrcoef(counted(cases, real, worst[real]), counted(cases, column, worst[column]))[0, 1]

    for estimator, column in (("ours", ours), ("rca", rca)):
        found = scope["correlation"][estimator][key][measure]["counted"]
        expected = limits([r_of(cases, column) for cases in drawn(own, DRAWS)])
        assert found["r"] == pytest.approx(r_of(own, column))
        assert [found["low"], found["high"]] == pytest.approx(expected)
    found = scope["correlation_differences"][key][measure]
    expected = limits([r_of(cases, ours) - r_of(cases, rca) for cases in drawn(own, DRAWS)])
    assert [found["low"], found["high"]] == pytest.approx(expected)
    replaced = scope["correlation"]["ours"][key][measure]["counted"]
    undefined = sum(np.isnan(r[real]) for r in own)
    lost = int(key == "lv" and measure == "hd")
    assert (replaced["n_replaced_real"], replaced["n_replaced_pseudo"]) == (undefined, lost)


@pytest.mark.parametrize("policy", ["counted", "dropped"])
@pytest.mark.parametrize("key", KEYS)
def test_rankings(rows: list[MeasureRow], scope: dict, policy: str, key: str) -> None:
    own = [r for r in rows if r["structure"] == key and r["phase"] == "ES"]
    worst = {c: largest(rows, c) for c in ("hd", "phd")}

    def r_s(cases: list[MeasureRow]) -> float:
        means = []
        for method in "abc":
            of_method = [r for r in cases if r["method"] == method]
            if policy == "dropped":
                of_method = [r for r in of_method if not (np.isnan(r["hd"]) or np.isnan(r["phd"]))]
            if not of_method:
                return NAN
            means.append([np.mean(counted(of_method, c, worst[c])) for c in ("hd", "phd")])
        real, pseudo = zip(*means, strict=True)
        return stats.spearmanr(real, pseudo).statistic

    found = scope["ranking"][policy]["ES"][key]["r_s"]["ours"]
    assert found["r"] == pytest.approx(r_s(own))
    assert [found["low"], found["high"]] == pytest.approx(limits([r_s(cases) for cases in drawn(own, DRAWS)]))


def test_two_methods_have_an_interval_and_one_has_none() -> None:
    columns = {"hd": "hd", "ours": "phd"}
    own = [r for r in rows_of(("a", "b")) if r["structure"] == "lv" and r["phase"] == "ED"]
    found = rank_methods(own, columns, {"hd": 30.0, "phd": 30.0}, DRAWS, SEED)["r_s"]["ours"]
    assert found["n"] == 2 and found["low"] in (-1, 1) and found["high"] in (-1, 1)
    one = rank_methods(own[:5], columns, {"hd": 30.0, "phd": 30.0}, DRAWS, SEED)["r_s"]["ours"]
    assert one == {"r": None, "n": 1, "low": None, "high": None}


def area(confidence: Sequence[float], loss: Sequence[float]) -> float:
    """Mean risk over all coverages; what is equally sure comes in any order."""
    sure, cost = np.asarray(confidence), np.asarray(loss)
    expected = np.array([cost[sure == own].mean() for own in sure])[np.argsort(-sure, kind="stable")]
    return float((np.cumsum(expected) / np.arange(1, len(sure) + 1)).mean())


CONFIDENCE: dict[str, Callable[[MeasureRow], float]] = {
    "pdc": lambda r: r["pdc"],
    "phd": lambda r: -np.inf if np.isnan(r["phd"]) else -r["phd"],
    "suspicion": lambda r: -r["suspicion"],
    "agreement": lambda r: r["agreement"],
    "rules": lambda r: -r["n_rules"],
    "rca": lambda r: r["rca_dc"],
}


def test_areas(rows: list[MeasureRow]) -> None:
    found = summarise_risk(rows, KEYS, 0.7, True, DRAWS, SEED)
    assert found is not None and found["measures"] == list(CONFIDENCE)
    without = rows[0] | {"subject": "s0", "agreement": NAN, "dc": 0.0}
    more = summarise_risk([*rows, without], KEYS, 0.7, True, DRAWS, SEED)
    assert more is not None and (more["n"], more["n_left_out"]) == (len(rows), 1)
    assert more | {"n_left_out": 0} == found  # a row that lacks a measure isn't compared
    names = sorted({r["subject"] for r in rows})
    rng = np.random.default_rng(SEED)
    cohorts = [
        [r for i in rng.integers(len(names), size=len(names)) for r in rows if r["subject"] == names[i]]
        for _ in range(DRAWS)
    ]
    losses: dict[str, Callable[[MeasureRow], float]] = {
        "failure": lambda r: float(r["dc"] < 0.7 or np.isnan(r["hd"])),
        "graded": lambda r: 1 - r["dc"],
    }
    for name, loss in losses.items():

        def area_of(
            cases: list[MeasureRow], measure: str, loss: Callable[[MeasureRow], float] = loss
        ) -> float:
            return area([CONFIDENCE[measure](r) for r in cases], [loss(r) for r in cases])

        for measure in CONFIDENCE:
            cell = found[name]["measures"][measure]
            assert cell["aurc"] == pytest.approx(area_of(rows, measure))
            assert [cell["low"], cell["high"]] == pytest.approx(
                limits([area_of(c, measure) for c in cohorts])
            )
            if measure != "pdc":
                apart = [area_of(c, measure) - area_of(c, "pdc") for c in cohorts]
                difference = cell["difference"]
                assert [difference["low"], difference["high"]] == pytest.approx(limits(apart))
        for key in KEYS:
            own = [r for r in rows if r["structure"] == key]
            assert found[name]["structures"][key]["phd"]["aurc"] == pytest.approx(area_of(own, "phd"))
        curve = found[name]["curves"]["pdc"]
        assert curve["coverage"][0] == pytest.approx(1 / len(rows)) and curve["coverage"][-1] == 1
        assert curve["risk"][-1] == pytest.approx(np.mean([loss(r) for r in rows]))
    two = summarise_risk([r for r in rows if r["subject"] in ("s0", "s1")], KEYS, 0.7, True, 5, SEED)
    one = summarise_risk([r for r in rows if r["subject"] == "s0"], KEYS, 0.7, True, 5, SEED)
    assert two is not None and two["graded"]["measures"]["pdc"]["low"] is not None
    assert one is not None and one["graded"]["measures"]["pdc"]["low"] is None


def test_a_long_curve_is_kept_by_200_points_with_both_ends() -> None:
    many = [make_measure_row(subject=f"s{i}", dc=0.5, hd=4.0, pdc=i / 500, phd=4.0) for i in range(500)]
    found = summarise_risk(many, ("lv",), 0.7, False, 1, SEED)
    assert found is not None
    coverage = found["graded"]["curves"]["pdc"]["coverage"]
    assert len(coverage) == 200 and coverage[0] == 1 / 500 and coverage[-1] == 1


def test_of_a_masks_structures_the_worst_is_held_against_the_limits() -> None:
    rows = [
        make_measure_row(method=m, structure=key, dc=dc, hd=5.0, pdc=pdc, phd=phd, flag=flag)
        for m, key, dc, pdc, phd, flag in (
            ("a", "lv", 0.9, 0.9, 4.0, ""),
            ("a", "rv", 0.3, 0.4, 60.0, "suspicious"),
            ("b", "lv", 0.9, 0.3, 4.0, "erroneous"),
            ("b", "rv", 0.9, 0.9, 20.0, ""),
        )
    ]
    found = summarise_monitoring(rows, n_resamples=5)
    curves = found["flag_curves"]
    dc, hd = (
        dict(
            zip(
                curves[k]["limits"],
                zip(curves[k]["caught"], curves[k]["false_alarms"], strict=True),
                strict=True,
            )
        )
        for k in ("dc", "hd")
    )
    assert (dc[0.0], dc[0.36], dc[0.42]) == ((1, 0), (1, 1), (1, 1))  # a's distance is above 50 mm
    assert (hd[2], hd[58], hd[60], hd[100]) == ((1, 1),) * 4  # both have a Dice below 0.5
    flagged = found["flagged"]["methods"]
    assert flagged["a"] == {"erroneous": 0, "suspicious": 1, "n": 1}
    assert flagged["b"] == {"erroneous": 1, "suspicious": 0, "n": 1}
