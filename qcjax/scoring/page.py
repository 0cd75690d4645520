"""The page `report.html` of a folder of scored masks: flagged cases first, each with its picture."""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from qcjax.data.datasets.masks import Images
from qcjax.data.geometry import Orientation
from qcjax.data.nifti import read_labels
from qcjax.labels import Structure, label_mapping
from qcjax.report.cards import Card, embed
from qcjax.report.pictures import draw_inconsistency, most_changed
from qcjax.report.render import write_page
from qcjax.report.table import Table, number
from qcjax.runtime.line_journal import Line, from_json
from qcjax.runtime.wording import count_of
from qcjax.scoring.table import Entry, ScoreJournal, largest_doubt, output_paths

MAX_ROWS = 500  # of a table; more are in scores.csv
DPI = 110
LEAD = (
    "An autoencoder that was trained on plausible masks rebuilt each of these. Where mask and rebuilt mask disagree, "
    "the mask is doubted (monitoring paper: Galati and Zuluaga, FIMH 2021)."
)
LEAD_WITH_IMAGES = " So it is where its image shows no brighter blood in the place of a ventricle."
SECTIONS = (
    ("findings", "In brief"),
    ("flagged", "Flagged cases"),
    ("errors", "Not scored"),
    ("cases", "All cases"),
    ("run", "What ran"),
    ("glossary", "Glossary"),
)


@dataclass(frozen=True)
class Scored:
    """What the page is made from."""

    folder: Path  # of the scores
    settings: Mapping[str, Any]  # of score.json
    summary: Mapping[str, Any]
    journal: ScoreJournal
    entries: Sequence[Entry]
    structures: Sequence[Structure]
    images: Images | None
    orientation: Orientation | None = None  # of the monitor


def write_scores_page(scored: Scored, n_pictures: int) -> Path:
    """Draw the flagged cases from their files and write the page, which holds everything that it shows.

    Args:
      n_pictures: how many of the flagged cases are pictured, the most urgent first.

    Returns:
      The path of `report.html`.
    """
    ordered = sorted(scored.entries, key=lambda entry: entry.urgency)
    flagged = [entry for entry in ordered if entry.status in ("erroneous", "suspicious")]
    failed = [entry for entry in ordered if entry.status == "error"]
    shown, others = flagged[:n_pictures], flagged[n_pictures:]
    with tempfile.TemporaryDirectory() as scratch:
        lines = scored.journal.lines_of(shown)
        cards = [_card(scored, line, Path(scratch) / f"{i}.png") for i, line in enumerate(lines)]
    few = len(ordered) <= MAX_ROWS
    context = {
        "title": f"{count_of(len(ordered), 'mask')} judged without ground truth",
        "lead": LEAD + (LEAD_WITH_IMAGES if scored.images else ""),
        "sections": SECTIONS,
        "findings": _findings(scored.summary, scored.settings),
        "by_structure": _structure_table(scored),
        "cards": cards,
        "n_flagged": len(flagged),
        "legend": [(s.colour, s.key, "" if s.name == s.key else s.name) for s in scored.structures],
        "others": _case_table(scored, others, f"The other {len(others)} flagged cases") if others else None,
        "errors": _error_table(scored.journal.lines_of(failed[:MAX_ROWS])) if failed else None,
        "n_errors": len(failed),
        "everything": _case_table(scored, ordered, "The most urgent first") if few else None,
        "max_rows": MAX_ROWS,
        "facts": _facts(scored),
        "settings": json.dumps(scored.summary["settings"], indent=2),
        "hd_limit": f"{scored.settings['hd_limit_mm']:g} {_unit(scored)}",
        "dc_limit": f"{scored.settings['dc_limit']:g}",
        "doubt_limit": f"{scored.settings['doubt_limit']:g}" if scored.images else None,
    }
    return write_page(scored.folder / "report.html", "scores.html.j2", context)


def _card(scored: Scored, line: Line, path: Path) -> Card:
    reasons = [found["reason"] for found in line["structures"].values() if found["reason"]]
    reason = "; ".join(reasons)
    text = f"{reason[:1].upper()}{reason[1:]}. Suspicion {_suspicion(line)}. {_measures(line, _unit(scored))}"
    picture = None
    try:
        caption = _draw(scored, line, path)
        picture = embed(path, caption)
    except (OSError, ValueError) as error:  # a file was moved since it was scored
        text += f" {error}."
    return Card(line["name"], [line["status"]], text, picture)


