"""The report's sentences: what was found, said no stronger than the intervals allow."""

from collections.abc import Mapping
from typing import Any

from qcjax.data.subject import VIEWS
from qcjax.refinement.figures import last_stage
from qcjax.refinement.tables import BETTER, DIGITS, STAGE_WORDS
from qcjax.report.style import VIEW_NAMES
from qcjax.report.table import judge, number, signed

PART_WORDS = {
    "test": "official test part (codes 201–360)",
    "validation": "official validation part (codes 161–200)",
}


def findings(results: Mapping[str, Any]) -> list[str]:
    """The headline in sentences, per segmenter and view."""
    sentences = []
    for segmenter, views in results["ablation"].items():
        for view in VIEWS:
            if view not in views:
                sentences.append(f"{segmenter}, {view} ({VIEW_NAMES[view]}): not part of this run.")
                continue
            sentences.append(_finding(results, segmenter, view))
    if results["scored_part"] is None:
        sentences.insert(
            0, "No case has ground truth: nothing could be scored, QC's measures are all there is."
        )
    for segmenter, views in (results.get("ood") or {}).items():
        for view, found in views.items():
            after = found.get("cases_after_k") or []
            if after and not after[0]:
                sentences.append(
                    f"{segmenter}, {view}: no case was out of distribution: nothing to refine on."
                )
            elif after:
                counts = [len(names) for names in after]
                k = counts.index(min(counts))
                when = f"after epoch {k}" if k else "before it"
                fewest = f" (fewest: {counts[k]}, {when})" if counts[k] < counts[-1] else ""
                sentences.append(
                    f"{segmenter}, {view}: cases out of distribution: {counts[0]} before refinement, "
                    f"{counts[-1]} after {len(counts) - 1} epochs of it{fewest}."
                )
    return sentences


def _finding(results: Mapping[str, Any], segmenter: str, view: str) -> str:
    stages = results["ablation"][segmenter][view]
    stage = last_stage(stages)
    dc, hd = stages[stage]["dc"], stages[stage]["hd"]
    if dc["mean"] is None:
        return f"{segmenter}, {view}: no case has ground truth in the scored part."
    start = (
        f"{segmenter}, {view}, {STAGE_WORDS[stage]}: mean RV Dice {number(dc['mean'], 3)} and Hausdorff "
        f"distance {number(hd['mean'], 1)} mm over {dc['n']} cases"
    )
    if hd["n_missing"]:
        start += f" (distance undefined in {hd['n_missing']})"
    parts = []
    for reference in ("segmenter", "baseline", "control"):
        cells = results["differences"].get(segmenter, {}).get(view, {}).get(f"{stage} - {reference}")
        if cells:
            told = (
                f"{name} {signed(cells[measure], DIGITS[measure])}{unit}, {judge(cells[measure], BETTER[measure])}"
                for measure, name, unit in (("dc", "Dice", ""), ("hd", "distance", " mm"))
            )
            parts.append(f"Against the {_REFERENCE[reference]}: {'; '.join(told)}.")
    selection = results["differences"].get(segmenter, {}).get(view, {}).get("refined - selection")
    if selection and all(_nothing(cell) for cell in selection.values()):
        parts.append(
            "Refinement changed no case: every measure is that of selection without it, as where no case was out of "
            "distribution."
        )
    return " ".join([f"{start}.", *parts])


def _nothing(difference: Mapping[str, Any]) -> bool:
    return difference["mean"] == difference["low"] == difference["high"] == 0


_REFERENCE = {"segmenter": "single best segmenter", "baseline": "baseline", "control": "control"}


def scored_words(part: str | None) -> str:
    """Which cases the headline is about."""
    if part is None:
        return "No case has ground truth, so nothing could be scored."
    if part == "test":
        return (
            f"Scored are the cases of the {PART_WORDS[part]}; the figures show the validation part beside it."
        )
    return f"Scored are the cases of the {PART_WORDS[part]}: the test part has no ground truth here."


def what_differs(results: Mapping[str, Any]) -> str:
    """Why published numbers and ours may differ."""
    return (
        "What differs: the published numbers come from the M&Ms-2 challenge's data (160 labelled training "
        "subjects, full-size networks, 250 epochs); ours from the data and parts listed under Cohort, with "
        f"the preset “{results['preset']}”. They may be compared only where all of that is the same."
    )
