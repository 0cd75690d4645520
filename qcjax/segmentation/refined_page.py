"""The page `report.html` of a refined model: what changed, which masks the gate takes, and whether it did harm."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from qcjax.labels import label_mapping
from qcjax.report import style
from qcjax.report.cards import Picture, drawn_pictures, opening
from qcjax.report.pictures import most_changed, overlay, prepare_slice, show_image
from qcjax.report.render import write_page
from qcjax.report.table import Table, number
from qcjax.runtime.wording import count_of
from qcjax.segmentation.model import Model
from qcjax.segmentation.refined_cases import Compared, both_masks

SECTIONS = (
    ("findings", "In brief"),
    ("examples", "Masks before and after"),
    ("cases", "Every image"),
    ("learning", "Pass by pass"),
    ("run", "What ran"),
)
MAX_ROWS = 500  # of the table; more are in cases.csv
EXAMPLES = 3  # of either kind
HARM = 0.01  # of Dice on labelled slices, from which on the page warns


def write_refined_page(
    path: Path,
    model: Model,
    cases: Sequence[Compared],
    journal: Sequence[Mapping[str, Any]],
    before: Sequence[Mapping[str, float]],
) -> Path:
    """Draw the figures and write the page; its path.

    Args:
      before: of each network before refinement, what its lines of the journal tell: pDC, Dice on labelled slices.
    """
    used = [case for case in cases if not case.error]
    taken = sum(case.accepted for case in used)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        examples = _examples(model, used, folder)
        quality = _draw_quality(model, used, folder / "quality.png")
        learning = _draw_learning(model, journal, before, folder / "learning.png")
        predicted = drawn_pictures((quality, "Predicted Dice of refined against source's masks."))
        plot = "Predicted Dice of each structure before and after: filled dots are taken, hollow ones aren't."
        sentence = (
            "The largest change that the gate takes"
            if taken
            else "The largest change, which the gate refuses"
        )
        context = {
            "title": f"A model of {', '.join(key.upper() for key in model.labels)}, refined",
            "lead": f"Of {count_of(len(used), 'image')} the refined masks of {taken} are taken; the others stay the "
            "source's.",
            "sections": SECTIONS,
            "opening": opening(
                (examples[:1], f"{sentence}: image, mask of the source, refined mask."), (predicted, plot)
            ),
            "findings": _findings(model, cases, journal, before),
            "overall": _overall(model, used),
            "examples": examples,
            "cases": _table(used),
            "learning": drawn_pictures(
                (
                    learning,
                    "Pseudo Dice on the images learnt from, and Dice on labelled slices, which must not fall; pass 0 "
                    "is the source.",
                )
            ),
            "facts": [
                ("labelled slices", str(model.description["refined"]["labelled_slices"])),
                (
                    "versions",
                    ", ".join(f"{k} {v}" for k, v in model.description["refined"]["versions"].items()),
                ),
            ],
            "settings": json.dumps(model.description["refined"]["options"], indent=2),
        }
        return write_page(path, "refined.html.j2", context)


def _findings(
    model: Model,
    cases: Sequence[Compared],
    journal: Sequence[Mapping[str, Any]],
    before: Sequence[Mapping[str, float]],
) -> list[str]:
    made, used = model.description["refined"], [c for c in cases if not c.error]
    taken = [c for c in used if c.accepted]
    sentences = [
        f"{made['cases']} images or frames, {made['learnt_from']} of them learnt from; {model.description['networks']} "
        "networks refined.",
        f"Taken: {len(taken)} of {len(used)} refined masks, predicted Dice on average "
        + (f"{float(np.mean([c.gain for c in taken])):+.3f}." if taken else "unchanged: none gains enough."),
    ]
    if len(cases) > len(used):
        sentences.append(f"{count_of(len(cases) - len(used), 'image')} couldn't be used; cases.csv says why.")
    worst = min((_harm(model, journal, before)), default=0.0)
    sentences.append(
        f"Dice on labelled slices changed by {worst:+.3f} in the network and structure that lost most"
        + ("." if worst > -HARM else ": refinement does harm, try a smaller --learning-rate-factor.")
    )
    sentences.append(
        "No truth was seen: predicted quality was learnt from the source's masks, and refinement trains what one of "
        "its signals measures, so gains may be overstated."
    )
    return sentences


def _harm(
    model: Model, journal: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, float]]
) -> list[float]:
    """Change of the Dice on labelled slices, of each network and structure, from the source to the last pass."""
    changes = []
    for place, start in enumerate(before, start=1):
        lines = [line for line in journal if line["stage"] == f"refined_{place}"]
        for key in (f"labelled_dice_{s.key}" for s in model.structures):
            changes += [lines[-1][key] - start[key]] if lines else []
    return changes


def _overall(model: Model, used: Sequence[Compared]) -> Table:
    rows = []
    for i, s in enumerate(model.structures):
        values = [
            [c.between[i], *(x[i] for x in (*c.pdc, *c.predicted)), c.predicted[int(c.accepted)][i]]
            for c in used
        ]
        known = np.array(values, float).reshape(-1, 6)
        means = [np.nanmean(x) if np.isfinite(x).any() else np.nan for x in known.T]
        rows.append([s.key.upper(), str(len(used)), *(number(float(m), 3) for m in means)])
    header = ["structure", "images", "Dice of both", "pDC, source", "pDC, refined", "predicted Dice, source",
              "refined", "gated"]  # fmt: skip
    return Table("Means over the images", header, rows)


def _table(used: Sequence[Compared]) -> Table:
    ordered = sorted(used, key=lambda c: -np.nan_to_num(c.gain, nan=-np.inf))
    rows = [
        [
            c.image.name,
            "yes" if c.ood else "no",
            number(float(c.between.min()), 3),
            f"{c.gain:+.3f}" if np.isfinite(c.gain) else "–",
            "refined" if c.accepted else "source",
            c.reason,
        ]
        for c in ordered[:MAX_ROWS]
    ]
    header = ["image", "out of distribution", "least Dice of both", "gain", "mask taken", "why"]
    return Table("The largest gain of predicted Dice first", header, rows)


def _examples(model: Model, used: Sequence[Compared], folder: Path) -> list[Picture]:
    changed = [c for c in used if c.between.min() < 1 and np.isfinite(c.gain)]
    taken = sorted((c for c in changed if c.accepted), key=lambda c: -c.gain)[:EXAMPLES]
    refused = sorted((c for c in changed if not c.accepted), key=lambda c: c.gain)
    if not taken:  # the page opens with the largest change
        refused.sort(key=lambda c: c.between.min())
    drawn: list[tuple[Path | None, str]] = []
    for place, case in enumerate((*taken, *refused[:EXAMPLES])):
        path = _draw_example(model, case, folder / f"example_{place}.png")
        drawn.append((path, f"{case.image.name}, {'taken' if case.accepted else 'refused'}: {case.reason}."))
    return drawn_pictures(*drawn)


@matplotlib.rc_context(style.STYLE)
def _draw_example(model: Model, case: Compared, path: Path) -> Path:
    source, refined = (frames[0] for frames in both_masks(model, case.image))
    ids = label_mapping(model.structures, model.labels)
    masks = []
    for result in (source, refined):
        mask = np.zeros(result.labels.shape, np.uint8)
        for value, label in ids.items():
            mask[result.labels == value] = label
        masks.append(mask)
    place = most_changed(*masks)
    x_mm, y_mm, _ = source.volume.spacing_mm
    shown = prepare_slice(source.volume.array, (masks[0], masks[1]), (x_mm, y_mm), place, model.structures)
    figure, rows = style.new_figure(2.3, 1, 3)
    titles = (f"slice {shown.number} of {shown.of}", "source", "refined")
    for axis, title, labels in zip(rows[0], titles, (None, *shown.labels), strict=True):
        show_image(axis, shown, title)
        if labels is not None:
            overlay(axis, labels, model.structures)
    figure.legend(handles=style.structure_handles(model.structures), loc="outside lower center", ncols=3)
    return style.save(figure, path, dpi=150)


@matplotlib.rc_context(style.STYLE)
def _draw_quality(model: Model, used: Sequence[Compared], path: Path) -> Path:
    figure, rows = style.new_figure(3.0, 1, len(model.structures), sharey=True)
    accepted = np.array([c.accepted for c in used], bool)
    for i, (axis, s) in enumerate(zip(rows[0], model.structures, strict=True)):
        before, after = (np.array([c.predicted[j][i] for c in used], float) for j in (0, 1))
        axis.scatter(before[~accepted], after[~accepted], s=14, facecolors="none", edgecolors=s.colour)
        axis.scatter(before[accepted], after[accepted], s=14, color=s.colour)
        known = np.concatenate([before, after, [1.0]])
        least = max(0.0, float(np.nanmin(known)) - 0.02)
        axis.plot([least, 1], [least, 1], color="0.4", linewidth=1)
        axis.set_title(s.key.upper())
        axis.set_xlabel("source")
    rows[0][0].set_ylabel("predicted Dice, refined")
    return style.save(figure, path, dpi=110)


@matplotlib.rc_context(style.STYLE)
def _draw_learning(
    model: Model, journal: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, float]], path: Path
) -> Path:
    figure, rows = style.new_figure(3.0, 1, 2)
    parts = (("pdc_", "pDC, images learnt from"), ("labelled_dice_", "Dice, labelled slices"))
    for axis, (prefix, title) in zip(rows[0], parts, strict=True):
        for place, start in enumerate(before, start=1):
            lines = [line for line in journal if line["stage"] == f"refined_{place}"]
            for s in model.structures:
                values = [start[prefix + s.key], *(line[prefix + s.key] for line in lines)]
                axis.plot(range(len(values)), values, color=s.colour, linewidth=1)
        axis.set_title(title)
        axis.set_xlabel("pass")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    rows[0][1].legend(handles=style.structure_handles(model.structures))
    return style.save(figure, path, dpi=110)
