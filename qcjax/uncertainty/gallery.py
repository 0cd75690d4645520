"""Which cases the uncertainty report pictures: the best, the median and the worst, and the most uncertain first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qcjax.report.cards import MAX_FLAGGED_PICTURES, Card, draw_card
from qcjax.report.columns import Row
from qcjax.report.run import figure_path
from qcjax.report.table import DASH, number
from qcjax.uncertainty.pictures import (
    CaseVolumes,
    draw_case,
    load_case,
    most_uncertain_slice,
    position_slices,
)
from qcjax.uncertainty.table import has_truth, select
from qcjax.uncertainty.tables import SCORED, structure_name

PICTURED_ARMS = ("baseline", "proposed")  # as the paper's Fig. 3; any others where these aren't there


@dataclass(frozen=True)
class SubjectRows:
    """The deterministic rows of one subject: arm -> structure -> row."""

    subject: str
    group: str
    arms: Mapping[str, Mapping[str, Row]]

    @property
    def judged(self) -> Mapping[str, Row]:
        """The rows of the arm that a case is ordered by: the proposed one, else the last."""
        return self.arms.get("proposed") or list(self.arms.values())[-1]

    @property
    def uncertainty(self) -> float:
        """Mean variance in the foreground, else in the whole image; NaN where neither was measured."""
        row = next(iter(self.judged.values()))
        return row["variance_foreground"] if math.isfinite(row["variance_foreground"]) else row["variance"]


def cases_of(rows: Sequence[Row]) -> list[SubjectRows]:
    """The subjects, the most uncertain first and those without a measure of it last."""
    found: dict[str, dict[str, dict[str, Row]]] = {}
    for row in select(rows, prediction="deterministic", position="all"):
        found.setdefault(row["subject"], {}).setdefault(row["arm"], {})[row["structure"]] = row
    cases = [
        SubjectRows(subject, next(iter(next(iter(arms.values())).values()))["group"], arms)
        for subject, arms in found.items()
    ]
    return sorted(cases, key=lambda case: -case.uncertainty if math.isfinite(case.uncertainty) else math.inf)


def examples(cases: Sequence[SubjectRows]) -> list[tuple[str, SubjectRows]]:
    """The worst, the median and the best case, and the normal one in which most infarction is predicted.

    By the Dice of the infarction over the cases that have one; where none has, by that of the myocardium.
    """
    chosen: dict[str, tuple[str, SubjectRows]] = {}  # subject -> what it is an example of; each subject once
    for key in ("infarction", "myocardium"):
        own = [case for case in cases if key in case.judged and has_truth(case.judged[key])]
        if key == "infarction":
            own = [case for case in own if case.judged[key]["true_volume_ml"] > 0]
        if own:
            own.sort(key=lambda case: case.judged[key]["dc"])
            places = {"worst": 0, "median": (len(own) - 1) // 2, "best": len(own) - 1}
            for word, place in places.items():
                chosen.setdefault(own[place].subject, (f"{word} by {structure_name(key)}", own[place]))
            break
    false = [case for case in cases if case.group == "normal" and _false_ml(case) > 0]
    if false:
        largest = max(false, key=_false_ml)
        chosen.setdefault(largest.subject, ("normal, most infarction predicted", largest))
    return list(chosen.values())


def _false_ml(case: SubjectRows) -> float:
    return case.judged["infarction"]["volume_ml"] if "infarction" in case.judged else 0.0


def example_cards(rows: Sequence[Row], run_dir: Path) -> list[Card]:
    """Cards of `examples`, each with an apical, a mid and a basal slice (uncertainty paper, Fig. 3)."""
    return [
        _card(case, run_dir, f"example-{word.split()[0]}", True, f"{word}: {case.subject}")
        for word, case in examples(cases_of(rows))
    ]


def uncertain_cards(rows: Sequence[Row], run_dir: Path) -> tuple[list[Card], list[list[str]]]:
    """Cards of the most uncertain cases in their most uncertain slice, and the cells of the others."""
    cases = cases_of(rows)
    cards = [
        _card(case, run_dir, f"uncertain-{case.subject}", False, case.subject)
        for case in cases[:MAX_FLAGGED_PICTURES]
    ]
    return cards, [_cells(case) for case in cases[MAX_FLAGGED_PICTURES:]]


def _card(case: SubjectRows, run_dir: Path, name: str, by_position: bool, title: str) -> Card:
    rows = {arm: next(iter(structures.values())) for arm, structures in case.arms.items()}
    pictured = {arm: row for arm, row in rows.items() if arm in PICTURED_ARMS} or rows

    def draw() -> Path | None:
        volumes = load_case(pictured, run_dir)
        if volumes is None:
            return None
        slices = position_slices(volumes) if by_position else {}
        return draw_case(volumes, slices or _one_slice(volumes), figure_path(run_dir, name))

    which = "an apical, a mid and a basal slice" if by_position else "the slice of the largest variance"
    caption = f"{case.subject}, {which}: image, masks, ground truth and variance of the samples."
    return draw_card(title, [case.group], _describe(case), caption, draw)


def _one_slice(volumes: CaseVolumes) -> dict[str, int]:
    return {"image": most_uncertain_slice(volumes)}


def _describe(case: SubjectRows) -> str:
    """What was measured of a case in every arm."""
    texts = []
    for key in SCORED:
        told = [
            f"{arm} {_percent(rows[key]['dc'])} ({_number(rows[key]['dice_within_samples'], 2)})"
            for arm, rows in case.arms.items()
            if key in rows
        ]
        if told:
            name = structure_name(key)
            texts.append(f"{name[0].upper()}{name[1:]}, DSC (certainty): {', '.join(told)}.")
    if math.isfinite(case.uncertainty):
        texts.append(f"Variance in the foreground {_number(1000 * case.uncertainty, 2)} · 10⁻³.")
    return " ".join(texts)


def _cells(case: SubjectRows) -> list[str]:
    infarction = case.judged.get("infarction", {"dice_within_samples": math.nan, "dc": math.nan})
    return [
        f"{case.subject}, {case.group}" if case.group else case.subject,
        _number(1000 * case.uncertainty, 3),
        _number(infarction["dice_within_samples"], 3),
        _percent(infarction["dc"]),
    ]


def _percent(dice: float) -> str:
    return f"{number(100 * dice, 1)} %" if math.isfinite(dice) else DASH


def _number(value: float, digits: int) -> str:
    return number(value, digits) if math.isfinite(value) else DASH
