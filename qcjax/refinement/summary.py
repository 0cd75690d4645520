"""The numbers of the report: ablation, averages, intervals, QC correlations, clinical errors.

The ablation is that of the refinement paper (Galati & Zuluaga, STACOM 2021, Fig. 3), with a control beside
it. All of it is computed from the rows of `cases.csv`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qcjax.data.subject import PHASES, VIEWS
from qcjax.metrics.statistics import paired_bootstrap, pearson, spearman, summary
from qcjax.refinement.clinical import clinical
from qcjax.refinement.failures import summarise_failures
from qcjax.refinement.table import IDENTITY_COLUMNS, NUMBER_COLUMNS, STAGES, STRUCTURES, CaseRow, has_truth
from qcjax.report.columns import groups, present
from qcjax.runtime.files import without_nan

MEASURES = {"dc": "dc_rv", "hd": "hd_rv_mm"}  # of the right ventricle: key in the results -> column
VIEW_WEIGHTS = {"SA": 0.75, "LA": 0.25}  # the challenge's average
COMPARISONS = (  # (b, a): the difference is b - a
    ("mean", "segmenter"),
    ("mirrored", "segmenter"),
    ("largest", "segmenter"),
    ("baseline", "segmenter"),
    ("selection", "segmenter"),
    ("control", "segmenter"),
    ("refined", "segmenter"),
    ("selection", "baseline"),
    ("refined", "baseline"),
    ("refined", "selection"),
    ("refined", "control"),
    ("gated", "baseline"),
    ("gated", "control"),
    ("gated", "refined"),
    ("gated", "random_gate"),
    ("oracle_gate", "baseline"),
)
PARTS_WITH_TRUTH = ("validation", "test")
SCORED_PARTS = ("test", "validation")  # the first that has truth makes the headline


def summarise(rows: Sequence[CaseRow], *, n_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Every table of the report as nested dictionaries that JSON can hold (None, never NaN).

    Args:
      rows: as in `cases.csv`.
      n_resamples: of each bootstrap; subjects are resampled, so that ED and ES of one stay together.
      seed: of the bootstraps.

    Returns:
      `scored_part` ("test", "validation" or None), `ablation[segmenter][view][stage]`,
      `average[segmenter][stage]`, `differences[segmenter][view or "AVG"]["b - a"]`,
      `qc[segmenter][view]`, `clinical[segmenter][stage]`; where dropout samples were drawn, also
      `failures[segmenter][view][structure]`.
    """
    frame = pd.DataFrame(rows, columns=[*IDENTITY_COLUMNS, *NUMBER_COLUMNS])
    part = scored_part(rows)
    of = groups(frame, "segmenter")
    scored = {name: own[_has_truth(own) & (own["part"] == part)] for name, own in of.items()}

    def interval(a: np.ndarray, b: np.ndarray, subjects: Sequence[str]) -> dict[str, Any]:
        return dict(paired_bootstrap(a, b, subjects, n_resamples=n_resamples, seed=seed))

    def by_view(own: pd.DataFrame, tell: Callable[[pd.DataFrame], dict[str, Any]]) -> dict[str, Any]:
        return {view: tell(cases) for view, cases in groups(own, "view", VIEWS).items()}

    def errors(own: pd.DataFrame, name: str) -> dict[str, Any]:
        short = scored[name][scored[name]["view"] == "SA"]
        return {stage: clinical(short[short["stage"] == stage]) for stage in present(own, "stage", STAGES)}

    tables = {
        "scored_part": part,
        "ablation": {
            name: by_view(own, lambda cases: _by_stage(cases, part, interval)) for name, own in of.items()
        },
        "average": {name: _averages(own, part) for name, own in of.items()},
        "differences": {name: _differences(own, interval) for name, own in scored.items()},
        "qc": {
            name: by_view(own, lambda cases: qc_correlations(cases[cases["stage"] == "segmenter"]))
            for name, own in of.items()
        },
        "clinical": {name: errors(own, name) for name, own in of.items()},
    }
    failures = summarise_failures(rows, seed, n_resamples)
    return without_nan(tables | ({"failures": failures} if failures else {}))


def scored_part(rows: Iterable[CaseRow]) -> str | None:
    """The part that makes the headline: test where any of it has truth, else validation, else None."""
    parts = {row["part"] for row in rows if has_truth(row)}
    return next((part for part in SCORED_PARTS if part in parts), None)


def qc_correlations(rows: pd.DataFrame) -> dict[str, Any]:
    """How well pseudo measures follow the real ones over the cases with truth.

    Returns:
      `dc` and `hd` of the RV, and per structure under `structures`, each `{pearson, spearman}: {r, n}`.
      A case whose pseudo or real distance is undefined is left out of `hd` (see its n).
    """
    known = rows[_has_truth(rows)]
    structures = {
        key: {
            "dc": _correlation(known[f"pdc_{key}"], known[f"dc_{key}"]),
            "hd": _correlation(known[f"phd_{key}_mm"], known[f"hd_{key}_mm"]),
        }
        for key in STRUCTURES
    }
    return {**structures["rv"], "structures": structures}


def _correlation(pseudo: pd.Series, real: pd.Series) -> dict[str, Any]:
    x, y = pseudo.to_numpy(float), real.to_numpy(float)
    return {"pearson": dict(pearson(x, y)), "spearman": dict(spearman(x, y))}


