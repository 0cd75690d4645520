"""The self-contained page `report.html` of an uncertainty experiment, and the figures beside it."""

from pathlib import Path
from typing import Any

from qcjax.report import page, table
from qcjax.report.cards import Picture, card_pictures, opening
from qcjax.report.page import head
from qcjax.report.published import CITATIONS
from qcjax.report.render import write_page
from qcjax.report.run import FinishedRun, read_run
from qcjax.uncertainty import figures, published, qc_tables, tables
from qcjax.uncertainty.gallery import example_cards, uncertain_cards
from qcjax.uncertainty.pictures import DRAWN
from qcjax.uncertainty.summary import summarise_uncertainty
from qcjax.uncertainty.table import read_cases
from qcjax.uncertainty.tables import Tables
from qcjax.uncertainty.words import findings, what_differs

SECTIONS = (
    ("findings", "In brief"),
    ("scores", "Scores"),
    ("differences", "Differences"),
    ("positions", "Slice position"),
    ("certainty", "Certainty"),
    ("calibration", "Calibration"),
    ("groups", "By group"),
    ("failures", "Finding failures"),
    ("examples", "Examples"),
    ("cases", "Uncertain cases"),
    ("training", "Training"),
    ("run", "What ran"),
    ("glossary", "Glossary"),
    ("citations", "Citations"),
)


def write_uncertainty_report(run_dir: Path) -> Path:
    """Draw the figures of an uncertainty run and write its page; a page and figures that exist are replaced.

    Args:
      run_dir: holds `results.json`, `cases.csv` and, where they were written, `config.json` and `metrics.jsonl`.
        `results.json` holds `summarise_uncertainty` under "tables"; where it doesn't, it is computed. Relative
        paths in the table start in this folder.

    Returns:
      The path of `report.html`, which holds everything that it shows.

    Raises:
      FileNotFoundError: one of the first two files is not there.
      ValueError: the table cannot be read.
    """
    run = read_run(run_dir, "cases.csv", read_cases)
    found = run.results.get("tables") or summarise_uncertainty(run.rows, int(run.results.get("seed") or 0))
    context = {**_words(run, found), **_tables(run, found), **_figures(run, found), **_cases(run)}
    context["opening"] = opening(
        (
            card_pictures([*context["example_cards"], *context["cards"]]),
            "A case: images and masks above, ground truth and the variance of the samples below.",
        ),
        (
            context["difference_figures"] or context["position_figures"],
            "What the proposed method changes in DSC.",
        ),
    )
    return write_page(run_dir / "report.html", "uncertainty.html.j2", context)


def _words(run: FinishedRun, found: Tables) -> dict[str, Any]:
    results, n = run.results, found["n"]
    groups = ", ".join(f"{count} {group}" for group, count in n["by_group"].items())
    return head(
        run,
        title="Learning from uncertainty",
        lead="Infarction and no-reflow from late gadolinium enhancement; the variance of MC-dropout samples takes "
        "part in the loss, after Arega, Bricq and Meriaudeau (UNSURE 2021).",
        sections=SECTIONS,
        findings=findings(found),
        facts=[
            (
                "cases",
                f"{n['subjects']}{f' ({groups})' if groups else ''}, {n['with_truth']} with ground truth",
            ),
            ("folds", results.get("folds")),
            ("arms", ", ".join(tables.arm_name(arm) for arm in found["arms"])),
            ("samples while training, α", _both(results.get("samples"), results.get("alpha"))),
            ("samples per prediction", results.get("mc_samples")),
        ],
        citations=(*published.CITATIONS, CITATIONS[1]),
    ) | {"has_truth": bool(n["with_truth"]), "differs": what_differs(results, found)}


def _both(samples: Any, alpha: Any) -> str | None:
    if samples is None and alpha is None:
        return None
    return f"N = {samples}, α = {alpha} (proposed)"


def _tables(run: FinishedRun, found: Tables) -> dict[str, Any]:
    return {
        "seconds": table.seconds_table(run.results.get("seconds") or {}),
        "table_1": tables.table_1(found),
        "table_2": tables.table_2(found),
        "differences": tables.difference_tables(found),
        "position_summary": tables.position_summary_tables(found),
        "position_tables": tables.position_tables(found),
        "position_differences": tables.position_difference_tables(found),
        "certainty": tables.certainty_table(found),
        "mean_prediction": tables.mean_prediction_table(found),
        "calibration": tables.calibration_tables(found),
        "groups": qc_tables.group_table(found),
        "detection": qc_tables.detection_table(found),
        "failures": qc_tables.failure_tables(found),
        "failure_intervals": qc_tables.failure_interval_tables(found),
    }


def _figures(run: FinishedRun, found: Tables) -> dict[str, list[Picture]]:
    reliability = run.results.get("reliability") or {}
    drawn = {
        "difference": (
            figures.draw_differences(found, run.figure("differences")),
            "Paired differences in DSC, in percentage points, with their 95 % intervals: in the whole heart and by "
            "slice position. An interval that holds 0 shows no difference.",
        ),
        "position": (
            figures.draw_positions(found, run.figure("positions")),
            "Dice and certainty (DiceWithinSamples) by slice position, as the paper’s Fig. 2: means with their 95 % "
            "intervals.",
        ),
        "reliability": (
            figures.draw_reliability(reliability, run.figure("reliability")),
            "Reliability: how often voxels of each predicted probability belong to the structure, and how many voxels "
            "there are. On the diagonal probabilities mean what they say; below it they promise too much.",
        ),
        "certainty": (
            figures.draw_certainty(run.rows, found, run.figure("certainty")),
            "Certainty against the real DSC, a point for every case and arm. A structure that neither prediction nor "
            "truth has scores 1.",
        ),
        "failure": (
            figures.draw_failures(found, run.figure("failures")),
            "Spearman’s r_s of every measure with the real DSC, with 95 % intervals; measures of uncertainty are "
            "negated, so that to the right is better throughout.",
        ),
        "training": (
            figures.draw_training(run.lines, run.figure("training")),
            "Learning curves: the mean over the folds, and each fold as a thin line. The training losses of the arms "
            "can’t be compared: they are different losses.",
        ),
    }
    return page.figures({name: [one] for name, one in drawn.items()})


def _cases(run: FinishedRun) -> dict[str, Any]:
    cards, others = uncertain_cards(run.rows, run.folder)
    return {
        "example_cards": example_cards(run.rows, run.folder),
        "cards": cards,
        "other_cases": qc_tables.other_cases_table(others),
        "legend": [(structure.colour, structure.name) for structure in DRAWN],
    }
