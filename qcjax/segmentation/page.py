"""The page `report.html` of a folder of segmented images: the most doubtful first, to be looked at slice by slice."""

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from qcjax.inference.entries import Entry
from qcjax.report import structures
from qcjax.report.distribution import distributions
from qcjax.report.render import write_page
from qcjax.report.table import DASH, Table
from qcjax.report.viewer import viewer_data
from qcjax.runtime.wording import count_of
from qcjax.segmentation.views import (
    Segmented,
    cohort_values,
    finite,
    view,
    with_bounds,
)

MAX_ROWS = 500  # of a table; more are in cases.csv
METHOD = (
    "Each mask is the mean of a few networks' opinions. An autoencoder that was trained on plausible masks rebuilt it; "
    "where both disagree, the mask is doubted (monitoring paper: Galati and Zuluaga, FIMH 2021)."
)
SECTIONS = (
    ("findings", "In brief"),
    ("subjects", "Ventricles over the heartbeat"),
    ("errors", "Not segmented"),
    ("run", "What ran"),
    ("glossary", "Glossary"),
)


def write_segments_page(made: Segmented, n_pictures: int) -> Path:
    """Rebuild the masks of the most doubtful images for their pictures, and write the page, which holds all it shows.

    Args:
      n_pictures: how many images are pictured, the most doubtful first; no more than these are in memory.

    Returns:
      The path of `report.html`.
    """
    ordered = sorted(made.entries, key=lambda entry: entry.urgency)
    failed = [entry for entry in ordered if entry.status == "error"]
    listed = max(MAX_ROWS, n_pictures)
    lines = made.journal.lines(entry.offset for entry in islice(ordered, listed))
    cases = [view(made, line, place < n_pictures) for place, line in enumerate(lines)]
    more = len(ordered) - len(cases)
    summary, keys = made.summary, [s.key for s in made.model.structures]
    shown = "mm", made.model.quality is not None
    context = {
        "title": f"{count_of(summary['segmented'], 'image')} segmented",
        "lead": f"{summary['erroneous']} erroneous, {summary['suspicious']} suspicious, {summary['without_flag']} "
        f"without a flag{_errors_in_words(summary)}: the most doubtful come first.",
        "sections": SECTIONS,
        "findings": _findings(summary, made.settings),
        "method": METHOD,
        "by_structure": _structure_table(made),
        "look": "Image, mask, its reconstruction, and where they differ.",
        "plots": f"Where this image, the line, lies among {count_of(summary['segmented'], 'segmented image')}; of a "
        "cine its most doubtful frame.",
        "viewer": viewer_data(
            cases,
            structures.columns(keys, *shown),
            made.model.structures,
            structures.header(*shown),
            distributions(cohort_values(made)),
            f"{more} more are in cases.csv." if more else "",
        ),
        "subjects": _subject_table(made.subjects) if made.subjects else None,
        "errors": _error_table(made, failed[:MAX_ROWS]) if failed else None,
        "n_errors": len(failed),
        "max_rows": MAX_ROWS,
        "facts": _facts(made),
        "settings": json.dumps(summary["settings"], indent=2),
        "hd_limit": f"{float(made.settings['hd_limit_mm']):g} mm",
        "coverage": f"{100 * float(made.settings['coverage']):g} %" if made.model.quality else None,
        "dc_limit": f"{float(made.settings['dc_limit']):g}",
    }
    return write_page(made.folder / "report.html", "segments.html.j2", context)


def _errors_in_words(summary: Mapping[str, Any]) -> str:
    return f", {summary['errors']} not segmented" if summary["errors"] else ""


def _findings(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    return [
        f"{count_of(summary['images'], 'image')} of {count_of(summary['frames'], 'frame')}: "
        f"{summary['segmented']} segmented, {summary['errors']} could not be.",
        f"{summary['erroneous']} erroneous: a structure is absent from the mask or from its reconstruction.",
        f"{summary['suspicious']} suspicious: a pseudo Hausdorff distance above {float(settings['hd_limit_mm']):g} mm "
        f"or a pseudo Dice below {float(settings['dc_limit']):g}.",
        f"{summary['without_flag']} without a flag.",
        *_decided(summary, settings),
        *summary["drift_in_words"],
    ]


def _decided(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    counts = summary["decisions"]
    if not any(counts.values()):
        return []
    told = ", ".join(f"{name} {n}" for name, n in counts.items())
    return [
        f"By predicted quality, frames: {told}. Accepted is a frame of which every structure's Dice is predicted to be "
        f"at least {float(settings['accept']):g}, with a probability of {float(settings['coverage']):g} for subjects "
        "like those of training."
    ]


def _facts(made: Segmented) -> list[tuple[str, str]]:
    seconds = made.summary["seconds_median"]
    return [
        ("model", str(made.settings["model"])),
        ("licence of the model", str(made.model.description.get("licence", ""))),
        ("images", str(made.settings["images"])),
        ("labels", ", ".join(f"{key} = {value}" for key, value in made.model.labels.items())),
        ("median time", f"{seconds:.2f} s per image" if seconds is not None else ""),
        ("versions", ", ".join(f"{k} {v}" for k, v in made.summary["versions"].items())),
    ]


def _structure_table(made: Segmented) -> Table:
    counts = made.summary["structures"]
    rows = [[key.upper(), str(counts[key]["erroneous"]), str(counts[key]["suspicious"])] for key in counts]
    return Table("Flagged frames by structure", ["structure", "erroneous", "suspicious"], rows)


def _subject_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = rows[:MAX_ROWS]
    indexed = any(row["body_surface_m2"] == row["body_surface_m2"] for row in shown)
    header = ["subject", "structure", "EDV (ml)", "ESV (ml)", "SV (ml)", "EF (%)", "mass (g)"]
    header += ["EDV (ml/m²)", "ESV (ml/m²)", "mass (g/m²)"] if indexed else []
    cells = []
    for row in shown:
        found = [with_bounds(row, f"{name}{{}}_ml") for name in ("edv", "esv")]
        found += [
            finite(row["stroke_volume_ml"]),
            with_bounds(row, "ejection_fraction{}"),
            finite(row["mass_g"]),
        ]
        found += [finite(row[f"{name}_m2"]) for name in ("edv_ml", "esv_ml", "mass_g")] if indexed else []
        about = [row["ed"], row["es"], row["flag"] or DASH, row["reason"] or DASH]
        cells.append([row["subject"], row["structure"].upper(), *found, *about])
    cut = len(rows) - len(cells)
    note = "In brackets: where one more network like the model's would put it, in 95 of 100 cases. "
    return Table(
        "Pairs of ED and ES, and cines",
        [*header, "ED", "ES", "flag", "reason"],
        cells,
        note + (f"{cut} more are in subjects.csv." if cut else ""),
    )


def _error_table(made: Segmented, entries: Sequence[Entry]) -> Table:
    lines = made.journal.lines(e.offset for e in entries)
    return Table(
        "Images that could not be segmented", ["image", "error"], [[v["name"], v["error"]] for v in lines]
    )