Interval = Callable[[np.ndarray, np.ndarray, Sequence[str]], dict[str, Any]]


def _has_truth(rows: pd.DataFrame) -> pd.Series:
    return rows["dc_rv"].notna()


def _by_stage(rows: pd.DataFrame, part: str | None, interval: Interval) -> dict[str, Any]:
    result = {}
    for stage, own in groups(rows, "stage", STAGES).items():
        known = own[_has_truth(own)]
        headline = known[known["part"] == part]
        result[stage] = {
            **_measures(headline, interval),
            "structures": {key: _measures(headline, columns=_columns(key)) for key in STRUCTURES},
            "by_disease": {name: _measures(of) for name, of in groups(headline, "disease").items()},
            "by_vendor": {name: _measures(of) for name, of in groups(headline, "vendor").items()},
            "by_part": {name: _measures(known[known["part"] == name], interval) for name in PARTS_WITH_TRUTH},
        }
    return result


def _columns(structure: str) -> dict[str, str]:
    return {"dc": f"dc_{structure}", "hd": f"hd_{structure}_mm"}


def _measures(
    rows: pd.DataFrame, interval: Interval | None = None, columns: dict[str, str] = MEASURES
) -> dict[str, dict[str, Any]]:
    """Per measure mean, sd, n, n_missing and, with `interval`, the mean's 95 % limits `low` and `high`."""
    result: dict[str, dict[str, Any]] = {}
    for measure, column in columns.items():
        values = rows[column].to_numpy(float)
        result[measure] = dict(summary(values))
        if interval is not None:  # of the mean: its paired difference from 0
            limits = interval(np.zeros_like(values), values, rows["subject"].tolist())
            result[measure] |= {"low": limits["low"], "high": limits["high"]}
    return result


def _averages(rows: pd.DataFrame, part: str | None) -> dict[str, Any]:
    known = rows[_has_truth(rows)]
    return {
        stage: {
            **_average(known[known["stage"] == stage], part),
            "by_part": {name: _average(known[known["stage"] == stage], name) for name in PARTS_WITH_TRUTH},
        }
        for stage in present(rows, "stage", STAGES)
    }


def _average(known: pd.DataFrame, part: str | None) -> dict[str, Any]:
    """The challenge's average of the views' means; both None, with a reason, where a view has no truth."""
    of_part = known[known["part"] == part]
    means = {view: _measures(of_part[of_part["view"] == view]) for view in VIEW_WEIGHTS}
    lacking = [view for view in VIEW_WEIGHTS if means[view]["dc"]["n"] == 0]
    missing = sum(of_view["hd"]["n_missing"] for of_view in means.values())
    if lacking:
        reason = f"no scored cases of view {' and '.join(lacking)}"
        return {"dc": None, "hd": None, "n_missing": missing, "reason": reason}
    undefined = [view for view in VIEW_WEIGHTS if means[view]["hd"]["n"] == 0]
    reason = f"every Hausdorff distance of view {' and '.join(undefined)} is undefined"

    def weighted(measure: str) -> float:
        return sum(weight * means[view][measure]["mean"] for view, weight in VIEW_WEIGHTS.items())

    return {
        "dc": weighted("dc"),
        "hd": None if undefined else weighted("hd"),
        "n_missing": missing,  # distances, over both views
        "reason": reason if undefined else None,
    }


def _differences(rows: pd.DataFrame, interval: Interval) -> dict[str, Any]:
    views = groups(rows, "view", VIEWS)
    result = {view: _compare(own, interval) for view, own in views.items()}
    if set(VIEW_WEIGHTS) <= set(views):
        result["AVG"] = _compare(_subject_averages(rows), interval)
    return result


def _compare(rows: pd.DataFrame, interval: Interval) -> dict[str, Any]:
    """Per pair of stages and measure: the paired difference b - a over the cases where both are defined."""
    stages = {s: own.set_index(["subject", "phase"]) for s, own in groups(rows, "stage", STAGES).items()}
    result: dict[str, Any] = {}
    for b, a in COMPARISONS:
        if a not in stages or b not in stages:
            continue
        shared = stages[a].index[stages[a].index.isin(stages[b].index)]
        first, second = stages[a].loc[shared], stages[b].loc[shared]
        result[f"{b} - {a}"] = {
            measure: interval(
                first[column].to_numpy(float),
                second[column].to_numpy(float),
                shared.get_level_values("subject").tolist(),
            )
            for measure, column in MEASURES.items()
        }
    return result


def _subject_averages(rows: pd.DataFrame) -> pd.DataFrame:
    """Per stage and subject that has both views, the weighted average of the views' means over phases."""
    columns = list(MEASURES.values())
    averages = []
    for (stage, subject), own in rows.groupby(["stage", "subject"], sort=False):
        means = {view: cases[columns].mean(skipna=False) for view, cases in groups(own, "view").items()}
        if set(VIEW_WEIGHTS) <= set(means):
            average = {
                column: sum(weight * means[view][column] for view, weight in VIEW_WEIGHTS.items())
                for column in columns
            }
            averages.append({"stage": stage, "subject": subject, "phase": " and ".join(PHASES)} | average)
    return pd.DataFrame(averages, columns=["stage", "subject", "phase", *columns])
