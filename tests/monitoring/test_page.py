"""The page of the monitoring experiment: every section, nothing from outside, and runs that lack something."""

import json
from pathlib import Path

import pytest

from qcjax.cli import report
from qcjax.labels import ACDC_LABELS
from qcjax.monitoring.gallery import draw_case
from qcjax.monitoring.page import SECTIONS, write_monitoring_report
from qcjax.monitoring.table import read_measures
from qcjax.monitoring.tables import reconstruction_table
from qcjax.monitoring.words import findings
from qcjax.report.run import read_run
from qcjax.report.table import DASH
from tests.monitoring.monitoring_runs import METHODS, make_measure_row, write_monitoring_run
from tests.report.pages import check_opening, check_pictures, check_sections, text_of


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("monitoring")
    return write_monitoring_report(
        write_monitoring_run(folder / "run", n_subjects=3, n_rca_subjects=2, methods=METHODS[2:])
    )


def test_every_section_and_nothing_from_outside(page: Path) -> None:
    check_sections(page, SECTIONS)
    check_opening(page)
    check_pictures(page, at_least=13)


def test_figures_lie_beside_the_page(page: Path) -> None:
    names = {path.stem for path in (page.parent / "figures").iterdir()}
    assert {
        "agreement-ours", "agreement-rca", "ranking-ours", "ranking-rca", "risk-all", "risk-rca", "flag-limits",
        "damage", "reconstruction",
    } <= names  # fmt: skip
    assert sum(name.startswith("case-") for name in names) > 4


def test_numbers_are_those_of_the_results(page: Path) -> None:
    text = text_of(page)
    results = json.loads((page.parent / "results.json").read_text())
    scope = results["scopes"]["all"]
    for key in ("lv", "myo", "rv"):
        cell = scope["correlation"]["ours"][key]["hd"]["counted"]
        assert f"{cell['r']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" in text
    assert f"{scope['risk']['failure']['measures']['agreement']['aurc']:.4f}" in text
    counts = results["flags"]["case"]["failed"]["all"]
    assert f"of {counts['failures']} failed masks" in text and f"{counts['missed']} are missed" in text
    assert "39.01" in text and "86.08" in text  # the paper's Table 1
    assert "split by patient" in text and "0 of 40 are flagged" in text and "eroded 0.71" in text


def test_what_the_numbers_are_of(page: Path) -> None:
    text = text_of(page)
    assert "left out 1: patient042" in text
    assert "comes from 28 validation masks" in text
    assert "epoch 57, judged" in text and "autoencoder of epoch 57" in text
    assert "Means over the 3 images of which every method has a mask; others, left out: 0." in text
    assert "because a measure is undefined there: 0." in text


def test_epochs_stand_beside_the_published_ones_counted_from_1() -> None:
    cells = [{"epoch": epoch, "lv": epoch / 1000, "myo": 0.5, "rv": 0.5} for epoch in range(1, 121)]
    table = reconstruction_table({"reconstruction": cells, "monitor": {"epoch": 57}})
    assert table is not None
    assert [(row[0], row[1], row[4]) for row in table.rows] == [
        ("epoch 10", "0.010", "0.700"),
        ("epoch 57, judged", "0.057", DASH),
        ("epoch 101", "0.101", "0.870"),
        ("epoch 120", "0.120", DASH),
        ("epoch 493", DASH, "0.908"),
    ]


def test_lines_of_the_run_and_of_its_monitor(tmp_path: Path) -> None:
    folder = write_monitoring_run(tmp_path / "run", volumes=False, n_subjects=1, n_resamples=1)
    for path in (folder / "metrics.jsonl", folder / "monitor" / "metrics.jsonl"):
        with path.open("a") as file:
            file.write('{"stage": ')
    run = read_run(folder, "measures.csv", read_measures)
    assert [line["stage"] for line in run.lines] == ["segmenter"] + ["autoencoder"] * 60
    assert run.unreadable_lines == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"truth": False}, "There is no ground truth"),
        ({"methods": ("one",)}, "One method alone"),
        ({"n_rca_subjects": 0}, "The run damaged no masks"),
    ],
)
def test_what_is_missing_leaves_the_rest(tmp_path: Path, options: dict, said: str) -> None:
    run = write_monitoring_run(
        tmp_path / "run", extras=False, volumes=False, **({"n_subjects": 2, "n_rca_subjects": 1} | options)
    )
    text = text_of(write_monitoring_report(run))
    assert said in text
    assert "nan" not in text.lower().replace("reported as nan", "")
    assert "None" not in text


def test_command_tells_the_kind_of_run_by_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_monitoring_run(tmp_path / "run", extras=False, volumes=False, n_subjects=2)
    assert report(run) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert "Segmentation quality without ground truth" in text_of(run / "report.html")


def test_words_follow_the_intervals(page: Path) -> None:
    results = json.loads((page.parent / "results.json").read_text())
    for risk in (results["scopes"]["all"]["risk"][loss] for loss in ("failure", "graded")):
        for cell in risk["measures"].values():
            if "difference" in cell:
                cell["difference"] = {"mean": 0.5, "low": -0.1, "high": 1.0}
    told = " ".join(sentence for sentence in findings(results) if sentence.startswith("Risk"))
    assert "not shown to differ" in told and "worse" not in told and "better" not in told


def test_picture_of_a_case_needs_mask_and_reconstruction_alone(tmp_path: Path) -> None:
    run = write_monitoring_run(tmp_path / "run", extras=False, n_subjects=1, methods=METHODS[5:])
    path = tmp_path / "case.png"
    named = {"mask_path": "predictions/threshold/patient101_ED.nii.gz",
             "reconstruction_path": "reconstructions/threshold/patient101_ED.nii.gz"}  # fmt: skip
    assert draw_case(make_measure_row(**named), ACDC_LABELS, run, path) == path
    without = make_measure_row(mask_path=named["mask_path"])
    assert draw_case(without, ACDC_LABELS, run, path) is None


def test_a_broken_file_costs_one_picture(tmp_path: Path) -> None:
    run = write_monitoring_run(tmp_path / "run", extras=False, n_subjects=1, methods=METHODS[4:])
    for path in run.glob("predictions/threshold/*"):
        path.write_bytes(b"no NIfTI")
    text = text_of(write_monitoring_report(run))
    assert "No picture" in text and "threshold/patient101_E" in text