def _draw(scored: Scored, line: Line, path: Path) -> str:
    """Draw a case; the caption."""
    mapping = label_mapping(scored.structures, scored.settings["labels"])
    mask = read_labels(Path(line["path"]), mapping, orientation=scored.orientation)
    rebuilt = read_labels(scored.folder / output_paths(line["name"])[0], mapping, like=mask)
    image, lacking = None, ""
    if scored.images:
        try:
            image = scored.images.read(mask, line["name"]).array
        except (OSError, ValueError) as error:
            lacking = f" The image can't be shown: {error}."
    flagged = [v for v in line["structures"].values() if v["verdict"] and v["worst_slice"]]
    worst = min(flagged, key=lambda v: v["pdc"], default=None)
    count = mask.array.shape[2]
    shown = (
        mask.axes.slice_number(worst["worst_slice"] - 1, count)
        if worst
        else most_changed(mask.array, rebuilt.array)
    )
    draw_inconsistency(
        image, mask.array, rebuilt.array, mask.spacing_mm[:2], shown, path, scored.structures, DPI
    )
    what = "Mask" if image is None else "Image, mask"
    where = f"slice {mask.axes.slice_number(shown, count) + 1} of {count}"
    return f"{what}, its reconstruction and where they differ, {where}.{lacking}"


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


def _facts(scored: Scored) -> list[tuple[str, str]]:
    seconds = scored.summary["seconds_median"]
    return [
        ("monitor", str(scored.settings["monitor"])),
        ("labels", ", ".join(f"{key} = {value}" for key, value in scored.settings["labels"].items())),
        ("images", str(scored.images.folder) if scored.images else "none given"),
        ("median time", f"{seconds:.2f} s per case" if seconds is not None else ""),
        ("versions", ", ".join(f"{k} {v}" for k, v in scored.summary["versions"].items())),
    ]


def _structure_table(scored: Scored) -> Table:
    counts = scored.summary["structures"]
    rows = [[key.upper(), str(counts[key]["erroneous"]), str(counts[key]["suspicious"])] for key in counts]
    return Table("Flags by structure", ["structure", "erroneous", "suspicious"], rows)


def _case_table(scored: Scored, entries: Sequence[Entry], caption: str) -> Table:
    keys = [structure.key for structure in scored.structures]
    header = [
        "case",
        "verdict",
        "suspicion",
        *(["doubt"] if scored.images else []),
        *(f"{m} {k.upper()}" for k in keys for m in ("pDC", f"pHD ({_unit(scored)})")),
    ]
    rows = []
    for line in scored.journal.lines_of(islice(entries, MAX_ROWS)):
        cells = [
            line["name"],
            {"error": "not scored", "": "–"}.get(line["status"], line["status"]),
            _suspicion(line),
            *([_unbounded(largest_doubt(line))] if scored.images else []),
        ]
        for key in keys:
            found = line["structures"].get(key, {})
            cells += [number(found.get("pdc"), 2), number(found.get("phd_mm"), 1)]
        rows.append(cells)
    cut = len(entries) - len(rows)
    return Table(caption, header, rows, f"{cut} more are in scores.csv." if cut else "")


def _error_table(lines: Iterable[Line]) -> Table:
    return Table(
        "Masks that could not be scored", ["case", "error"], [[v["name"], v["error"]] for v in lines]
    )


def _unit(scored: Scored) -> str:
    """The unit of distances."""
    return str(scored.summary["distance_unit"])


def _measures(line: Line, unit: str) -> str:
    return (
        "; ".join(
            f"{key.upper()}: pDC {number(found['pdc'], 2)}, pHD {number(found['phd_mm'], 1)} {unit}"
            + (f", worst slice {found['worst_slice']}" if found["worst_slice"] else "")
            + (f", doubt {_unbounded(found['doubt'])}" if found.get("doubt") is not None else "")
            for key, found in line["structures"].items()
        )
        + "."
    )


def _suspicion(line: Line) -> str:
    return _unbounded(line["suspicion"])


def _unbounded(stored: float | str | None) -> str:
    value = from_json(stored)
    return "∞" if value == float("inf") else number(None if value != value else value, 2)
