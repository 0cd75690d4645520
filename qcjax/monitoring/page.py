"""The self-contained page `report.html` of a monitoring experiment, and the figures beside it."""

from pathlib import Path
from typing import Any

from qcjax.labels import CARDIAC
from qcjax.monitoring import figures, tables
from qcjax.monitoring.curves import draw_reconstruction
from qcjax.monitoring.figures import unit_of
from qcjax.monitoring.gallery import gallery_words, monitoring_cards
from qcjax.monitoring.table import read_measures
from qcjax.monitoring.words import findings, policy, scales, what_differs
from qcjax.report import page, published
from qcjax.report.cards import Picture, card_pictures, opening
from qcjax.report.page import head
from qcjax.report.render import write_page
from qcjax.report.run import FinishedRun, read_run

SECTIONS = (
    ("findings", "In brief"),
    ("agreement", "Pseudo and real"),
    ("ranking", "Ranking"),
    ("flags", "Flags"),
    ("risk", "Risk and coverage"),
    ("damage", "Damaged masks"),
    ("cases", "Flagged masks"),
    ("reconstruction", "The autoencoder"),
    ("published", "Published numbers"),
    ("run", "What ran"),
    ("glossary", "Glossary"),
    ("citations", "Citations"),
)


def write_monitoring_report(run_dir: Path) -> Path:
    """Draw the figures of a monitoring run and write its page; a page and figures that exist are replaced.

    Args:
      run_dir: holds `results.json` (`summarise_monitoring` and what the experiment adds), `measures.csv` and,
        where they were written, `config.json` and `metrics.jsonl`. Relative paths in the table start there.

    Returns:
      The path of `report.html`, which holds everything that it shows.

    Raises:
      FileNotFoundError: one of the first two files is not there.
      ValueError: the table cannot be read.
    """
    run = read_run(run_dir, "measures.csv", read_measures)
    context = {**_words(run), **_tables(run), **_figures(run), **_cases(run)}
    shown = card_pictures([*context["cards"], *context["passed_cards"]])
    plot = "How far the pseudo Dice follows the real one, a point for every structure of every mask."
    if not context["agreement_figures"]:
        plot = "Damaged masks against untouched ones."
    context["opening"] = opening(
        (shown, "The most doubtful mask: its image, its reconstruction, and where they differ."),
        (context["agreement_figures"] or context["damage_figures"], plot),
    )
    return write_page(run_dir / "report.html", "monitoring.html.j2", context)


def _words(run: FinishedRun) -> dict[str, Any]:
    results = run.results
    n = results["n"]
    masks = (
        f"{n['cases']} of {n['subjects']} subjects, {n['cases_with_truth']} with ground truth, "
        f"{n['cases_with_rca']} judged by RCA too"
    )
    return head(
        run,
        title="Segmentation quality without ground truth",
        lead="An autoencoder of plausible masks judges cardiac segmentations, after Galati and Zuluaga (FIMH 2021).",
        sections=SECTIONS,
        findings=findings(results),
        facts=[("split", results.get("split")), ("methods", ", ".join(results["methods"])), ("masks", masks)],
        citations=(published.CITATIONS[1], published.ACDC_CITATION, published.RCA_CITATION),
    ) | {
        "has_truth": bool(results["scopes"]),
        "scales": scales(results),
        "policy": policy(results),
        "differs": what_differs(results),
        "hd_limit": f"{results['limits']['hd']:g} {unit_of(results)}",
        "dc_limit": f"{results['limits']['dc']:g}",
        "failure_dc": f"{results['failure_dc']:g}",
    }


def _tables(run: FinishedRun) -> dict[str, Any]:
    results = run.results
    return {
        "seconds": tables.seconds_table(results),
        "correlations": tables.correlation_tables(results),
        "differences": tables.difference_table(results),
        "ranking": tables.ranking_tables(results, "counted"),
        "ranking_dropped": tables.ranking_tables(results, "dropped"),
        "flags": tables.flags_table(results),
        "flagged": tables.flagged_table(results),
        "risk": tables.risk_tables(results),
        "damage": tables.damage_table(results.get("damage")),
        "reconstruction": tables.reconstruction_table(results),
        "published": tables.published_table(results),
        "published_ranking": tables.published_ranking_tables(),
    }


def _figures(run: FinishedRun) -> dict[str, list[Picture]]:
    results, rows = run.results, run.rows
    drawn: dict[str, list[tuple[Path | None, str]]] = {
        name: [] for name in ("agreement", "ranking", "risk", "limit", "damage", "reconstruction")
    }
    for estimator, name in figures.ESTIMATOR_NAMES.items():
        path = run.figure(f"agreement-{estimator}")
        text = (
            f"{name[0].upper()}{name[1:]}: pseudo against real measures, a point for every structure of every mask, "
            "colour and marker by method. Failures have a black edge: DC 0, and in the grey band an undefined "
            "distance. r counts them in; dropped: as in the paper."
        )
        drawn["agreement"].append((figures.draw_agreement(rows, results, estimator, path), text))
        text = (
            f"{name[0].upper()}{name[1:]}: mean real against mean pseudo distance of each method, failures "
            "counted in."
        )
        drawn["ranking"].append(
            (figures.draw_ranking(results, estimator, run.figure(f"ranking-{estimator}")), text)
        )
    for scope in results["scopes"]:
        words = tables.scope_words(scope, results["scopes"][scope])
        text = f"Risk-coverage curves over the structures of {words}: the lower the better."
        drawn["risk"].append((figures.draw_risk(results, scope, run.figure(f"risk-{scope}")), text))
    drawn["limit"].append(
        (
            figures.draw_limits(results, run.figure("flag-limits")),
            "What the flags catch over each of their limits, the other one held; the vertical line is the limit in "
            "use. An absent structure is flagged whatever the limits.",
        )
    )
    drawn["damage"].append(
        (
            figures.draw_damage(results.get("damage") or {}, run.figure("damage")),
            "Damaged against untouched ground-truth masks, by the suspicion, and by the larger one of suspicion and "
            "doubt.",
        )
    )
    drawn["reconstruction"].append(
        (
            draw_reconstruction(results, run.lines, run.figure("reconstruction")),
            "Learning curve, and Dice of reconstructed validation ground truth by epoch beside the published values. "
            + tables.EPOCHS_NOTE,
        )
    )
    return page.figures(drawn)


def _cases(run: FinishedRun) -> dict[str, Any]:
    cards, passed, others = monitoring_cards(
        run.rows, run.results.get("labels"), run.folder, unit_of(run.results)
    )
    return {
        "cards": cards,
        "passed_cards": passed,
        "other_cases": tables.other_cases_table(others),
        "gallery_words": gallery_words(run.rows, cards),
        "legend": [(s.colour, s.key, s.name) for s in CARDIAC],
    }
