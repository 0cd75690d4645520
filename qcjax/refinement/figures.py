"""The report's charts of what was measured: bars, ablation, pseudo against real measures.

Each function draws one PNG and returns its path, or None where the run has nothing to draw.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from qcjax.data.subject import VIEWS
from qcjax.labels import RV
from qcjax.refinement.table import STAGES, CaseRow, has_truth
from qcjax.report import style

MEASURES = ("dc", "hd")
Results = Mapping[str, Any]

SIDE_BY_SIDE = 5  # names of stages below an axis; more stand upright


@matplotlib.rc_context(style.STYLE)
def draw_bars(results: Results, path: Path) -> Path | None:
    """RV Dice and Hausdorff distance of the last stage: SA, LA and average (refinement paper, Fig. 2).

    Bars per segmenter and official part; whiskers are the mean's 95 % interval over subjects.
    """
    bars = _bars(results)
    if not bars:
        return None
    segmenters = list(results["ablation"])
    groups = [
        view for view in (*VIEWS, "AVG") if any(_mean(cells, view, "dc") is not None for *_, cells in bars)
    ]
    figure, axes = style.new_figure(5.6, 2)
    width = 0.8 / len(bars)
    for (axis,), measure in zip(axes, MEASURES, strict=True):
        for place, (segmenter, part, cells) in enumerate(bars):
            colour, _ = style.segmenter_style(segmenter, segmenters)
            for group, view in enumerate(groups):
                mean = _mean(cells, view, measure)
                if mean is None:
                    continue
                x = group + (place - (len(bars) - 1) / 2) * width
                hatch = style.PART_HATCHES[part]
                axis.bar(
                    x,
                    mean,
                    width * 0.9,
                    color=colour if not hatch else "white",
                    edgecolor=colour,
                    hatch=hatch,
                )
                top = _whisker(axis, x, cells[view][measure], style.INK)
                text = f"{mean:.{2 if len(bars) > 2 else 3}f}" if measure == "dc" else f"{mean:.1f}"
                axis.annotate(text, (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=8)
        axis.set_xticks(range(len(groups)), [_group_name(view, bars) for view in groups])
        axis.set_ylabel(style.MEASURE_NAMES[measure])
        axis.grid(axis="x", visible=False)
        axis.margins(y=0.12)
    axes[0][0].set_ylim(0, 1.08)
    handles = [
        Patch(
            facecolor="white"
            if style.PART_HATCHES[part]
            else style.segmenter_style(segmenter, segmenters)[0],
            edgecolor=style.segmenter_style(segmenter, segmenters)[0],
            hatch=style.PART_HATCHES[part],
            label=f"{segmenter}, {part}",
        )
        for segmenter, part, _ in bars
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return style.save(figure, path)


def _bars(results: Results) -> list[tuple[str, str, dict[str, dict[str, Any]]]]:
    """Segmenter, part, and of each view and the average: measure -> mean, low, high, n; those with a mean."""
    bars = []
    for segmenter, views in results["ablation"].items():
        averages = results["average"][segmenter]
        for part in ("validation", "test"):
            cells = {view: stages[last_stage(stages)]["by_part"][part] for view, stages in views.items()}
            average = averages[last_stage(averages)]["by_part"][part] if averages else {}
            cells["AVG"] = {measure: {"mean": average.get(measure)} for measure in MEASURES}
            if any(cell["dc"]["mean"] is not None for cell in cells.values()):
                bars.append((segmenter, part, cells))
    return bars


@matplotlib.rc_context(style.STYLE)
def draw_ablation(results: Results, path: Path) -> Path | None:
    """RV Dice and Hausdorff distance per segmenter and view over the stages (refinement paper, Fig. 3).

    Points are means over the scored part, bars their 95 % intervals over subjects.
    """
    ablation = results["ablation"]
    views = [view for view in VIEWS if any(_scored(ablation[name].get(view)) for name in ablation)]
    if not views:
        return None
    segmenters = list(ablation)
    drawn = present_stages(ablation)
    figure, axes = style.new_figure(5.4, 2, len(views), sharex=True, sharey="row")
    for column, view in enumerate(views):
        for row, measure in enumerate(MEASURES):
            axis = axes[row][column]
            for place, segmenter in enumerate(segmenters):
                stages = ablation[segmenter].get(view, {})
                shown = [
                    name for name in drawn if name in stages and stages[name][measure]["mean"] is not None
                ]
                colour, marker = style.segmenter_style(segmenter, segmenters)
                x = [drawn.index(name) + (place - (len(segmenters) - 1) / 2) * 0.24 for name in shown]
                means = [stages[name][measure]["mean"] for name in shown]
                axis.plot(x, means, marker, color=colour, markersize=7)
                for position, name in zip(x, shown, strict=True):
                    _whisker(axis, position, stages[name][measure], colour, 2.0)
                if "segmenter" in shown:
                    axis.axhline(
                        means[shown.index("segmenter")], color=colour, linewidth=0.9, linestyle=(0, (4, 3))
                    )
            axis.set_xlim(-0.5, len(drawn) - 0.5)
            names = [style.STAGE_TICKS[name] for name in drawn]
            if len(names) > SIDE_BY_SIDE:
                names = [name.replace("\n", "") for name in names]
            axis.set_xticks(range(len(drawn)), names, rotation=90 if len(names) > SIDE_BY_SIDE else 0)
            axis.grid(axis="x", visible=False)
            if column == 0:
                axis.set_ylabel(style.MEASURE_NAMES[measure])
        axes[0][column].set_title(f"{view}, {style.VIEW_NAMES[view]}")
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            linestyle="",
            label=f"{name} (n {_ablation_counts(ablation[name])})",
        )
        for name in segmenters
        for colour, marker in [style.segmenter_style(name, segmenters)]
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(2, len(handles)))
    return style.save(figure, path)


@matplotlib.rc_context(style.STYLE)
def draw_scatter(
    rows: Sequence[CaseRow], thresholds: Mapping[str, Any], title: str, path: Path
) -> Path | None:
    """Pseudo against real Dice and Hausdorff distance of the RV, OoD cases marked.

    Args:
      rows: of one segmenter and view, stage `segmenter`.
      thresholds: phase -> {"low", "up_mm"}, drawn as vertical lines.
    """
    known = [row for row in rows if has_truth(row)]
    if not known:
        return None
    figure, axes = style.new_figure(3.25, 1, 2)
    panels = (
        ("pdc_rv", "dc_rv", "low", "pDC", "DC"),
        ("phd_rv_mm", "hd_rv_mm", "up_mm", "pHD (mm)", "HD (mm)"),
    )
    for axis, (pseudo, real, bound, x_name, y_name) in zip(axes[0], panels, strict=True):
        pairs = [(row[pseudo], row[real], row["ood"]) for row in known]
        shown = [pair for pair in pairs if math.isfinite(pair[0]) and math.isfinite(pair[1])]
        for ood, colour, marker, size in ((0, RV.colour, "o", 16), (1, style.OOD_COLOUR, "^", 34)):
            chosen = [pair for pair in shown if pair[2] == ood]
            axis.scatter(
                [pair[0] for pair in chosen],
                [pair[1] for pair in chosen],
                s=size,
                marker=marker,
                color=colour,
                alpha=0.55 if not ood else 1.0,
                linewidths=0.6 if ood else 0,
                edgecolors=style.INK if ood else "none",
                zorder=2 + ood,
            )
        for phase, dashes in (("ED", (0, (5, 2))), ("ES", (0, (1, 1.5)))):
            value = thresholds.get(phase, {}).get(bound)
            if value is not None:
                axis.axvline(value, color=style.INK, linewidth=1.1, linestyle=dashes)
        if shown:
            low, high = _limits(shown, 1.0 if real == "dc_rv" else None)
            axis.plot([low, high], [low, high], color=style.GREY, linewidth=0.8, zorder=1)
            axis.set(xlim=(low, high), ylim=(low, high))
        axis.set_box_aspect(1)
        axis.set(xlabel=x_name, ylabel=y_name)
        undefined = len(known) - len(shown)
        count = f"n = {len(shown)}" + (f", {undefined} undefined" if undefined else "")
        axis.set_title(f"{title if axis is axes[0][0] else ''}\n{count}", fontweight="normal")
    handles = [
        Line2D([], [], color=RV.colour, marker="o", markersize=5, linestyle="", label="in distribution"),
        Line2D(
            [], [], color=style.OOD_COLOUR, marker="^", markeredgecolor=style.INK, linestyle="", label="OoD"
        ),
        Line2D([], [], color=style.INK, linewidth=1.1, linestyle=(0, (5, 2)), label="threshold ED"),
        Line2D([], [], color=style.INK, linewidth=1.1, linestyle=(0, (1, 1.5)), label="threshold ES"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handletextpad=0.4, columnspacing=1.0)
    return style.save(figure, path)


def present_stages(ablation: Mapping[str, Mapping[str, Iterable[str]]]) -> list[str]:
    """The stages that any segmenter has in any view, in their order."""
    found = {stage for views in ablation.values() for stages in views.values() for stage in stages}
    return [stage for stage in STAGES if stage in found]


def last_stage(stages: Iterable[str]) -> str:
    """The stage furthest down the method among those given."""
    return max(stages, key=STAGES.index)


def _mean(cells: Mapping[str, Any], view: str, measure: str) -> float | None:
    return cells[view][measure]["mean"] if view in cells else None


def _whisker(axis: Axes, x: float, cell: Mapping[str, Any], colour: str, width: float = 1.2) -> float:
    """Draw the interval of a mean where there is one; returns the height of its top."""
    if cell.get("low") is None:
        return cell["mean"]
    axis.plot([x, x], [cell["low"], cell["high"]], color=colour, linewidth=width, solid_capstyle="butt")
    return cell["high"]


def _group_name(view: str, bars: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    """E.g. ``SA`` and below it the cases of each part."""
    if view == "AVG":
        return view
    counts = {part: cells[view]["dc"]["n"] for _, part, cells in bars if view in cells}
    return "\n".join([view, *(f"{part} n = {n}" for part, n in counts.items())])


def _ablation_counts(views: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{views[view][last_stage(views[view])]['dc']['n']} {view}" for view in VIEWS if view in views
    )


def _scored(stages: Mapping[str, Any] | None) -> bool:
    return bool(stages) and any(stage["dc"]["mean"] is not None for stage in (stages or {}).values())


def _limits(pairs: Sequence[tuple[float, float, int]], top: float | None) -> tuple[float, float]:
    values = [value for pair in pairs for value in pair[:2]]
    if top is not None:
        return max(-0.02, min(values) - 0.05), top + 0.02
    return 0.0, max(values) * 1.06 + 1e-6
