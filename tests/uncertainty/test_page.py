"""The page of the uncertainty experiment: every section, nothing from outside, and runs that lack something."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcjax.uncertainty.figures import draw_reliability, draw_training
from qcjax.uncertainty.gallery import cases_of, examples
from qcjax.uncertainty.page import SECTIONS, write_uncertainty_report
from qcjax.uncertainty.pictures import load_case, most_uncertain_slice, position_slices
from qcjax.uncertainty.summary import summarise_uncertainty
from qcjax.uncertainty.words import findings
from tests.report.pages import check_opening, check_pictures, check_sections, text_of
from tests.uncertainty.uncertainty_runs import make_case_row, make_rows, name_files, write_uncertainty_run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uncertainty")
    return write_uncertainty_report(
        write_uncertainty_run(folder / "run", n_normal=1, n_pathological=2, n_resamples=40)
    )


def test_every_section_and_nothing_from_outside(page: Path) -> None:
    check_sections(page, SECTIONS)
    check_opening(page)
    check_pictures(page, at_least=6 + 2 + 3)
    text = text_of(page)
    assert "nan" not in text.lower() and "None" not in text


def test_all_tables_and_figures_are_there(page: Path) -> None:
    captions = re.findall(r"<caption>([^<]*)</caption>", page.read_text(encoding="utf-8"))
    for start in ("Seconds", "Myocardium and infarction", "With no-reflow", "apical: mean", "basal: mean",
                  "How much the samples agree", "Mean of the samples", "Calibration and uncertainty", "Differences",
                  "By group", "False and missed findings", "infarction, 3 cases", "infarction, proposed"):  # fmt: skip
        assert any(caption.startswith(start) for caption in captions), start
    assert captions.count("infarction") == 3  # differences; by position; differences by position
    names = {path.stem for path in (page.parent / "figures").iterdir()}
    assert {"differences", "positions", "reliability", "certainty", "failures", "training"} <= names
    assert {"example-worst", "example-best", "uncertain-Case_N000", "uncertain-Case_P002"} <= names


def test_numbers_are_those_of_the_results(page: Path) -> None:
    text = text_of(page)
    found = json.loads((page.parent / "results.json").read_text())["tables"]
    cell = found["measures"]["deterministic"]["apical"]["control"]["myocardium"]["dc"]
    assert f"{100 * cell['mean']:.1f} ({100 * cell['sd']:.1f})" in text
    assert f"{found['failures']['infarction']['proposed']['entropy']['aurc']['value']:.3f}" in text
    assert "67.6 (28.8)" in text and "0.635" in text  # the paper's tables
    assert "Case_P099: no contours" in text and "N = 5, α = 3.0" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"truth": False}, ["No case has ground truth", "No picture"]),
        ({"arms": ("baseline",), "n_pathological": 0}, ["Only baseline ran", "2 normal"]),
        (
            {"n_normal": 0, "structures": ("myocardium",), "autoencoder": False},
            ["recorded no learning curves"],
        ),
    ],
)
def test_what_is_missing_leaves_the_rest(tmp_path: Path, options: dict[str, Any], said: list[str]) -> None:
    small = {"n_normal": 2, "n_pathological": 2, "n_resamples": 20} | options
    text = text_of(write_uncertainty_report(write_uncertainty_run(tmp_path / "run", False, False, **small)))
    assert all(words in text for words in said)
    assert "nan" not in text.lower() and "None" not in text


def test_summary_is_made_where_the_run_has_none(tmp_path: Path) -> None:
    run = write_uncertainty_run(
        tmp_path / "run",
        False,
        False,
        arms=("proposed",),
        structures=("infarction",),
        n_normal=0,
        n_resamples=1,
    )
    (run / "results.json").write_text(json.dumps({"preset": "demo"}))
    assert "Mean DSC over 6 cases: infarction proposed" in text_of(write_uncertainty_report(run))


def test_words_follow_the_intervals() -> None:
    found = summarise_uncertainty(make_rows(n_normal=1, n_pathological=2), n_resamples=5)
    nothing = {"mean": 0.5, "low": -0.1, "high": 1.0, "n": 4, "n_missing": 0}
    for comparison in found["differences"].values():
        for structures in comparison.values():
            for cells in structures.values():
                cells.update(dict.fromkeys(cells, nothing))
    for cells in found["case_differences"].values():
        cells.update(dict.fromkeys(cells, nothing))
    for arms in found["failures"].values():
        for cells in arms.values():
            for cell in cells.values():
                cell["difference"] = cell["difference"] and {"aurc": nothing}
    told = " ".join(findings(found))
    assert told.count("no difference shown") >= 12 and "no other measure is shown to differ" in told
    assert "0 of 9 intervals exclude 0" in told
    for word in ("better", "worse", "higher", ", lower"):
        assert word not in told


def test_examples_and_order_of_the_cases() -> None:
    def rows(
        subject: str, group: str, dc: float, true_ml: float, ml: float, variance: float
    ) -> dict[str, Any]:
        return make_case_row(
            arm="proposed", subject=subject, group=group, dc=dc, true_volume_ml=true_ml, volume_ml=ml,
            variance_foreground=variance,
        )  # fmt: skip

    cases = cases_of(
        [
            rows("a", "pathological", 0.9, 5, 5, 0.1),
            rows("b", "pathological", 0.1, 5, 1, 0.3),
            rows("c", "pathological", 0.5, 5, 3, float("nan")),
            rows("d", "normal", 0.0, 0, 2, 0.2),
            rows("e", "normal", 0.0, 0, 4, 0.4),
        ]
    )
    assert [case.subject for case in cases] == ["e", "b", "d", "a", "c"]
    shown = {case.subject: word.split()[0] for word, case in examples(cases)}
    assert shown == {"b": "worst", "c": "median", "a": "best", "e": "normal,"}


def test_slices_of_a_case(tmp_path: Path) -> None:
    rows = make_rows(n_normal=0, n_pathological=1, arms=("baseline",))
    name_files(tmp_path, rows)
    case = load_case({"baseline": rows[0]}, tmp_path)
    assert case is not None and case.truth is not None
    assert position_slices(case) == {"apical": 1, "mid": 3, "basal": 5}
    case.variances["baseline"][:] = 0
    case.variances["baseline"][3, 4, 2] = 1
    assert most_uncertain_slice(case) == 2
    assert load_case({"baseline": rows[0] | {"image_path": ""}}, tmp_path) is None
    assert np.array_equal(case.guide, case.truth)


def test_a_broken_file_costs_one_picture(tmp_path: Path) -> None:
    run = write_uncertainty_run(
        tmp_path / "run", False, n_normal=1, n_pathological=0, arms=("proposed",), n_resamples=20
    )
    for path in run.glob("predictions/proposed/*"):
        path.write_bytes(b"no NIfTI")
    text = text_of(write_uncertainty_report(run))
    assert "No picture" in text and "proposed/Case_N000" in text


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert draw_reliability({}, tmp_path / "a.png") is None
    assert (
        draw_training([{"stage": "autoencoder", "epoch": 1, "train_loss": 1.0}], tmp_path / "b.png") is None
    )
