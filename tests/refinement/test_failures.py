"""Which measure finds the failures: worked out by hand, told in a table, shown on the page where there are samples."""

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qcjax.metrics.failure_detection import failure_table
from qcjax.refinement import page
from qcjax.refinement.failures import summarise_failures
from qcjax.refinement.summary import summarise
from qcjax.refinement.table import UNCERTAINTY_COLUMNS, CaseRow, read_cases, write_cases
from qcjax.refinement.tables import failure_tables

NewRow = Callable[..., CaseRow]
REAL = (0.9, 0.8, 0.6, 0.2)


def sampled(new_row: NewRow) -> list[CaseRow]:
    """Four subjects: DiceWithinSamples in the order of the real Dice, variance too, pDC in the opposite order."""
    rows = [
        new_row(
            segmenter="acdc_unet", subject=str(201 + i), dc_rv=dc, dc_lv=dc, dc_myo=0.5, pdc_rv=1 - dc, pdc_lv=dc,
            dws_rv=dc / 2, dws_lv=math.nan, dws_myo=0.9, variance=0.01 * i, variance_foreground=0.02 * i,
        )
        for i, dc in enumerate(REAL)
    ]  # fmt: skip
    rows[3] |= {"variance_foreground": math.nan}  # no foreground
    blind = [rows[0] | {"subject": "205", "dc_rv": math.nan}]  # without truth
    later = [row | {"stage": "refined"} for row in rows]  # of the other stages no samples are drawn
    for row in later:
        for column in UNCERTAINTY_COLUMNS:
            row.pop(column, None)
    others = [new_row(subject=str(201 + i), dc_rv=dc) for i, dc in enumerate(REAL)]  # nnunet
    return rows + blind + later + others


def test_figures_by_hand(new_row: NewRow) -> None:
    found = summarise_failures(sampled(new_row), n_resamples=100)
    assert {segmenter: list(views) for segmenter, views in found.items()} == {"acdc_unet": ["SA"]}
    cells = found["acdc_unet"]["SA"]["rv"]
    assert list(cells) == ["dice_within_samples", "variance", "variance_foreground", "pdc"]
    ideal = (0.1 + 0.3 / 2 + 0.7 / 3 + 1.5 / 4) / 4  # losses .1, .2, .4, .8, accepted in that order
    worst = (0.8 + 1.2 / 2 + 1.4 / 3 + 1.5 / 4) / 4
    for name in ("dice_within_samples", "variance", "variance_foreground"):
        assert cells[name]["aurc"]["value"] == pytest.approx(ideal)
        assert cells[name]["excess_aurc"]["value"] == pytest.approx(0)
        assert cells[name]["spearman"]["r"] == pytest.approx(1)
        assert cells[name]["difference"]["aurc"]["mean"] == pytest.approx(ideal - worst)
        assert cells[name]["n"] == 4
    assert cells["dice_within_samples"]["pearson"]["r"] == pytest.approx(1)
    assert cells["variance_foreground"]["n_undefined"] == 1
    assert cells["pdc"]["aurc"]["value"] == pytest.approx(worst)
    assert cells["pdc"]["spearman"]["r"] == pytest.approx(-1)
    assert cells["pdc"]["difference"] is None
    assert "dice_within_samples" not in found["acdc_unet"]["SA"]["lv"]


def test_intervals_are_those_of_the_seed_and_the_number_of_draws(new_row: NewRow) -> None:
    rows = sampled(new_row)
    found = summarise(rows, n_resamples=40, seed=6)["failures"]["acdc_unet"]["SA"]["rv"]["variance"]
    measure = [-0.01 * i for i in range(4)]
    expected = failure_table(REAL, {"variance": measure}, [str(201 + i) for i in range(4)], 6, None, 40)
    for figure in ("pearson", "spearman", "aurc", "excess_aurc"):
        assert found[figure] == pytest.approx(expected["variance"][figure])


def test_without_samples_there_is_nothing(new_row: NewRow) -> None:
    rows = [row for row in sampled(new_row) if "variance" not in row]
    assert "failures" not in summarise(rows, n_resamples=50)
    assert failure_tables({}) == []


def test_the_columns_are_there_only_with_samples(new_row: NewRow, tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    rows = sampled(new_row)
    write_cases(path, rows)
    read = read_cases(path)
    assert [row["variance"] for row in read[:4]] == [0.0, 0.01, 0.02, 0.03]
    assert all(math.isnan(row["dws_rv"]) for row in read[5:])
    assert summarise_failures(read, n_resamples=50) == summarise_failures(rows, n_resamples=50)
    write_cases(path, rows[5:])
    with path.open() as file:
        assert not set(next(csv.reader(file))) & set(UNCERTAINTY_COLUMNS)
    assert not set(read_cases(path)[0]) & set(UNCERTAINTY_COLUMNS)


def test_the_table_tells_intervals_and_verdicts(new_row: NewRow) -> None:
    results = summarise(sampled(new_row), n_resamples=100)
    (shown,) = failure_tables(results)
    table = shown["first"]
    assert table.caption == "acdc_unet, SA: right ventricular cavity"
    assert table.header[5] == "AURC − that of pDC"
    cells = results["failures"]["acdc_unet"]["SA"]["rv"]["dice_within_samples"]
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == ["DiceWithinSamples", "image variance", "foreground variance", "pDC"]
    low, high = (f"{cells['aurc'][side]:.3f}" for side in ("low", "high"))
    assert rows["DiceWithinSamples"][3].replace("\N{NO-BREAK SPACE}", " ") == f"0.215 [{low}, {high}]"
    difference = cells["difference"]["aurc"]
    word = "better" if difference["high"] < 0 else "no difference shown"
    assert rows["DiceWithinSamples"][5].startswith("−0.346 [")
    assert rows["DiceWithinSamples"][5].endswith(f"]\n{word}")
    assert rows["pDC"][5] == "–"
    assert rows["foreground variance"][6].replace("\N{NO-BREAK SPACE}", " ") == "4\n1 undefined"
    assert [one.caption for one in shown["others"]] == [
        "acdc_unet, SA: left ventricular cavity",
        "acdc_unet, SA: left ventricular myocardium",
    ]


def test_the_page_shows_it(new_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in dir(page.gallery):
        if name.endswith("_figures"):
            monkeypatch.setattr(page.gallery, name, lambda run: [])
    monkeypatch.setattr(page.gallery, "flagged_cards", lambda run: {"cards": [], "other_flagged": None})
    run = new_run(volumes=False, views=("SA",), n_resamples=20)
    before = page.write_report(run).read_text()
    rows = read_cases(run / "cases.csv")
    for row in rows:
        if row["stage"] == "segmenter":
            row |= {column: row["dc_rv"] for column in UNCERTAINTY_COLUMNS}
    write_cases(run / "cases.csv", rows)
    results = json.loads((run / "results.json").read_text())
    results |= {"mc_samples": 7, "failures": summarise(rows, n_resamples=20)["failures"]}
    (run / "results.json").write_text(json.dumps(results))
    after = re.sub(r"\s+", " ", page.write_report(run).read_text())
    for text in (
        "Which measure finds the failures?",
        "7 dropout samples",
        "DiceWithinSamples",
        "AURC − that of pDC",
    ):
        assert text in after and text not in before
    assert after.count("nnunet, SA: ") >= 3
