"""The charts of the monitoring report: agreement with the truth, ranking, risk, flags, damage.

Each function draws one PNG and returns its path, or None where the run has nothing to draw.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from qcjax.monitoring.summary import PSEUDO, REAL
from qcjax.monitoring.table import MeasureRow, has_rca, has_truth
from qcjax.report import style
from qcjax.report.table import number

Results = Mapping[str, Any]

ESTIMATOR_NAMES = {"ours": "reconstruction", "rca": "RCA"}
MEASURE_TEXTS: dict[str, tuple[str, str, Any]] = {  # of risk-coverage: name and line
    "pdc": ("pDC", "#0072b2", "-"),
    "phd": ("pHD", "#56b4e9", "-"),
    "suspicion": ("suspicion", "#009e73", "-"),
    "image": ("contrast in the image", "#882255", (0, (1, 1))),
    "agreement": ("agreement of methods", "#d55e00", (0, (5, 1.5))),
    "rules": ("anatomical rules", "#cc79a7", (0, (2, 1.2))),
    "rca": ("RCA", "#e69f00", (0, (5, 1.5, 1, 1.5))),
}
LOSS_TEXTS = {"failure": "share of failures accepted", "graded": "mean 1 − DC accepted"}


def unit_of(results: Results) -> str:
    """The unit of all distances."""
    return str(results["distance_unit"])


@matplotlib.rc_context(style.STYLE)
def draw_agreement(rows: Sequence[MeasureRow], results: Results, estimator: str, path: Path) -> Path | None:
    """Real against pseudo DC and HD per structure (monitoring paper, Fig. 3).

    Every structure of every mask is one point, its colour and marker the method's. An undefined distance stands
    beyond the end of its axis, in the grey band.
    """
    scope = scope_of(results, estimator)
    if scope is None:
        return None
    known = [row for row in rows if has_truth(row) and (estimator == "ours" or has_rca(row))]
    methods, keys, unit = results["methods"], results["structures"], unit_of(results)
    figure, axes = style.new_figure(4.1 + 0.2 * -(-len(methods) // 3), 2, len(keys), sharey="row")
    for line, measure in zip(axes, REAL, strict=True):
        columns = (PSEUDO[estimator][measure], REAL[measure])
        values = [row[column] for row in known for column in columns if math.isfinite(row[column])]
        top = max(values, default=1.0)
        for axis, key in zip(line, keys, strict=True):
            own = [row for row in known if row["structure"] == key]
            _scatter(axis, own, columns, methods, measure, top)
            cells = scope["correlation"][estimator][key][measure]
            name = f"{key.upper()}\n" if measure == "dc" else ""
            axis.set_title(
                f"{name}r {number(cells['counted']['r'], 3)} (dropped {number(cells['dropped']['r'], 3)})",
                fontweight="normal",
                fontsize=8,
            )
            axis.set_xlabel("pDC" if measure == "dc" else f"pHD ({unit})")
        line[0].set_ylabel("DC" if measure == "dc" else f"HD ({unit})")
    figure.legend(handles=_method_handles(methods), loc="outside lower left", ncols=3, handletextpad=0.2)
    return style.save(figure, path)


def _scatter(
    axis: Axes,
    rows: Sequence[MeasureRow],
    columns: tuple[str, str],
    methods: Sequence[str],
    measure: str,
    top: float,
) -> None:
    end = 1.02 if measure == "dc" else top * 1.06
    beyond = top * 1.13  # where an undefined distance stands
    for method in methods:
        colour, marker = style.method_style(method, methods)
        points = np.array([[row[c] for c in columns] for row in rows if row["method"] == method]).reshape(
            -1, 2
        )
        failed = (points == 0).any(axis=1) if measure == "dc" else ~np.isfinite(points).all(axis=1)
        points = np.where(np.isfinite(points), points, beyond)
        for chosen, size, edge in ((~failed, 9, "none"), (failed, 20, style.INK)):
            axis.scatter(
                points[chosen, 0],
                points[chosen, 1],
                s=size,
                marker=marker,
                color=colour,
                alpha=0.6 if edge == "none" else 1.0,
                linewidths=0.6 if edge != "none" else 0,
                edgecolors=edge,
                zorder=2 + (edge != "none"),
                clip_on=False,
            )
    axis.plot([0, end], [0, end], color=style.GREY, linewidth=0.8, zorder=1)
    if measure == "dc":
        axis.set(xlim=(-0.04, end), ylim=(-0.04, end), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    else:
        for span in (axis.axvspan, axis.axhspan):
            span(end, top * 1.2, color="#eeeeee", zorder=0, linewidth=0)
        axis.set(xlim=(0, top * 1.2), ylim=(0, top * 1.2))
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_locator(MaxNLocator(3, integer=True))
    axis.set_box_aspect(1)


@matplotlib.rc_context(style.STYLE)
def draw_ranking(results: Results, estimator: str, path: Path) -> Path | None:
    """Mean HD against mean pHD of each method, per structure and phase, failures counted in (Table 1)."""
    scope = scope_of(results, estimator)
    if scope is None or len(results["methods"]) < 2:
        return None
    methods, keys = results["methods"], results["structures"]
    phases = scope["ranking"]["counted"]
    figure, axes = style.new_figure(
        0.3 + 1.9 * len(phases) + 0.2 * -(-len(methods) // 3), len(phases), len(keys)
    )
    for line, (phase, cells) in zip(axes, phases.items(), strict=True):
        for axis, key in zip(line, keys, strict=True):
            for method, cell in cells[key]["methods"].items():
                if cell["hd"] is None or cell[estimator] is None:
                    continue
                colour, marker = style.method_style(method, methods)
                axis.plot(
                    cell[estimator], cell["hd"], marker, color=colour, markersize=6, markeredgecolor="white",
                    markeredgewidth=0.5,
                )  # fmt: skip
            r_s = cells[key]["r_s"][estimator]["r"]
            axis.set_title(f"{key.upper()}, {phase}: $r_s$ {number(r_s, 2)}", fontweight="normal", fontsize=9)
            for ticks in (axis.xaxis, axis.yaxis):
                ticks.set_major_locator(MaxNLocator(3, integer=True))
            axis.margins(0.15)
            axis.set_box_aspect(1)
            if line is axes[-1]:
                axis.set_xlabel(f"mean pHD ({unit_of(results)})")
        line[0].set_ylabel(f"mean HD ({unit_of(results)})")
    figure.legend(handles=_method_handles(methods), loc="outside lower left", ncols=3, handletextpad=0.2)
    return style.save(figure, path)


@matplotlib.rc_context(style.STYLE)
def draw_risk(results: Results, scope: str, path: Path) -> Path | None:
    """Risk-coverage curves of every measure, with the ideal one and the risk without any selection."""
    risk = (results["scopes"].get(scope) or {}).get("risk")
    if not risk:
        return None
    figure, axes = style.new_figure(5.6, 2, sharex=True)
    for (axis,), (loss, text) in zip(axes, LOSS_TEXTS.items(), strict=True):
        cells = risk[loss]
        axis.axhline(cells["mean_loss"], color=style.GREY, linewidth=1.0)
        ideal = cells["curves"]["ideal"]
        axis.plot(ideal["coverage"], ideal["risk"], color=style.INK, linewidth=1.2, linestyle=(0, (1, 1)))
        for name in risk["measures"]:
            _, colour, dashes = MEASURE_TEXTS[name]
            curve = cells["curves"][name]
            axis.plot(curve["coverage"], curve["risk"], color=colour, linestyle=dashes, linewidth=1.6)
        axis.set(ylabel=text, xlim=(0, 1), ylim=(0, None))
    axes[-1][0].set_xlabel("coverage: share accepted, the most trusted first")
    handles = [
        Line2D([], [], color=colour, linestyle=dashes, label=label)
        for label, colour, dashes in (MEASURE_TEXTS[name] for name in risk["measures"])
    ]
    handles.append(Line2D([], [], color=style.INK, linewidth=1.2, linestyle=(0, (1, 1)), label="ideal"))
    handles.append(Line2D([], [], color=style.GREY, linewidth=1.0, label="no selection"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=3)
    return style.save(figure, path)


@matplotlib.rc_context(style.STYLE)
def draw_limits(results: Results, path: Path) -> Path | None:
    """Masks caught, missed and falsely flagged over each limit of the flags, the other one held."""
    curves = results["flag_curves"]
    if not curves:
        return None
    limits, unit = results["limits"], unit_of(results)
    panels = (("hd", f"limit of pHD ({unit}); limit of pDC {limits['dc']:g}"),
              ("dc", f"limit of pDC; limit of pHD {limits['hd']:g} {unit}"))  # fmt: skip
    lines = (("caught", "failures caught", "#009e73", "-"), ("missed", "failures missed", "#d55e00", (0, (5, 1.5))),
             ("false_alarms", "false alarms", "#0072b2", (0, (2, 1.2))))  # fmt: skip
    figure, axes = style.new_figure(5.2, 2)
    for (axis,), (name, text) in zip(axes, panels, strict=True):
        for key, label, colour, dashes in lines:
            axis.plot(curves[name]["limits"], curves[name][key], color=colour, linestyle=dashes, label=label)
        axis.axvline(limits[name], color=style.INK, linewidth=0.9)
        axis.set(xlabel=text, ylabel=f"masks of {curves['n']}", ylim=(0, None))
        axis.margins(x=0)
        axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return style.save(figure, path)


@matplotlib.rc_context(style.STYLE)
def draw_damage(damage: Mapping[str, Mapping[str, Any]], path: Path) -> Path | None:
    """Damaged against untouched masks: area under the ROC curve, and detection at 2 % false alarms."""
    if not damage:
        return None
    names = list(damage)
    figure, (axes,) = style.new_figure(1.1 + 0.36 * len(names), 1, 2, sharey=True)
    panels = (("auc", "area under\nthe ROC curve"), ("detection_2pct", "detected at\n2 % false alarms"))
    series = (("", "suspicion, of the mask", "#0072b2", -0.2),
              ("_with_image", "or doubt, by its image", "#e69f00", 0.2))  # fmt: skip
    for axis, (measure, label) in zip(axes, panels, strict=True):
        for ending, _, colour, offset in series:
            known = [
                (place + offset, damage[name][measure + ending])
                for place, name in enumerate(names)
                if damage[name].get(measure + ending) is not None
            ]
            axis.barh([place for place, _ in known], [value for _, value in known], 0.36, color=colour)
            for place, value in known:
                axis.annotate(f"{value:.2f}", (value, place), (2, 0), textcoords="offset points", va="center",
                              fontsize=7.5)  # fmt: skip
        axis.set(xlim=(0, 1.12), xlabel=label)
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(names)), [damage_name(name) for name in names])
    axes[0].invert_yaxis()
    figure.legend(
        handles=[Patch(color=colour, label=label) for ending, label, colour, _ in series
                 if any("auc" + ending in cells for cells in damage.values())],
        loc="outside upper left", ncols=2,
    )  # fmt: skip
    return style.save(figure, path)


def damage_name(key: str) -> str:
    """The key of a damage in words, for people: structures in capitals, underscores as spaces."""
    return " ".join(word.upper() if word in ("lv", "rv", "myo") else word for word in key.split("_"))


def scope_of(results: Results, estimator: str) -> Mapping[str, Any] | None:
    """The rows on which an estimator is judged: all with truth, else those on which RCA was run."""
    for name in ("all", "rca"):
        scope = results["scopes"].get(name)
        if scope and estimator in scope["estimators"]:
            return scope
    return None


def _method_handles(methods: Sequence[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=method)
        for method in methods
        for colour, marker in [style.method_style(method, methods)]
    ]
