"""The page: every section, nothing from outside, honest words, and runs that lack something."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qcjax.refinement.flags import flagged_cases
from qcjax.refinement.page import SECTIONS, write_report
from qcjax.refinement.table import CaseRow
from qcjax.refinement.tables import BETTER, difference_tables
from qcjax.refinement.words import findings
from qcjax.report import published
from qcjax.report.table import NO_DIFFERENCE, judge
from tests.report.pages import check_opening, check_pictures, check_sections, text_of

NewRun = Callable[..., Path]


@pytest.fixture(scope="module")
def page(whole_run: Path) -> Path:
    return write_report(whole_run)


def test_opens_with_every_section(page: Path) -> None:
    check_sections(page, SECTIONS)
    check_opening(page)


def test_pictures_are_in_the_page_and_nothing_from_outside(page: Path) -> None:
    check_pictures(page, at_least=11)


def test_figures_lie_beside_the_page(page: Path) -> None:
    names = {path.stem for path in (page.parent / "figures").iterdir()}
    assert {
        "bars",
        "ablation",
        "ood",
        "scatter-nnunet-SA",
        "curves-segmenter",
        "refinement-nnunet-SA-gain",
    } <= names
    assert any(name.startswith("flagged-nnunet-") for name in names)


def test_numbers_are_those_of_the_results(page: Path) -> None:
    text = text_of(page)
    results = json.loads((page.parent / "results.json").read_text())
    cell = results["ablation"]["nnunet"]["SA"]["refined"]["dc"]
    assert (
        f"{cell['mean']:.3f} ±\N{NO-BREAK SPACE}{cell['sd']:.3f}".replace("\N{NO-BREAK SPACE}", " ") in text
    )
    assert f"{results['average']['nnunet']['refined']['hd']:.1f}" in text
    assert "0.902 ± 0.064" in text and "10.89 ± 5.16" in text  # the paper's Table 1, normal subjects
    assert "0.905" in text and "10.47" in text
    assert "left out 1: 007" in text


def test_erroneous_cases_come_first_then_the_least_trusted(new_row: Callable[..., CaseRow]) -> None:
    rows = [
        new_row(stage="segmenter", subject="200", flag="erroneous", pdc_rv=0.0),
        new_row(stage="refined", subject="201", ood=1, pdc_rv=0.1),
        new_row(stage="refined", subject="202", flag="suspicious", pdc_rv=0.4),
        new_row(stage="refined", subject="203", flag="suspicious", pdc_rv=0.2),
        new_row(stage="refined", subject="204", flag="erroneous", pdc_rv=0.9),
        new_row(stage="refined", subject="205", pdc_rv=0.0),
    ]
    assert [row["subject"] for row in flagged_cases(rows)] == ["204", "203", "202", "201"]


@pytest.mark.parametrize(
    ("measure", "low", "high", "word"),
    [
        ("dc", 0.01, 0.02, "better"),
        ("dc", -0.02, -0.01, "worse"),
        ("hd", -5.0, -1.0, "better"),
        ("hd", 1.0, 5.0, "worse"),
        ("dc", -0.01, 0.02, NO_DIFFERENCE),
        ("hd", 0.0, 2.0, NO_DIFFERENCE),
        ("hd", None, None, "not measured"),
    ],
)
def test_words_follow_intervals(measure: str, low: float | None, high: float | None, word: str) -> None:
    assert judge({"mean": 0.5, "low": low, "high": high}, BETTER[measure]) == word


def test_nothing_is_called_better_where_every_interval_holds_zero(page: Path) -> None:
    results = json.loads((page.parent / "results.json").read_text())

    def words() -> str:
        tables = difference_tables(results, "nnunet")
        return " ".join(
            [*findings(results), *(cell for table in tables for row in table.rows for cell in row)]
        )

    assert "better" in words()
    for comparisons in results["differences"]["nnunet"].values():
        for cells in comparisons.values():
            for cell in cells.values():
                cell |= {"mean": 0.5, "low": -1.0, "high": 2.0}
    assert NO_DIFFERENCE in words()
    assert "better" not in words() and "worse" not in words()


def test_one_view_without_truth_ood_cases_or_curves(new_run: NewRun) -> None:
    run = new_run(views=("LA",), truth=False, ood=False)
    (run / "metrics.jsonl").unlink()
    text = text_of(write_report(run))
    assert "No case has ground truth" in text
    assert "SA (short axis): not part of this run" in text
    assert "no case was out of distribution: nothing to refine on" in text
    assert "There is no ground truth to compare the pseudo measures with" in text
    assert "The run recorded no learning curves" in text
    assert "nan" not in text.lower().split() and "None" not in text.split()


def test_what_is_gone_or_broken_is_said(new_run: NewRun) -> None:
    run = new_run(volumes=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "segm')
    results = json.loads((run / "results.json").read_text())
    results["skipped"] = ["<script>alert(1)</script>"]
    (run / "results.json").write_text(json.dumps(results))
    path = write_report(run)
    text = text_of(path)
    assert "No picture: a file that it needs is not there" in text
    assert "No case can be shown before and after refinement" in text
    assert "Lines of metrics.jsonl that could not be read: 1." in text
    assert "<script" not in path.read_text(encoding="utf-8")


def test_results_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"results\.json"):
        write_report(tmp_path)


def test_published_rows_are_complete() -> None:
    assert set(published.BY_DISEASE) == {"NOR", "FALL", "CIA", "ARR", "HCM", "LV", "TRI", "RV"}
    assert published.BY_DISEASE["CIA"].of("SA")[0].sd == 0.137
    assert published.BY_DISEASE["RV"].of("LA")[1].mean == 9.68


def test_a_refinement_that_changed_nothing_is_told(whole_run: Path) -> None:
    results = json.loads((whole_run / "results.json").read_text())
    told = "Refinement changed no case"
    assert not any(told in sentence for sentence in findings(results))
    for views in results["differences"].values():
        for pairs in views.values():
            for cell in pairs["refined - selection"].values():
                cell.update(mean=0.0, low=0.0, high=0.0)
    assert any(told in sentence for sentence in findings(results))


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ([4, 1, 2, 3], "4 before refinement, 3 after 3 epochs of it (fewest: 1, after epoch 1)."),
        ([2, 3, 4], "2 before refinement, 4 after 2 epochs of it (fewest: 2, before it)."),
        ([4, 2, 0], "4 before refinement, 0 after 2 epochs of it."),
        ([0], "no case was out of distribution"),
    ],
)
def test_the_fewest_ood_cases_are_told_where_they_are_not_the_last(after: list[int], told: str) -> None:
    cases = [[f"case {i}" for i in range(n)] for n in after]
    results = {"ablation": {}, "scored_part": "test", "ood": {"nnunet": {"SA": {"cases_after_k": cases}}}}
    assert told in findings(results)[0]


def test_an_unknown_disease_has_a_name(new_run: NewRun) -> None:
    run = new_run()
    results = json.loads((run / "results.json").read_text())
    results["cohort"][0]["diseases"] = {"": 25, "RV": 20}
    (run / "results.json").write_text(json.dumps(results))
    assert "unknown 25, RV 20" in text_of(write_report(run))
