"""The report's charts over epochs: learning curves and out-of-distribution (OoD) cases.

Each function draws one PNG and returns its path, or None where the run has nothing to draw.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from qcjax.data.subject import VIEWS
from qcjax.report import style


@matplotlib.rc_context(style.STYLE)
def draw_curves(lines: Sequence[Mapping[str, Any]], stages: Sequence[str], path: Path) -> Path | None:
    """Learning curves of stages, per view: training and validation loss, and validation RV Dice.

    Args:
      lines: of `metrics.jsonl`; of several for one stage, segmenter, view and epoch the last counts.
    """
    curves: dict[tuple[str, str, str], dict[float, Mapping[str, Any]]] = {}
    for line in lines:
        if line.get("stage") in stages:
            key = (line.get("view", ""), line.get("segmenter") or "", line["stage"])
            curves.setdefault(key, {})[line.get("k", line.get("epoch", 0))] = line
    if not curves:
        return None
    views = [view for view in VIEWS if any(key[0] == view for key in curves)]
    segmenters = list(dict.fromkeys(key[1] for key in curves))
    compared = len(stages) > 1  # control against refined: colour tells the stage, else the segmenter
    has_dice = any(
        _number(line.get("validation_dice_rv")) for points in curves.values() for line in points.values()
    )
    figure, axes = style.new_figure(4.9 if has_dice else 2.9, 1 + has_dice, len(views), sharey="row")
    labels: dict[str, Line2D] = {}
    for column, view in enumerate(views):
        for (curve_view, segmenter, stage), points in curves.items():
            if curve_view != view:
                continue
            colour = (
                style.STAGE_COLOURS[stage] if compared else style.segmenter_style(segmenter, segmenters)[0]
            )
            dashed: Any = (0, (4, 1.5)) if compared and segmenters.index(segmenter) else "-"
            label = ", ".join(name for name in (segmenter, stage if compared else "") if name) or stage
            drawn = [("validation_loss", 0, 1.8)] + ([("train_loss", 0, 0.8)] if not compared else [])
            for quantity, row, width in (*drawn, *([("validation_dice_rv", 1, 1.8)] if has_dice else [])):
                known = [(x, points[x][quantity]) for x in sorted(points) if _number(points[x].get(quantity))]
                x_values, y_values = [pair[0] for pair in known], [pair[1] for pair in known]
                marker = "o" if len(known) < 12 and width > 1 else ""
                axes[row][column].plot(
                    x_values,
                    y_values,
                    color=colour,
                    linewidth=width,
                    linestyle=dashed,
                    marker=marker,
                    markersize=3.5,
                )
            labels[label] = Line2D([], [], color=colour, linestyle=dashed, label=label)
        axes[0][column].set_title(f"{view}, {style.VIEW_NAMES[view]}")
        axes[-1][column].set_xlabel("refinement epoch k" if compared else "epoch")
        for panels in axes:
            panels[column].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[0][0].set_ylabel("validation loss" if compared else "loss (thin: training)")
    if has_dice:
        axes[1][0].set_ylabel("validation RV Dice")
    figure.legend(handles=list(labels.values()), loc="outside upper left", ncols=min(2, len(labels)))
    return style.save(figure, path)


@matplotlib.rc_context(style.STYLE)
def draw_ood(ood: Mapping[str, Any], path: Path) -> Path | None:
    """The number of OoD cases before refinement (k = 0) and after each of its epochs, if any."""
    series = [
        (segmenter, view, [len(names) for names in found["cases_after_k"]])
        for segmenter, views in ood.items()
        for view, found in views.items()
        if len(found.get("cases_after_k") or ()) > 1
    ]
    if not series:
        return None
    segmenters = list(ood)
    figure, ((axis,),) = style.new_figure(2.9)
    for segmenter, view, counts in series:
        colour, marker = style.segmenter_style(segmenter, segmenters)
        axis.plot(
            range(len(counts)),
            counts,
            color=colour,
            marker=marker if len(counts) < 15 else "",
            markersize=5,
            linestyle="-" if view == "SA" else (0, (4, 1.5)),
            label=f"{segmenter}, {view}",
        )
    axis.set(xlabel="refinement epoch k (0: before refinement)", ylabel="OoD cases")
    axis.set_ylim(0, max(1, *(max(counts) for *_, counts in series)) * 1.08)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.legend(loc="outside upper left", ncols=2, handlelength=3.2)
    return style.save(figure, path)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
