"""The arms of preset ours side by side: where the cases are strange, and where they aren't."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qcjax.config import Mnms2Config
from qcjax.data.subject import Subject
from qcjax.metrics.statistics import holm, paired_bootstrap, sign_flip_p, summary
from qcjax.refinement.gating import gate_source
from qcjax.refinement.table import STAGES, CaseRow, case_name, has_truth
from qcjax.refinement.tables import STAGE_WORDS
from qcjax.report.columns import present
from qcjax.report.table import NBSP, Table, mean_sd, number, signed
from qcjax.runtime.files import without_nan

GROUPS = ("all", "unseen vendor", "unseen disease", "in distribution")
MEASURES = {"dc": "dc_rv", "hd": "hd_rv_mm", "hd95": "hd95_rv_mm"}
COMPARED = (
    "selection",
    "control",
    "refined",
    "random_gate",
    "oracle_gate",
    "gated",
)  # with what the gate keeps to
PRIMARY = ("gated", "hd", ("unseen vendor", "unseen disease"))  # whose p are corrected together (Holm)
RESAMPLES = 2000


def compare_arms(
    rows: Sequence[CaseRow], subjects: Sequence[Subject], config: Mnms2Config
) -> dict[str, dict[str, Any]]:
    """Per segmenter and view: the share of refined masks that the gate takes, and each group's arms and differences.

    Groups are of cases with truth, by whether the labelled subjects have their vendor and their disease. Differences
    are from the stage that the gate keeps to, paired, with bootstrap intervals over subjects, and p by sign flips.

    Args:
      rows: as in `cases.csv`.
      subjects: of the data set.
    """
    labelled = [s for s in subjects if s.part == "train"]
    vendors, diseases = {s.vendor for s in labelled}, {s.disease for s in labelled}
    result: dict[str, dict[str, Any]] = {}
    for segmenter in present(rows, "segmenter"):
        for view in present(rows, "view"):
            own = [r for r in rows if r["segmenter"] == segmenter and r["view"] == view]
            if own:
                found = _of_view(own, vendors, diseases, config.seed)
                result.setdefault(segmenter, {})[view] = without_nan(found)
    return result


def _of_view(rows: Sequence[CaseRow], vendors: set[str], diseases: set[str], seed: int) -> dict[str, Any]:
    stages = present(rows, "stage", STAGES)
    source = gate_source(stages)
    by_stage = {s: {case_name(r): r for r in rows if r["stage"] == s} for s in stages}
    groups: dict[str, Any] = {}
    for group in GROUPS:
        names = [
            n for n, r in by_stage[source].items() if has_truth(r) and _belongs(r, group, vendors, diseases)
        ]
        of_stage = {s: [own[n] for n in names] for s, own in by_stage.items()}
        groups[group] = {
            "stages": {
                s: {m: dict(summary(_column(own, c))) for m, c in MEASURES.items()}
                for s, own in of_stage.items()
            },
            "differences": {
                s: {m: _difference(of_stage[source], of_stage[s], c, seed) for m, c in MEASURES.items()}
                for s in stages
                if s != source
            },
        }
    stage, measure, where = PRIMARY
    primary = [groups[g]["differences"][stage][measure] for g in where if stage in groups[g]["differences"]]
    for cell, p in zip(primary, holm([np.nan if c["p"] is None else c["p"] for c in primary]), strict=True):
        cell["p_holm"] = p
    taken = [
        _same(by_stage["gated"][n], by_stage["refined"][n], by_stage[source][n])
        for n in by_stage.get("gated", ())
    ]
    return {"source": source, "cases": len(taken), "taken": sum(taken), "groups": groups}


def _belongs(row: CaseRow, group: str, vendors: set[str], diseases: set[str]) -> bool:
    """Whether a case is of a group; where the vendor or the disease isn't known, it isn't strange."""
    vendor, disease = (
        bool(row[name]) and row[name] not in seen
        for name, seen in (("vendor", vendors), ("disease", diseases))
    )
    return {
        "all": True,
        "unseen vendor": vendor,
        "unseen disease": disease,
        "in distribution": not vendor and not disease,
    }[group]


def _same(gated: CaseRow, refined: CaseRow, source: CaseRow) -> bool:
    """Whether the gated mask is the refined one; the same masks of both count as kept."""
    return gated["candidate"] == refined["candidate"] != source["candidate"]


def _summaries(rows: Sequence[CaseRow]) -> dict[str, Any]:
    return {measure: dict(summary(_column(rows, column))) for measure, column in MEASURES.items()}


def _column(rows: Sequence[CaseRow], column: str) -> list[float]:
    return [row[column] for row in rows]


def _difference(a: Sequence[CaseRow], b: Sequence[CaseRow], column: str, seed: int) -> dict[str, Any]:
    subjects = [row["subject"] for row in a]
    first, second = _column(a, column), _column(b, column)
    found = dict(paired_bootstrap(first, second, subjects, RESAMPLES, seed))
    return found | {"p": sign_flip_p(first, second, subjects, RESAMPLES, seed)}


def arms_tables(results: Mapping[str, Any], segmenter: str) -> list[Table]:
    """Per view and group of cases: every arm, and its difference from what the gate keeps to."""
    tables = []
    for view, found in (results.get("arms") or {}).get(segmenter, {}).items():
        for group, cells in found["groups"].items():
            rows = []
            for stage, own in cells["stages"].items():
                if not own["dc"]["n"]:
                    continue
                differs = cells["differences"].get(stage)
                texts = [
                    _change(differs[m], digits) if differs else "" for m, digits in (("dc", 3), ("hd", 1))
                ]
                texts += [_change(differs["hd95"], 1) if differs else ""]
                rows.append(
                    [STAGE_WORDS[stage], mean_sd(own["dc"], "dc"), mean_sd(own["hd"], "hd"), *texts,
                     _p(differs["hd"]) if differs else "", str(own["dc"]["n"]), str(own["hd"]["n_missing"])]
                )  # fmt: skip
            against = STAGE_WORDS[found["source"]]
            header = [
                "arm",
                "DC",
                "HD (mm)",
                f"DC against {against}",
                "HD",
                "HD95",
                "p of HD",
                "n",
                "HD undefined",
            ]
            note = (
                f"The gate takes {found['taken']} of {found['cases']} refined masks. Differences with 95 % "
                "intervals by bootstrap over subjects; p by sign flips of subjects, and for the gate over unseen "
                "vendor and disease together by Holm."
            )
            if rows:
                tables.append(Table(f"{view}, right ventricle, {group}", header, rows, note))
    return tables


def _change(cell: Mapping[str, Any], digits: int) -> str:
    return signed(cell, digits)


def _p(cell: Mapping[str, Any]) -> str:
    text = number(cell["p"], 3)
    return f"{text}; Holm{NBSP}{number(cell['p_holm'], 3)}" if cell.get("p_holm") is not None else text
