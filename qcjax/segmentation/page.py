"""The page `report.html` of a folder of segmented images: the most doubtful first, each with its picture."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcjax.data.cine import read_frames
from qcjax.inference.entries import Entry
from qcjax.report.cards import Card, embed
from qcjax.report.pictures import draw_inconsistency, most_changed
from qcjax.report.render import write_page
from qcjax.report.table import Table, number
from qcjax.runtime.line_journal import Line, LineJournal, from_json
from qcjax.runtime.wording import count_of
from qcjax.segmentation.model import Model

MAX_ROWS = 500  # of a table; more are in cases.csv
DPI = 110
LEAD = (
    "Each mask is the mean of a few networks' opinions. An autoencoder that was trained on plausible masks rebuilt it; "
    "where both disagree, the mask is doubted (monitoring paper: Galati and Zuluaga, FIMH 2021)."
)
SECTIONS = (
    ("findings", "In brief"),
    ("doubtful", "Most doubtful first"),
    ("subjects", "Ventricles over the heartbeat"),
    ("errors", "Not segmented"),
    ("cases", "All images"),
    ("run", "What ran"),
    ("glossary", "Glossary"),
)


@dataclass(frozen=True)
class Segmented:
    """What the page is made from."""

    folder: Path
    model: Model
    settings: Mapping[str, Any]
    summary: Mapping[str, Any]
    journal: LineJournal[Entry]
    entries: Sequence[Entry]
    subjects: Sequence[Mapping[str, Any]]


def write_segments_page(made: Segmented, n_pictures: int) -> Path:
    """Segment the most doubtful images once more for their pictures, and write the page, which holds all that it shows.

    Returns:
      The path of `report.html`.
    """
    ordered = sorted(made.entries, key=lambda entry: entry.urgency)
    failed = [entry for entry in ordered if entry.status == "error"]
    segmented = [entry for entry in ordered if entry.status != "error"]
    with tempfile.TemporaryDirectory() as scratch:
        lines = made.journal.lines(e.offset for e in segmented[:n_pictures])
        cards = [_card(made, line, Path(scratch) / f"{i}.png") for i, line in enumerate(lines)]
    context = {
        "title": f"{count_of(made.summary['segmented'], 'image')} segmented",
        "lead": LEAD,
        "sections": SECTIONS,
        "findings": _findings(made.summary, made.settings),
        "by_structure": _structure_table(made),
        "cards": cards,
        "n_others": len(segmented) - len(cards),
        "legend": [(s.colour, s.key, "" if s.name == s.key else s.name) for s in made.model.structures],
        "subjects": _subject_table(made.subjects) if made.subjects else None,
        "errors": _error_table(made, failed[:MAX_ROWS]) if failed else None,
        "n_errors": len(failed),
        "everything": _case_table(made, segmented) if len(segmented) <= MAX_ROWS else None,
        "max_rows": MAX_ROWS,
        "facts": _facts(made),
        "settings": json.dumps(made.summary["settings"], indent=2),
        "hd_limit": f"{float(made.settings['hd_limit_mm']):g} mm",
        "dc_limit": f"{float(made.settings['dc_limit']):g}",
    }
    return write_page(made.folder / "report.html", "segments.html.j2", context)


def _worst_frame(line: Line) -> Line:
    """The frame of an image that is shown: the most suspicious of those with the worst flag."""
    frames = [f for f in line["frames"] if f["status"] == line["status"]]
    return max(frames, key=lambda f: -1 if f["suspicion"] is None else from_json(f["suspicion"]))


def _card(made: Segmented, line: Line, path: Path) -> Card:
    frame = _worst_frame(line)
    reasons = "; ".join(found["reason"] for found in frame["structures"].values() if found["reason"])
    text = f"{reasons[:1].upper()}{reasons[1:]}. " if reasons else ""
    text += f"Suspicion {_unbounded(frame['suspicion'])}. {_measures(frame)}"
    picture = None
    try:
        picture = embed(path, _draw(made, line, frame, path))
    except (OSError, ValueError, IndexError) as error:  # a file was changed since it was segmented
        text += f" {error}."
    name = line["name"] if frame["frame"] is None else f"{line['name']}, frame {frame['frame']}"
    return Card(name, [line["status"]] if line["status"] else [], text, picture)


def _draw(made: Segmented, line: Line, frame: Line, path: Path) -> str:
    """Draw an image; the caption."""
    model = made.model
    frames = model.prepare_frames(read_frames(Path(line["path"]), model.orientation))
    prepared = frames[(frame["frame"] or 1) - 1]
    volume = prepared.volume
    mask = model.restore(prepared, model.predict([prepared])[0].probabilities)
    rebuilt = model.judge(mask, volume.spacing_mm).reconstruction
    flagged = [v for v in frame["structures"].values() if v["flag"] and v["worst_slice"]]
    worst = min(flagged, key=lambda v: v["pdc"], default=None)
    shown = worst["worst_slice"] - 1 if worst else most_changed(mask, rebuilt)
    draw_inconsistency(volume.array, mask, rebuilt, volume.spacing_mm[:2], shown, path, model.structures, DPI)
    return f"Image, mask, its reconstruction and where they differ, slice {shown + 1} of {mask.shape[2]}."


def _findings(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    return [
        f"{count_of(summary['images'], 'image')} of {count_of(summary['frames'], 'frame')}: "
        f"{summary['segmented']} segmented, {summary['errors']} could not be.",
        f"{summary['erroneous']} erroneous: a structure is absent from the mask or from its reconstruction.",
        f"{summary['suspicious']} suspicious: a pseudo Hausdorff distance above {float(settings['hd_limit_mm']):g} mm "
        f"or a pseudo Dice below {float(settings['dc_limit']):g}.",
        f"{summary['without_flag']} without a flag.",
        *_decided(summary, settings),
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
    header = ["subject", "structure", "EDV (ml)", "ESV (ml)", "EF (%)", "ED", "ES", "flag", "faults"]
    cells = [
        [
            row["subject"],
            row["structure"].upper(),
            number(row["edv_ml"], 1),
            number(row["esv_ml"], 1),
            number(
                None if row["ejection_fraction"] != row["ejection_fraction"] else row["ejection_fraction"], 1
            ),
            row["ed"],
            row["es"],
            row["flag"] or "–",
            row["faults"] or "–",
        ]
        for row in rows[:MAX_ROWS]
    ]
    cut = len(rows) - len(cells)
    return Table(
        "Pairs of ED and ES, and cines", header, cells, f"{cut} more are in subjects.csv." if cut else ""
    )


def _case_table(made: Segmented, entries: Sequence[Entry]) -> Table:
    keys = [structure.key for structure in made.model.structures]
    header = ["image", "verdict", "suspicion"]
    header += [f"{m} {k.upper()}" for k in keys for m in ("ml", "pDC", "pHD (mm)")]
    rows = []
    for line in made.journal.lines(e.offset for e in entries):
        frame = _worst_frame(line)
        cells = [line["name"], line["status"] or "–", _unbounded(frame["suspicion"])]
        for key in keys:
            found = frame["structures"][key]
            cells += [number(found["volume_ml"], 1), number(found["pdc"], 2), number(found["phd_mm"], 1)]
        rows.append(cells)
    return Table("The most doubtful first; of a cine its most doubtful frame", header, rows)


def _error_table(made: Segmented, entries: Sequence[Entry]) -> Table:
    lines = made.journal.lines(e.offset for e in entries)
    return Table(
        "Images that could not be segmented", ["image", "error"], [[v["name"], v["error"]] for v in lines]
    )


def _measures(frame: Line) -> str:
    return (
        "; ".join(
            f"{key.upper()}: {number(v['volume_ml'], 1)} ml, pDC {number(v['pdc'], 2)}, "
            f"pHD {number(v['phd_mm'], 1)} mm"
            + (f", worst slice {v['worst_slice']}" if v["worst_slice"] else "")
            + _expected(v)
            for key, v in frame["structures"].items()
        )
        + "."
    )


def _expected(found: Line) -> str:
    if found["predicted_dice"] is None:
        return ""
    high = from_json(found["predicted_hd_high_mm"])
    return (
        f", Dice about {found['predicted_dice']:.2f}, at least {found['predicted_dice_low']:.2f}, "
        f"HD about {found['predicted_hd_mm']:.0f} mm, at most {high:.0f} mm: "
        f"{found['decision']}"
    )


def _unbounded(stored: float | str | None) -> str:
    value = from_json(stored)
    return "∞" if value == float("inf") else number(None if value != value else value, 2)
