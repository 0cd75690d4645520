"""Pictures of single masks in the monitoring report (monitoring paper, Fig. 4): the flagged and some others."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qcjax.data.nifti import read_image, read_labels
from qcjax.labels import ACDC_LABELS, CARDIAC, label_mapping
from qcjax.monitoring.flags import KINDS, verdict
from qcjax.monitoring.table import MeasureRow, by_case, has_truth
from qcjax.report.cards import MAX_FLAGGED_PICTURES, Card, draw_card
from qcjax.report.pictures import draw_inconsistency, most_changed
from qcjax.report.run import figure_path
from qcjax.report.table import DASH, number

MAX_UNFLAGGED_PICTURES = 4
MaskRows = Sequence[MeasureRow]  # the rows of one mask


def monitoring_cards(
    rows: Sequence[MeasureRow], values: Mapping[str, int] | None, run_dir: Path, unit: str = "mm"
) -> tuple[list[Card], list[Card], list[list[str]]]:
    """Cards of the most suspicious flagged masks and of unflagged ones, and the cells of the flagged others.

    Args:
      values: key -> value in the label files; None: ACDC's.
      run_dir: where relative paths start; pictures go to its folder `figures`.
      unit: of the distances.
    """
    mapping = label_mapping(CARDIAC, values) if values else ACDC_LABELS
    flagged, others = sort_cases(rows)
    first = _most_suspicious(flagged)
    rest = [case for case in flagged if case not in first]
    cards, passed = (
        [_card(case, mapping, run_dir, unit) for case in cases] for cases in (first, _spread(others))
    )
    return cards, passed, [_cells(case) for case in rest]


def sort_cases(rows: Sequence[MeasureRow]) -> tuple[list[MaskRows], list[MaskRows]]:
    """The masks with a flag, erroneous first and then by falling suspicion, and those without, likewise."""
    cases = sorted(by_case(rows).values(), key=_urgency)
    return [c for c in cases if verdict(c)], [c for c in cases if not verdict(c)]


def case_name(case: MaskRows) -> str:
    """E.g. ``patient101 ED, unet``."""
    return f"{case[0]['subject']} {case[0]['phase']}, {case[0]['method']}"


def _urgency(case: MaskRows) -> tuple[int, float, float]:
    found, suspicion = verdict(case), case[0]["suspicion"]
    place = KINDS.index(found) if found else len(KINDS)
    return place, -suspicion if not math.isnan(suspicion) else 0.0, min(row["pdc"] for row in case)


def _most_suspicious(flagged: Sequence[MaskRows]) -> list[MaskRows]:
    """The masks that are pictured: the first of each kind of flag, so that many of one don't hide the other."""
    by_kind = [[case for case in flagged if verdict(case) == kind] for kind in KINDS]
    places = [max(MAX_FLAGGED_PICTURES // 2, MAX_FLAGGED_PICTURES - len(other)) for other in by_kind[::-1]]
    return [case for cases, n in zip(by_kind, places, strict=True) for case in cases[:n]]


def _spread(cases: Sequence[MaskRows]) -> list[MaskRows]:
    """The most and the least suspicious of the unflagged ones, and some between."""
    if len(cases) <= MAX_UNFLAGGED_PICTURES:
        return list(cases)
    places = np.linspace(0, len(cases) - 1, MAX_UNFLAGGED_PICTURES).round().astype(int)
    return [cases[place] for place in places.tolist()]


def _card(case: MaskRows, mapping: Mapping[int, int], run_dir: Path, unit: str) -> Card:
    first = case[0]
    path = figure_path(run_dir, f"case-{first['method']}-{first['subject']}-{first['phase']}")
    caption = (
        f"{case_name(case)}: mask, its reconstruction and where they differ, in the slice that differs most."
    )
    draw = partial(draw_case, first, mapping, run_dir, path)
    return draw_card(case_name(case), [verdict(case)], _describe(case, unit), caption, draw)


def draw_case(row: MeasureRow, mapping: Mapping[int, int], run_dir: Path, path: Path) -> Path | None:
    """`draw_inconsistency` from the files that a row names, with image and truth where they are there.

    Returns:
      The picture's path; None where mask or reconstruction is not named or not there.
    """
    found = {
        name: run_dir / row[f"{name}_path"]
        for name in ("image", "label", "mask", "reconstruction")
        if row[f"{name}_path"] and (run_dir / row[f"{name}_path"]).is_file()
    }
    if not {"mask", "reconstruction"} <= set(found):
        return None
    masks = {
        name: read_labels(found[name], dict(mapping))
        for name in ("mask", "reconstruction", "label")
        if name in found
    }
    mask, reconstruction = masks["mask"].array, masks["reconstruction"].array
    if reconstruction.shape != mask.shape:
        raise ValueError(
            f"{found['reconstruction']}: shape {reconstruction.shape} found, "
            f"expected {mask.shape} as in {found['mask']}"
        )
    image = read_image(found["image"]).array if "image" in found else None
    truth = masks["label"].array if "label" in masks else None
    return draw_inconsistency(
        image if image is not None and image.shape == mask.shape else None,
        mask,
        reconstruction,
        masks["mask"].spacing_mm[:2],
        most_changed(mask, reconstruction),
        path,
        truth=truth if truth is not None and truth.shape == mask.shape else None,
        dpi=130,
    )


def _describe(case: MaskRows, unit: str) -> str:
    """What was measured of a mask and what is known of it."""
    reasons = "; ".join(dict.fromkeys(row["reason"] for row in case if row["reason"]))
    texts = [f"Reason: {reasons}."] if reasons else []
    suspicion = case[0]["suspicion"]
    if not math.isnan(suspicion):
        texts.append(f"Suspicion {_suspicion(suspicion)}.")
    doubt = max(
        (row["doubt"] for row in case if not math.isnan(row.get("doubt", math.nan))), default=math.nan
    )
    if not math.isnan(doubt):
        texts.append(f"Doubt by the image {_suspicion(doubt)}.")
    for row in case:
        text = f"{row['structure'].upper()}: pDC {number(row['pdc'], 2)}, pHD {_distance(row['phd'], unit)}"
        if has_truth(row):
            text += f" (real {number(row['dc'], 2)}, {_distance(row['hd'], unit)})"
        texts.append(f"{text}.")
    rules = "; ".join(dict.fromkeys(row["rules"] for row in case if row["rules"]))
    texts += [f"Broken rules: {rules}."] if rules else []
    texts += [f"({case[0]['disease']})"] if case[0]["disease"] else []
    return " ".join(texts)


def _cells(case: MaskRows) -> list[str]:
    real = min((row["dc"] for row in case if has_truth(row)), default=None)
    reasons = "; ".join(dict.fromkeys(row["reason"] for row in case if row["reason"]))
    return [
        case_name(case),
        verdict(case),
        _suspicion(case[0]["suspicion"]),
        reasons or DASH,
        number(real, 2),
    ]


def _suspicion(value: float) -> str:
    return "∞" if math.isinf(value) else DASH if math.isnan(value) else number(value, 1)


def _distance(distance: float, unit: str) -> str:
    return f"{number(distance, 1)} {unit}" if math.isfinite(distance) else "undefined"


def gallery_words(rows: Sequence[MeasureRow], cards: Sequence[Any]) -> str:
    """How many masks are flagged and which are shown."""
    n_flagged, n = len(sort_cases(rows)[0]), len(by_case(rows))
    text = (
        f"{n_flagged} of {n} masks are flagged; erroneous ones come first, the most suspicious of each first."
    )
    return text + (
        f" The first {len(cards)} of both kinds are shown, the others listed below."
        if n_flagged > len(cards)
        else ""
    )
