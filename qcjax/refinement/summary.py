"""The numbers of the report: ablation, averages, intervals, QC correlations, clinical errors.

The ablation is that of the refinement paper (Galati & Zuluaga, STACOM 2021, Fig. 3), with a control beside
it. All of it is computed from the rows of `cases.csv`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from qcjax.data.subject import PHASES, VIEWS
from qcjax.metrics.statistics import paired_bootstrap, pearson, spearman, summary
from qcjax.refinement.clinical import clinical
from qcjax.refinement.failures import summarise_failures
from qcjax.refinement.table import STAGES, STRUCTURES, CaseRow, has_truth
from qcjax.report.columns import present
from qcjax.runtime.files import without_nan

MEASURES = {"dc": "dc_rv", "hd": "hd_rv_mm"}  # of the right ventricle: key in the results -> column
VIEW_WEIGHTS = {"SA": 0.75, "LA": 0.25}  # the challenge's average
COMPARISONS = (  # (b, a): the difference is b - a
    ("selection", "segmenter"),
    ("control", "segmenter"),
    ("refined", "segmenter"),
    ("refined", "selection"),
    ("refined", "control"),
)
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
    part = scored_part(rows)
    scored = [row for row in rows if row["part"] == part and has_truth(row)]
    segmenters = present(rows, "segmenter")

    def interval(a: Sequence[float], b: Sequence[float], groups: Sequence[str]) -> dict[str, Any]:
        return dict(paired_bootstrap(a, b, groups, n_resamples=n_resamples, seed=seed))

    tables = {
        "scored_part": part,
        "ablation": {
            segmenter: {
                view: _by_stage(_of(rows, segmenter=segmenter, view=view), part, interval)
                for view in present(_of(rows, segmenter=segmenter), "view", VIEWS)
            }
            for segmenter in segmenters
        },
        "average": {segmenter: _averages(_of(rows, segmenter=segmenter), part) for segmenter in segmenters},
        "differences": {
            segmenter: _differences(_of(scored, segmenter=segmenter), interval) for segmenter in segmenters
        },
        "qc": {
            segmenter: {
                view: qc_correlations(_of(rows, segmenter=segmenter, view=view, stage="segmenter"))
                for view in present(_of(rows, segmenter=segmenter), "view", VIEWS)
            }
            for segmenter in segmenters
        },
        "clinical": {
            segmenter: {
                stage: clinical(_of(scored, segmenter=segmenter, stage=stage, view="SA"))
                for stage in present(_of(rows, segmenter=segmenter), "stage", STAGES)
            }
            for segmenter in segmenters
        },
    }
    failures = summarise_failures(rows, seed, n_resamples)
    return without_nan(tables | ({"failures": failures} if failures else {}))


def scored_part(rows: Iterable[CaseRow]) -> str | None:
    """The part that makes the headline: test where any of it has truth, else validation, else None."""
    parts = {row["part"] for row in rows if has_truth(row)}
    return next((part for part in SCORED_PARTS if part in parts), None)


def qc_correlations(rows: Iterable[CaseRow]) -> dict[str, Any]:
    """How well pseudo measures follow the real ones over the cases with truth.

    Returns:
      `dc` and `hd` of the RV, and per structure under `structures`, each `{pearson, spearman}: {r, n}`.
      A case whose pseudo or real distance is undefined is left out of `hd` (see its n).
    """
    known = [row for row in rows if has_truth(row)]
    structures = {
        key: {
            "dc": _correlation(known, f"pdc_{key}", f"dc_{key}"),
            "hd": _correlation(known, f"phd_{key}_mm", f"hd_{key}_mm"),
        }
        for key in STRUCTURES
    }
    return {**structures["rv"], "structures": structures}


Interval = Callable[[Sequence[float], Sequence[float], Sequence[str]], dict[str, Any]]


def _of(rows: Iterable[CaseRow], **columns: str) -> list[CaseRow]:
    return [row for row in rows if all(row[column] == value for column, value in columns.items())]


def _by_stage(rows: list[CaseRow], part: str | None, interval: Interval) -> dict[str, Any]:
    result = {}
    for stage in present(rows, "stage", STAGES):
        known = [row for row in _of(rows, stage=stage) if has_truth(row)]
        headline = [row for row in known if row["part"] == part]
        result[stage] = {
            **_measures(headline, interval),
            "structures": {key: _measures(headline, columns=_columns(key)) for key in STRUCTURES},
            "by_disease": {
                name: _measures(_of(headline, disease=name)) for name in present(headline, "disease")
            },
            "by_vendor": {
                name: _measures(_of(headline, vendor=name)) for name in present(headline, "vendor")
            },
            "by_part": {name: _measures(_of(known, part=name), interval) for name in ("validation", "test")},
        }
    return result


def _columns(structure: str) -> dict[str, str]:
    return {"dc": f"dc_{structure}", "hd": f"hd_{structure}_mm"}


def _measures(
    rows: list[CaseRow], interval: Interval | None = None, columns: dict[str, str] = MEASURES
) -> dict[str, dict[str, Any]]:
    """Per measure mean, sd, n, n_missing and, with `interval`, the mean's 95 % limits `low` and `high`."""
    result: dict[str, dict[str, Any]] = {}
    for measure, column in columns.items():
        values = [row[column] for row in rows]
        result[measure] = dict(summary(values))
        if interval is not None:  # of the mean: its paired difference from 0
            limits = interval([0.0] * len(rows), values, [row["subject"] for row in rows])
            result[measure] |= {"low": limits["low"], "high": limits["high"]}
    return result


