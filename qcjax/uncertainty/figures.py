"""The charts of the uncertainty report: slice positions, differences, reliability, failures, learning curves.

Each function draws one PNG and returns its path, or None where the run has nothing to draw.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from qcjax.report import style
from qcjax.report.columns import Row
from qcjax.uncertainty.qc_tables import FAILURE_NAMES
from qcjax.uncertainty.table import POSITIONS, has_truth, select
from qcjax.uncertainty.tables import COMPARISON_WORDS, SCORED, Tables, structure_name

COMPARISON_COLOURS = {
    "proposed - baseline": ("#0072b2", "D"),
    "control - baseline": ("#e69f00", "s"),
    "proposed - control": ("#009e73", "o"),
}
MARKED_EPOCHS = 12  # of a learning curve; of more only the line is drawn


@matplotlib.rc_context(style.STYLE)
def draw_positions(tables: Tables, path: Path) -> Path | None:
    """Dice and DiceWithinSamples by slice position (uncertainty paper, Fig. 2), with the means' intervals."""
    found = tables["measures"].get("deterministic", {})
    positions = [position for position in POSITIONS[1:] if position in found]
    keys = [key for key in SCORED if key in tables["structures"]]
    if not positions or not keys:
        return None
    figure, axes = style.new_figure(4.7, 2, len(keys), sharex=True, sharey="row")
    for line, measure in zip(axes, ("dc", "dice_within_samples"), strict=True):
        for axis, key in zip(line, keys, strict=True):
            for place, arm in enumerate(tables["arms"]):
                offset = 0.22 * (place - (len(tables["arms"]) - 1) / 2)
                cells = [
                    (x + offset, found[position].get(arm, {}).get(key, {}).get(measure))
                    for x, position in enumerate(positions)
                ]
                _points(axis, [(x, cell) for x, cell in cells if cell and cell["mean"] is not None], arm)
            axis.set_xticks(range(len(positions)), positions)
            axis.set_xlim(-0.5, len(positions) - 0.5)
            axis.grid(axis="x", visible=False)
            if measure == "dc":
                axis.set_title(structure_name(key))
        line[0].set_ylim(top=1.01)  # shared by the line, whatever its panels hold below
        line[0].set_ylabel("Dice (DSC)" if measure == "dc" else "certainty\n(DiceWithinSamples)")
    figure.legend(handles=_arm_handles(tables["arms"]), loc="outside upper left", ncols=3)
    return style.save(figure, path)


def _points(axis: Axes, points: Sequence[tuple[float, Mapping[str, Any]]], arm: str) -> None:
    colour, marker = style.ARM_COLOURS[arm], style.ARM_MARKERS[arm]
    axis.plot([x for x, _ in points], [c["mean"] for _, c in points], color=colour, linewidth=0.9, alpha=0.6)
    for x, cell in points:
        if cell["low"] is not None:
            axis.vlines(x, cell["low"], cell["high"], color=colour, linewidth=1.4)
        axis.plot(
            x, cell["mean"], marker, color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.5
        )


@matplotlib.rc_context(style.STYLE)
def draw_differences(tables: Tables, path: Path) -> Path | None:
    """Paired differences in Dice with their intervals: per structure, in the whole heart and by slice position."""
    comparisons = list(tables["differences"])
    keys = [key for key in SCORED if key in tables["structures"]]
    positions = [p for p in tables["positions"] if any(p in c for c in tables["differences"].values())]
    if not positions or not keys:
        return None
    figure, axes = style.new_figure(0.9 + 0.5 * len(positions), 1, len(keys), sharey=True)
    for axis, key in zip(axes[0], keys, strict=True):
        axis.axvline(0, color=style.INK, linewidth=0.9)
        for place, comparison in enumerate(comparisons):
            colour, marker = COMPARISON_COLOURS[comparison]
            for y, position in enumerate(positions):
                cell = tables["differences"][comparison].get(position, {}).get(key, {}).get("dc")
                if not cell or cell["mean"] is None:
                    continue
                height = y + 0.24 * (place - (len(comparisons) - 1) / 2)
                if cell["low"] is not None:
                    axis.hlines(height, 100 * cell["low"], 100 * cell["high"], color=colour, linewidth=1.5)
                axis.plot(100 * cell["mean"], height, marker, color=colour, markersize=4.5)
        axis.set_title(structure_name(key))
        axis.set_yticks(range(len(positions)), positions)
        axis.set_ylim(len(positions) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_xlabel("points of DSC")
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, label=COMPARISON_WORDS[name])
        for name in comparisons
        for colour, marker in [COMPARISON_COLOURS[name]]
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.0, handletextpad=0.4)
    return style.save(figure, path)


