"""Every picture of the page: which are drawn, under what name, and what stands below them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from qcjax.data.subject import VIEWS
from qcjax.refinement import curves, figures, flags, pictures
from qcjax.refinement.examples import refinement_examples
from qcjax.refinement.table import CaseRow, case_name
from qcjax.report.cards import MAX_FLAGGED_PICTURES, Picture, draw_card, drawn_pictures
from qcjax.report.columns import present
from qcjax.report.run import FinishedRun


def ablation_figures(run: FinishedRun) -> list[Picture]:
    """Pictures of the ablation: each stage's measures of the RV, with their captions."""
    return drawn_pictures(
        (
            figures.draw_ablation(run.results, run.figure("ablation")),
            "The ablation: mean RV Dice and Hausdorff distance of each stage over the scored part, with the "
            "mean's 95 % interval over subjects. The dashed line continues the single best segmenter.",
        ),
        (
            figures.draw_bars(run.results, run.figure("bars")),
            "The last stage by view and official part, and the average 0.75 SA + 0.25 LA. Whiskers: the "
            "mean's 95 % interval over subjects.",
        ),
    )


def scatter_figures(run: FinishedRun) -> list[Picture]:
    """Pictures of real against pseudo measures, per segmenter and view, with their captions."""
    drawn = []
    for segmenter in run.results["ablation"]:
        for view in present(run.rows, "view", VIEWS):
            # the thresholds are those of the candidates before refinement, so their decision is marked
            decided = {_case(row): row["ood"] for row in _rows(run.rows, segmenter, view, "selection")}
            single = _rows(run.rows, segmenter, view, "segmenter")
            rows = [row | {"ood": decided.get(_case(row), row["ood"])} for row in single]
            thresholds = (run.results.get("ood") or {}).get(segmenter, {}).get(view, {}).get(
                "thresholds"
            ) or {}
            path = run.figure(f"scatter-{segmenter}-{view}")
            drawn.append(
                (
                    figures.draw_scatter(rows, thresholds, f"{segmenter}, {view}", path),
                    f"{segmenter}, {view}: pseudo against real measures of the RV by the single best model, one "
                    "point a case. Triangles: cases that are OoD before refinement; vertical lines: the thresholds "
                    "then"
                    + (" (that of pHD is in voxels, and not drawn)." if in_voxels(thresholds) else "."),
                )
            )
    return drawn_pictures(*drawn)


def in_voxels(thresholds: Mapping[str, Any]) -> bool:
    """Whether the upper ones are, as in preset `original`."""
    return any("up_voxels" in limits for limits in thresholds.values())


def _case(row: CaseRow) -> tuple[str, str]:
    return row["subject"], row["phase"]


def ood_figures(run: FinishedRun) -> list[Picture]:
    """The picture of how many cases are out of distribution before and after each epoch, if there are any."""
    caption = (
        "Out-of-distribution cases before refinement (k = 0) and after each of its epochs. The thresholds come from "
        "what the candidates of the moment give, so that they move, too."
    )
    return drawn_pictures((curves.draw_ood(run.results.get("ood") or {}, run.figure("ood")), caption))


def refinement_figures(run: FinishedRun) -> list[Picture]:
    """Pictures of the cases that refinement changed most, per segmenter and view, with their captions."""
    drawn = []
    for segmenter in run.results["ablation"]:
        for view in present(run.rows, "view", VIEWS):
            before = _rows(run.rows, segmenter, view, "segmenter")
            after = _rows(run.rows, segmenter, view, "refined")
            for example in refinement_examples(before, after):
                path = run.figure(f"refinement-{segmenter}-{view}-{example.kind}")
                caption = f"{segmenter}, {case_name(example.before)}, {example.words}"
                drawn.append(
                    (pictures.draw_refinement(example.before, example.after, run.folder, path), caption)
                )
    return drawn_pictures(*drawn)


def curve_figures(run: FinishedRun) -> list[Picture]:
    """Pictures of the losses of every training, with their captions."""
    return drawn_pictures(
        (
            curves.draw_curves(run.lines, ["autoencoder"], run.figure("curves-autoencoder")),
            "The autoencoder: loss on training masks (thin) and validation masks.",
        ),
        (
            curves.draw_curves(run.lines, ["segmenter"], run.figure("curves-segmenter")),
            "The segmenter, supervised: loss in training (thin) and validation, and validation RV Dice.",
        ),
        (
            curves.draw_curves(run.lines, ["control", "refined"], run.figure("curves-refinement")),
            "Refinement and its control: validation loss and RV Dice, on labelled data.",
        ),
    )


def flagged_cards(run: FinishedRun) -> dict[str, Any]:
    """What the page shows of the flagged cases: cards for the first ones, how many, a table of the rest."""
    flagged = flags.flagged_cases(run.rows)
    caption = "Image, mask, its reconstruction and the inconsistency map, in the slice that differs most."
    cards = []
    for row in flagged[:MAX_FLAGGED_PICTURES]:
        path = run.figure(f"flagged-{row['segmenter']}-{case_name(row)}")
        draw = partial(pictures.draw_flagged, row, run.folder, path)
        tags = [row["flag"], "out of distribution" if row["ood"] else ""]
        name = f"{case_name(row)}, {row['segmenter']}"
        cards.append(draw_card(name, tags, flags.describe(row), caption, draw))
    text = f"Flagged or out of distribution at the last stage: {len(flagged)}; erroneous cases come first."
    if len(flagged) > len(cards):
        text += f" The first {len(cards)} are shown, the others listed below."
    return {
        "cards": cards,
        "flagged_words": text,
        "other_flagged": flags.flagged_table(flagged[len(cards) :]),
    }


def _rows(rows: Sequence[CaseRow], segmenter: str, view: str, stage: str) -> list[CaseRow]:
    return [row for row in rows if (row["segmenter"], row["view"], row["stage"]) == (segmenter, view, stage)]
