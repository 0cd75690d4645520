"""The page `report.html` of a folder of scored masks: the most doubtful first, to be looked at slice by slice."""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from qcjax.report import structures
from qcjax.report.distribution import distributions
from qcjax.report.render import write_page
from qcjax.report.table import Table
from qcjax.report.viewer import viewer_data
from qcjax.runtime.line_journal import Line
from qcjax.runtime.wording import count_of
from qcjax.scoring.views import ScoredMasks, cohort_values, view

MAX_ROWS = 500  # of a table; more are in scores.csv
METHOD = (
    "An autoencoder that was trained on plausible masks rebuilt each of these. Where mask and rebuilt mask disagree, "
    "the mask is doubted (monitoring paper: Galati and Zuluaga, FIMH 2021)."
)
METHOD_WITH_IMAGES = " So it is where its image shows no brighter blood in the place of a ventricle."
SECTIONS = (
    ("findings", "In brief"),
    ("errors", "Not scored"),
    ("run", "What ran"),
    ("glossary", "Glossary"),
)


def write_scores_page(scored: ScoredMasks, n_pictures: int) -> Path:
    """Draw the most doubtful cases from their files and write the page, which holds everything that it shows.

    Args:
      n_pictures: how many cases are pictured, the most doubtful first; no more than these are in memory.

    Returns:
      The path of `report.html`.
    """
    ordered = sorted(scored.entries, key=lambda entry: entry.urgency)
    failed = [entry for entry in ordered if entry.status == "error"]
    listed = max(MAX_ROWS, n_pictures)
    lines = scored.journal.lines_of(islice(ordered, listed))
    cases = [view(scored, line, place < n_pictures) for place, line in enumerate(lines)]
    more = len(ordered) - len(cases)
    summary, keys = scored.summary, [s.key for s in scored.structures]
    shown = scored.unit, scored.predicted, bool(scored.images)
    context = {
        "title": f"{count_of(len(ordered), 'mask')} judged without ground truth",
        "lead": f"{summary['erroneous']} erroneous, {summary['suspicious']} suspicious, {summary['untouched']} without "
        f"a flag{_errors_in_words(summary)}: the most doubtful come first.",
        "sections": SECTIONS,
        "findings": _findings(summary, scored.settings),
        "method": METHOD + (METHOD_WITH_IMAGES if scored.images else ""),
        "by_structure": _structure_table(scored),
        "look": "Mask, its reconstruction, and where they differ"
        + (", over the image." if scored.images else "."),
        "plots": f"Where this mask, the line, lies among {count_of(summary['scored'], 'scored mask')}.",
        "viewer": viewer_data(
            cases,
            structures.columns(keys, *shown),
            scored.structures,
            structures.header(*shown),
            distributions(cohort_values(scored)),
            f"{more} more are in scores.csv." if more else "",
        ),
        "errors": _error_table(scored.journal.lines_of(failed[:MAX_ROWS])) if failed else None,
        "n_errors": len(failed),
        "max_rows": MAX_ROWS,
        "facts": _facts(scored),
        "settings": json.dumps(summary["settings"], indent=2),
        "hd_limit": f"{scored.settings['hd_limit_mm']:g} {scored.unit}",
        "coverage": f"{100 * float(scored.settings['coverage']):g} %" if scored.predicted else None,
        "dc_limit": f"{scored.settings['dc_limit']:g}",
        "doubt_limit": f"{scored.settings['doubt_limit']:g}" if scored.images else None,
    }
    return write_page(scored.folder / "report.html", "scores.html.j2", context)


def _errors_in_words(summary: Mapping[str, Any]) -> str:
    return f", {summary['errors']} not scored" if summary["errors"] else ""


def _findings(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    found = [
        f"{count_of(summary['cases'], 'mask')}: {summary['scored']} scored, {summary['errors']} could not be.",
        f"{summary['erroneous']} erroneous: a structure is absent from the mask or from its reconstruction.",
        f"{summary['suspicious']} suspicious: a pseudo Hausdorff distance above {settings['hd_limit_mm']:g} "
        f"{summary['distance_unit']} "
        f"or a pseudo Dice below {settings['dc_limit']:g}"
        + (f", or a doubt by the image above {settings['doubt_limit']:g}" if settings.get("images") else "")
        + ".",
        f"{summary['untouched']} without a flag.",
    ]
    beyond = summary["untouched_with_suspicion_above_1"]
    if beyond:
        found[-1] += (
            f" Of these, {beyond} have a suspicion{' or a doubt' if settings.get('images') else ''} above 1: stranger "
            "than sound masks are."
        )
    if summary.get("without_image"):
        found.append(
            f"{count_of(summary['without_image'], 'mask')} had no image that fits: judged by the mask alone "
            "(image_error in scores.csv says why)."
        )
    return found


def _facts(scored: ScoredMasks) -> list[tuple[str, str]]:
    seconds = scored.summary["seconds_median"]
    return [
        ("monitor", str(scored.settings["monitor"])),
        ("labels", ", ".join(f"{key} = {value}" for key, value in scored.settings["labels"].items())),
        ("images", str(scored.images.folder) if scored.images else "none given"),
        ("median time", f"{seconds:.2f} s per case" if seconds is not None else ""),
        ("versions", ", ".join(f"{k} {v}" for k, v in scored.summary["versions"].items())),
    ]


def _structure_table(scored: ScoredMasks) -> Table:
    counts = scored.summary["structures"]
    rows = [[key.upper(), str(counts[key]["erroneous"]), str(counts[key]["suspicious"])] for key in counts]
    return Table("Flags by structure", ["structure", "erroneous", "suspicious"], rows)


def _error_table(lines: Iterable[Line]) -> Table:
    return Table(
        "Masks that could not be scored", ["case", "error"], [[v["name"], v["error"]] for v in lines]
    )
