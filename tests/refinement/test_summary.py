"""The report's numbers, worked out by hand on small tables."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from qcjax.refinement.summary import scored_part, summarise
from qcjax.refinement.table import CaseRow
from qcjax.refinement.tables import average_hd

NewRow = Callable[..., CaseRow]


def scored(new_row: NewRow, stage: str, values: list[tuple[float, float]], **columns: Any) -> list[CaseRow]:
    """Rows of subjects 201, 202, ... with these Dice and distances."""
    return [
        new_row(stage=stage, subject=str(201 + i), dc_rv=dc, hd_rv_mm=hd, **columns)
        for i, (dc, hd) in enumerate(values)
    ]


def test_mean_sd_and_missing(new_row: NewRow) -> None:
    rows = scored(new_row, "segmenter", [(0.8, 10.0), (0.9, 14.0), (0.0, math.nan)])
    cell = summarise(rows, n_resamples=50)["ablation"]["nnunet"]["SA"]["segmenter"]
    assert cell["dc"]["mean"] == pytest.approx(1.7 / 3)
    assert cell["dc"]["sd"] == pytest.approx(
        math.sqrt(0.73 / 3)
    )  # squares about .5667: .0544, .1111, .3211; by n - 1
    assert (cell["dc"]["n"], cell["dc"]["n_missing"]) == (3, 0)
    assert (cell["hd"]["mean"], cell["hd"]["n"], cell["hd"]["n_missing"]) == (12.0, 2, 1)
    assert cell["hd"]["sd"] == pytest.approx(math.sqrt(8))
    assert 10.0 <= cell["hd"]["low"] <= 12.0 <= cell["hd"]["high"] <= 14.0


def test_by_disease_vendor_and_part(new_row: NewRow) -> None:
    rows = [
        new_row(subject="201", disease="NOR", vendor="GE", dc_rv=0.9, hd_rv_mm=5.0),
        new_row(subject="202", disease="HCM", vendor="GE", dc_rv=0.7, hd_rv_mm=9.0),
        new_row(subject="161", disease="TRI", vendor="Philips", part="validation", dc_rv=0.5, hd_rv_mm=20.0),
    ]
    cell = summarise(rows, n_resamples=50)["ablation"]["nnunet"]["SA"]["segmenter"]
    assert {name: value["dc"]["mean"] for name, value in cell["by_disease"].items()} == {
        "NOR": 0.9,
        "HCM": 0.7,
    }
    assert cell["by_vendor"]["GE"]["hd"]["mean"] == 7.0
    assert list(cell["by_vendor"]) == ["GE"]
    assert (cell["by_part"]["validation"]["dc"]["mean"], cell["by_part"]["test"]["dc"]["n"]) == (0.5, 2)


def test_average_weighs_the_views(new_row: NewRow) -> None:
    rows = scored(new_row, "segmenter", [(0.8, 12.0)]) + scored(new_row, "segmenter", [(0.6, 4.0)], view="LA")
    average = summarise(rows, n_resamples=50)["average"]["nnunet"]["segmenter"]
    assert average["dc"] == pytest.approx(0.75 * 0.8 + 0.25 * 0.6)
    assert average["hd"] == pytest.approx(0.75 * 12 + 0.25 * 4)
    assert average["reason"] is None and average["n_missing"] == 0


def test_average_counts_the_distances_that_it_leaves_out(new_row: NewRow) -> None:
    rows = scored(new_row, "segmenter", [(0.9, 8.0), (0.0, math.nan)])
    rows += scored(new_row, "segmenter", [(0.9, 8.0), (0.0, math.nan)], view="LA")
    average = summarise(rows, n_resamples=50)["average"]["nnunet"]["segmenter"]
    assert (average["dc"], average["hd"], average["n_missing"]) == (pytest.approx(0.45), 8.0, 2)
    assert average_hd(average) == "8.0\n(2\u00a0undefined)"


@pytest.mark.parametrize(
    ("la_rows", "reason"),
    [
        ([], "no scored cases of view LA"),
        ([(0.0, math.nan)], "every Hausdorff distance of view LA is undefined"),
    ],
)
def test_average_says_why_it_is_absent(
    new_row: NewRow, la_rows: list[tuple[float, float]], reason: str
) -> None:
    rows = scored(new_row, "segmenter", [(0.8, 12.0)]) + scored(new_row, "segmenter", la_rows, view="LA")
    average = summarise(rows, n_resamples=50)["average"]["nnunet"]["segmenter"]
    assert average["hd"] is None
    assert average["reason"] == reason


def test_differences_are_paired(new_row: NewRow) -> None:
    before = scored(new_row, "segmenter", [(0.5, 20.0), (0.6, 30.0), (0.7, math.nan)])
    after = scored(new_row, "refined", [(0.6, 15.0), (0.7, 25.0), (0.8, 8.0)])
    differences = summarise([*before, *reversed(after)], n_resamples=50)["differences"]["nnunet"]["SA"]
    assert list(differences) == ["refined - segmenter"]
    dc, hd = differences["refined - segmenter"]["dc"], differences["refined - segmenter"]["hd"]
    assert [dc[key] for key in ("mean", "low", "high")] == pytest.approx([0.1] * 3)
    assert [hd[key] for key in ("mean", "low", "high")] == pytest.approx([-5.0] * 3)
    assert (dc["n"], hd["n"], hd["n_missing"]) == (3, 2, 1)


def test_intervals_draw_whole_subjects(new_row: NewRow) -> None:
    """With one subject there is no spread between subjects, however many cases it has."""
    rows = [
        new_row(stage=stage, phase=phase, dc_rv=dc, hd_rv_mm=9.0)
        for stage, phase, dc in [
            ("segmenter", "ED", 0.5), ("segmenter", "ES", 0.5), ("refined", "ED", 0.6), ("refined", "ES", 0.9)
        ]
    ]  # fmt: skip
    dc = summarise(rows, n_resamples=50)["differences"]["nnunet"]["SA"]["refined - segmenter"]["dc"]
    assert dc["mean"] == pytest.approx(0.25)
    assert (dc["low"], dc["high"], dc["n"]) == (None, None, 2)


def test_average_difference_takes_subjects_with_both_views(new_row: NewRow) -> None:
    rows = []
    for stage, gain in (("segmenter", 0.0), ("selection", 0.04)):
        rows += scored(new_row, stage, [(0.5 + gain, 9.0), (0.6 + gain, 9.0)])
        rows += scored(new_row, stage, [(0.5, 5.0)], view="LA")
    difference = summarise(rows, n_resamples=50)["differences"]["nnunet"]["AVG"]["selection - segmenter"][
        "dc"
    ]
    assert difference["mean"] == pytest.approx(0.75 * 0.04)
    assert difference["n"] == 1


def test_headline_falls_back_to_validation_and_then_to_nothing(new_row: NewRow) -> None:
    test, validation = new_row(), new_row(part="validation", dc_rv=0.4, hd_rv_mm=9.0)
    assert scored_part([test, validation]) == "validation"
    assert scored_part([test | {"dc_rv": 0.1}, validation]) == "test"
    results = summarise([test], n_resamples=50)
    assert results["scored_part"] is None
    cell = results["ablation"]["nnunet"]["SA"]["segmenter"]["dc"]
    assert (cell["mean"], cell["sd"], cell["n"]) == (None, None, 0)


def test_json_gets_no_nan(new_row: NewRow) -> None:
    rows = [*scored(new_row, "segmenter", [(0.5, math.nan)]), *scored(new_row, "refined", [(0.5, math.inf)])]
    json.dumps(summarise(rows, n_resamples=50), allow_nan=False)


def test_qc_correlations(new_row: NewRow) -> None:
    rows = [
        new_row(subject=str(201 + i), pdc_rv=pdc, dc_rv=dc, phd_rv_mm=phd, hd_rv_mm=hd)
        for i, (pdc, dc, phd, hd) in enumerate(
            [(0.1, 0.2, 1.0, 3.0), (0.2, 0.4, 2.0, 2.0), (0.3, 0.6, 3.0, 1.0), (0.0, 0.0, math.nan, 9.0)]
        )
    ]
    rows.append(new_row(stage="refined", subject="201", pdc_rv=0.9, dc_rv=0.0))
    qc = summarise(rows, n_resamples=50)["qc"]["nnunet"]["SA"]
    assert qc["dc"]["pearson"] == {"r": pytest.approx(1.0), "n": 4}
    assert qc["hd"]["spearman"] == {"r": pytest.approx(-1.0), "n": 3}
    assert qc["structures"]["lv"]["dc"]["pearson"]["r"] is None


def test_ejection_fraction_and_volume_errors(new_row: NewRow) -> None:
    def row(phase: str, volume_ml: float, truth_ml: float, subject: str = "201") -> CaseRow:
        return new_row(
            phase=phase, subject=subject, dc_rv=0.9, volume_rv_ml=volume_ml, truth_volume_rv_ml=truth_ml
        )

    rows = [row("ED", 100.0, 100.0), row("ES", 50.0, 40.0), row("ED", 90.0, 100.0, subject="202")]
    clinical = summarise(rows, n_resamples=50)["clinical"]["nnunet"]["segmenter"]
    assert clinical["ef"]["rv"] == {"mae_points": 10.0, "bias_points": -10.0, "n": 1, "n_missing": 0}
    assert clinical["volume"]["rv"]["ED"] == {"mae_ml": 5.0, "bias_ml": -5.0, "n": 2, "n_missing": 0}
    assert clinical["volume"]["lv"]["ED"] == {"mae_ml": None, "bias_ml": None, "n": 0, "n_missing": 2}
