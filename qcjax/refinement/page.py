"""The self-contained page `report.html` of a finished run, and the figures beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcjax.data.subject import VIEWS
from qcjax.refinement import candidates, flags, gallery, tables, words
from qcjax.refinement.arms import arms_tables
from qcjax.refinement.table import read_cases
from qcjax.report import published, table
from qcjax.report.cards import card_pictures, opening
from qcjax.report.columns import present
from qcjax.report.page import head
from qcjax.report.render import write_page
from qcjax.report.run import FinishedRun, read_run

SECTIONS = (
    ("findings", "In brief"),
    ("ablation", "Ablation"),
    ("disease", "By disease"),
    ("vendor", "By vendor"),
    ("qc", "QC"),
    ("ood", "Out of distribution"),
    ("candidates", "Candidates"),
    ("flagged", "Flagged cases"),
    ("clinical", "Volumes and EF"),
    ("training", "Training"),
    ("published", "Published numbers"),
    ("cohort", "Cohort"),
    ("run", "What ran"),
    ("glossary", "Glossary"),
    ("citations", "Citations"),
)


def write_report(run_dir: Path) -> Path:
    """Draw the figures of a run and write its page; a page and figures that exist are replaced.

    Args:
      run_dir: holds `results.json`, `cases.csv` and, where they were written, `config.json` and
        `metrics.jsonl`. Relative paths in `cases.csv` start there.

    Returns:
      The path of `report.html`, which holds everything that it shows.

    Raises:
      FileNotFoundError: one of the first two files is not there.
    """
    run = read_run(run_dir, "cases.csv", read_cases)
    ablation, changed = gallery.ablation_figures(run), gallery.refinement_figures(run)
    flagged = gallery.flagged_cards(run)
    context = {
        **_words(run),
        **_tables(run),
        "opening": opening(
            (changed, "A case that refinement and selection changed most.")
            if changed
            else (
                card_pictures(flagged["cards"]),
                "The most doubtful case: image, mask, its reconstruction, and where they differ.",
            ),
            (ablation, "What each stage of the method reaches."),
        ),
        "ablation_figures": ablation,
        "scatter_figures": gallery.scatter_figures(run),
        "ood_figures": gallery.ood_figures(run),
        "refinement_figures": changed,
        "curve_figures": gallery.curve_figures(run),
        **flagged,
    }
    return write_page(run_dir / "report.html", "report.html.j2", context)


def _words(run: FinishedRun) -> dict[str, Any]:
    results = run.results
    return head(
        run,
        title="Quality-controlled segmentation of the right ventricle",
        lead="Out-of-distribution detection, refinement and selection on M&Ms-2, after Galati and Zuluaga "
        "(STACOM 2021).",
        sections=SECTIONS,
        findings=words.findings(results),
        facts=[
            ("segmenters", ", ".join(results["ablation"])),
            ("views", ", ".join(present(run.rows, "view", VIEWS))),
        ],
        citations=published.CITATIONS,
    ) | {
        "scored": words.scored_words(results["scored_part"]),
        "differs": words.what_differs(results),
        "has_truth": results["scored_part"] is not None,
        "notebook_epochs": ", ".join(
            f"{dice} after {epoch} epochs" for epoch, dice in published.NOTEBOOK_SA_DICE_BY_EPOCH.items()
        ),
    }


def _tables(run: FinishedRun) -> dict[str, Any]:
    results = run.results
    names = list(results["ablation"])
    return {
        "seconds": table.seconds_table(results.get("seconds") or {}),
        "cohort": table.cohort_table(results.get("cohort") or ()),
        "segmenters": [
            {
                "name": name,
                "headline": tables.headline_tables(results, name),
                "differences": tables.difference_tables(results, name),
                "arms": arms_tables(results, name),
                "disease": tables.disease_tables(results, name),
                "vendor": tables.vendor_tables(results, name),
                "clinical": tables.clinical_tables(results, name),
                "structures": tables.structure_table(results, name),
            }
            for name in names
        ],
        "qc": tables.qc_table(results),
        "failures": tables.failure_tables(results),
        "mc_samples": results.get("mc_samples", ""),
        "ood": tables.ood_table(results),
        "ood_by_epoch": candidates.ood_by_epoch_table(results),
        "candidates": candidates.candidates_table(results),
        "ood_names": _ood_names(results),
        "flags": flags.flag_table(run.rows),
        "published": [tables.published_table(results, name) for name in names],
    }


def _ood_names(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = []
    for segmenter, views in (results.get("ood") or {}).items():
        for view, found in views.items():
            after = found.get("cases_after_k") or [[]]
            if after[0]:
                left = f"; at the end: {', '.join(after[-1]) or 'none'}" if len(after) > 1 else ""
                told.append((f"{segmenter}, {view}, before refinement:", ", ".join(after[0]) + left + "."))
    return told