def _averages(rows: list[CaseRow], part: str | None) -> dict[str, Any]:
    return {
        stage: {
            **_average(_of(rows, stage=stage), part),
            "by_part": {name: _average(_of(rows, stage=stage), name) for name in ("validation", "test")},
        }
        for stage in present(rows, "stage", STAGES)
    }


def _average(rows: list[CaseRow], part: str | None) -> dict[str, Any]:
    """The challenge's average of the views' means; both None, with a reason, where a view has no truth."""
    means = {
        view: _measures(
            [row for row in rows if row["view"] == view and row["part"] == part and has_truth(row)]
        )
        for view in VIEW_WEIGHTS
    }
    lacking = [view for view in VIEW_WEIGHTS if means[view]["dc"]["n"] == 0]
    missing = sum(of_view["hd"]["n_missing"] for of_view in means.values())
    if lacking:
        reason = f"no scored cases of view {' and '.join(lacking)}"
        return {"dc": None, "hd": None, "n_missing": missing, "reason": reason}
    undefined = [view for view in VIEW_WEIGHTS if means[view]["hd"]["n"] == 0]
    return {
        "dc": sum(weight * means[view]["dc"]["mean"] for view, weight in VIEW_WEIGHTS.items()),
        "hd": None
        if undefined
        else sum(weight * means[view]["hd"]["mean"] for view, weight in VIEW_WEIGHTS.items()),
        "n_missing": missing,  # distances, over both views
        "reason": f"every Hausdorff distance of view {' and '.join(undefined)} is undefined"
        if undefined
        else None,
    }


def _differences(rows: list[CaseRow], interval: Interval) -> dict[str, Any]:
    views = present(rows, "view", VIEWS)
    result = {view: _compare(_of(rows, view=view), interval) for view in views}
    if set(VIEW_WEIGHTS) <= set(views):
        result["AVG"] = _compare(_subject_averages(rows), interval)
    return result


def _compare(rows: list[CaseRow], interval: Interval) -> dict[str, Any]:
    """Per pair of stages and measure: the paired difference b - a over the cases where both are defined."""
    stages = {
        stage: {(row["subject"], row["phase"]): row for row in _of(rows, stage=stage)}
        for stage in present(rows, "stage", STAGES)
    }
    result: dict[str, Any] = {}
    for b, a in COMPARISONS:
        if a not in stages or b not in stages:
            continue
        shared = [key for key in stages[a] if key in stages[b]]
        subjects = [subject for subject, _ in shared]
        result[f"{b} - {a}"] = {
            measure: interval(
                [stages[a][key][column] for key in shared],
                [stages[b][key][column] for key in shared],
                subjects,
            )
            for measure, column in MEASURES.items()
        }
    return result


def _subject_averages(rows: list[CaseRow]) -> list[CaseRow]:
    """Per stage and subject that has both views, the weighted average of the views' means over phases."""
    cells: dict[tuple[str, str, str], list[CaseRow]] = {}
    for row in rows:
        cells.setdefault((row["stage"], row["subject"], row["view"]), []).append(row)
    averages: list[CaseRow] = []
    for stage, subject in dict.fromkeys((stage, subject) for stage, subject, _ in cells):
        if any((stage, subject, view) not in cells for view in VIEW_WEIGHTS):
            continue
        average: CaseRow = {"stage": stage, "subject": subject, "phase": " and ".join(PHASES)}
        for column in MEASURES.values():
            average[column] = sum(
                weight * float(np.mean([case[column] for case in cells[stage, subject, view]]))
                for view, weight in VIEW_WEIGHTS.items()
            )
        averages.append(average)
    return averages


def _correlation(rows: list[CaseRow], pseudo: str, real: str) -> dict[str, Any]:
    x, y = [row[pseudo] for row in rows], [row[real] for row in rows]
    return {"pearson": dict(pearson(x, y)), "spearman": dict(spearman(x, y))}