@matplotlib.rc_context(style.STYLE)
def draw_reliability(
    reliability: Mapping[str, Mapping[str, Mapping[str, Sequence[Any]]]], path: Path
) -> Path | None:
    """Observed frequency against predicted probability per structure, and how many voxels each bin holds.

    Args:
      reliability: arm -> structure -> ``confidence``, ``frequency`` (means of each bin, None where it is empty)
        and ``count`` (voxels).
    """
    arms = [arm for arm in style.ARM_COLOURS if arm in reliability]
    keys = [key for key in SCORED if any(key in reliability[arm] for arm in arms)]
    if not keys:
        return None
    figure, axes = style.new_figure(
        3.5, 2, len(keys), sharex=True, sharey="row", gridspec_kw={"height_ratios": [2.4, 1]}
    )
    for column, key in enumerate(keys):
        top, below = axes[0][column], axes[1][column]
        top.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.9)
        for arm in arms:
            cells = reliability[arm].get(key) or {"confidence": [], "frequency": [], "count": []}
            known = [
                (c, f, n)
                for c, f, n in zip(cells["confidence"], cells["frequency"], cells["count"], strict=True)
                if n and c is not None and f is not None and math.isfinite(c) and math.isfinite(f)
            ]
            colour, marker = style.ARM_COLOURS[arm], style.ARM_MARKERS[arm]
            confidence = [c for c, _, _ in known]
            top.plot(
                confidence,
                [f for _, f, _ in known],
                color=colour,
                marker=marker,
                markersize=3.2,
                linewidth=1.3,
            )
            below.plot(confidence, [n for *_, n in known], color=colour, linewidth=1.1)
        top.set(title=structure_name(key), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        top.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        below.set_yscale("log")
        below.yaxis.set_major_locator(LogLocator(numticks=4))
        below.yaxis.set_minor_formatter(NullFormatter())
    axes[0][0].set_ylabel("observed frequency")
    axes[1][0].set_ylabel("voxels")
    axes[1][(len(keys) - 1) // 2].set_xlabel("predicted probability")
    figure.legend(handles=_arm_handles(arms), loc="outside upper left", ncols=3)
    return style.save(figure, path)


@matplotlib.rc_context(style.STYLE)
def draw_failures(tables: Tables, path: Path) -> Path | None:
    """Spearman's correlation of every measure with the real Dice, per structure and arm, with its interval."""
    failures = {
        key: arms
        for key, arms in tables["failures"].items()
        if key in SCORED and any(c["spearman"]["r"] is not None for f in arms.values() for c in f.values())
    }
    names = [n for n in FAILURE_NAMES if any(n in c for arms in failures.values() for c in arms.values())]
    if not names:
        return None
    figure, axes = style.new_figure(0.95 + 0.36 * len(names), 1, len(failures), sharey=True, sharex=True)
    for axis, (key, arms) in zip(axes[0], failures.items(), strict=True):
        axis.axvline(0, color=style.INK, linewidth=0.9)
        for place, (arm, found) in enumerate(arms.items()):
            for y, name in enumerate(names):
                cell = (found.get(name) or {}).get("spearman") or {}
                if cell.get("r") is None:
                    continue
                height = y + 0.24 * (place - (len(arms) - 1) / 2)
                if cell["low"] is not None:
                    axis.hlines(
                        height, cell["low"], cell["high"], color=style.ARM_COLOURS[arm], linewidth=1.3
                    )
                axis.plot(
                    cell["r"], height, style.ARM_MARKERS[arm], color=style.ARM_COLOURS[arm], markersize=4
                )
        axis.set_title(structure_name(key))
        axis.set_yticks(range(len(names)), [FAILURE_NAMES[name] for name in names])
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set(xlim=(-1.04, 1.04), xticks=(-1, 0, 1))
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("$r_s$ with DSC")
    figure.legend(handles=_arm_handles(tables["arms"]), loc="outside upper left", ncols=3)
    return style.save(figure, path)


@matplotlib.rc_context(style.STYLE)
def draw_certainty(rows: Sequence[Row], tables: Tables, path: Path) -> Path | None:
    """DiceWithinSamples against the real Dice, a point for each case and arm."""
    known = [row for row in select(rows, prediction="deterministic", position="all") if has_truth(row)]
    known = [row for row in known if math.isfinite(row["dice_within_samples"])]
    keys = [key for key in SCORED if any(row["structure"] == key for row in known)]
    if not keys:
        return None
    figure, axes = style.new_figure(2.3, 1, len(keys))
    for axis, key in zip(axes[0], keys, strict=True):
        for arm in tables["arms"]:
            own = select(known, arm=arm, structure=key)
            axis.scatter(
                [row["dice_within_samples"] for row in own],
                [row["dc"] for row in own],
                s=14,
                marker=style.ARM_MARKERS[arm],
                color=style.ARM_COLOURS[arm],
                alpha=0.65,
                linewidths=0,
                clip_on=False,
            )
        axis.set_title(structure_name(key))
        axis.set_xlabel("certainty")
        axis.xaxis.set_major_locator(MaxNLocator(3))
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.set_box_aspect(1)
    axes[0][0].set_ylabel("real Dice (DSC)")
    figure.legend(handles=_arm_handles(tables["arms"]), loc="outside upper left", ncols=3)
    return style.save(figure, path)


@matplotlib.rc_context(style.STYLE)
def draw_training(lines: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Learning curves of every arm: the mean over the folds, and each fold as a thin line."""
    curves: dict[str, dict[Any, dict[int, Mapping[str, Any]]]] = {}
    for line in lines:
        if line.get("stage") == "segmenter" and line.get("arm") in style.ARM_COLOURS and "epoch" in line:
            curves.setdefault(line["arm"], {}).setdefault(line.get("fold"), {})[line["epoch"]] = line
    every = [line for folds in curves.values() for epochs in folds.values() for line in epochs.values()]
    quantities = [
        (column, label)
        for column, label in (
            ("train_loss", "training loss"),
            ("validation_loss", "validation loss"),
            *((f"validation_dice_{key}", f"validation Dice,\n{structure_name(key)}") for key in SCORED),
        )
        if any(_finite(line.get(column)) for line in every)
    ]
    if not quantities:
        return None
    n_rows = -(-len(quantities) // 2)
    figure, axes = style.new_figure(0.5 + 1.9 * n_rows, n_rows, 2, sharex=True)
    panels = [axis for row in axes for axis in row]
    for axis, (column, label) in zip(panels, quantities, strict=False):
        for arm, folds in curves.items():
            colour = style.ARM_COLOURS[arm]
            of_epoch: dict[int, list[float]] = {}
            for epochs in folds.values():
                points = [(e, epochs[e][column]) for e in sorted(epochs) if _finite(epochs[e].get(column))]
                if len(folds) > 1:
                    axis.plot(*_xy(points), color=colour, linewidth=0.6, alpha=0.35)
                for epoch, value in points:
                    of_epoch.setdefault(epoch, []).append(value)
            whole = [(e, sum(v) / len(v)) for e, v in sorted(of_epoch.items()) if len(v) == len(folds)]
            marker = style.ARM_MARKERS[arm] if len(whole) <= MARKED_EPOCHS else ""
            axis.plot(*_xy(whole), color=colour, marker=marker, markersize=3.5, linewidth=1.7)
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axis in panels[len(quantities) :]:
        axis.axis("off")
    for axis in panels[max(0, len(quantities) - 2) : len(quantities)]:
        axis.set_xlabel("epoch")
        axis.tick_params(labelbottom=True)
    arms = [arm for arm in style.ARM_COLOURS if arm in curves]
    figure.legend(handles=_arm_handles(arms), loc="outside upper left", ncols=3)
    return style.save(figure, path)


def _xy(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _arm_handles(arms: Sequence[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=style.ARM_COLOURS[arm], marker=style.ARM_MARKERS[arm], markersize=5, label=arm)
        for arm in arms
    ]
