"""The autoencoder's learning curve: loss, and Dice of reconstructed ground-truth masks, the ceiling of pDC."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from qcjax.labels import CARDIAC
from qcjax.report import published, style

MAX_MARKED = 12  # of a curve of more points only the line is drawn
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
LINE_COLOURS = {
    "lv": "#d55e00",
    "myo": "#b8a000",
    "rv": "#0072b2",
}  # yellow, as on images, is too pale on white


@matplotlib.rc_context(style.STYLE)
def draw_reconstruction(
    results: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], path: Path
) -> Path | None:
    """Loss by epoch, and Dice of reconstructed validation masks beside the published ones.

    Args:
      results: `reconstruction` holds epochs with their Dice.
      lines: of `metrics.jsonl`; those of the stage "autoencoder" add losses, and Dice of further epochs.
    """
    epochs: dict[int, dict[str, Any]] = {}
    for cell in results.get("reconstruction") or ():
        epochs[cell["epoch"]] = {f"validation_dice_{s.key}": cell.get(s.key) for s in CARDIAC}
    for line in lines:
        if line.get("stage") == "autoencoder" and "epoch" in line:
            epochs.setdefault(line["epoch"], {}).update(line)
    if not epochs:
        return None

    def curve(column: str) -> list[tuple[int, float]]:
        return [(e, epochs[e][column]) for e in sorted(epochs) if epochs[e].get(column) is not None]

    losses = {key: curve(key) for key in ("train_loss", "validation_loss")}
    with_loss = any(losses.values())
    figure, axes = style.new_figure(5.6 if with_loss else 3.4, 1 + with_loss, sharex=True)
    dice = axes[-1][0]
    for structure in CARDIAC:
        key, colour = structure.key, LINE_COLOURS[structure.key]
        points = curve(f"validation_dice_{key}")
        marker = "o" if len(points) <= MAX_MARKED else ""
        dice.plot([e for e, _ in points], [v for _, v in points], marker=marker, color=colour, linewidth=1.4)
        theirs = published.MONITORING_RECONSTRUCTION
        dice.plot(
            list(theirs), [theirs[e][key] for e in theirs], "D", color="white", markeredgecolor=colour,
            markeredgewidth=1.5, markersize=7,
        )  # fmt: skip
    dice.set(xscale="log", ylim=(0, 1), xlabel="epoch", ylabel="DC of reconstructed\nground truth")
    dice.set_xticks(TICKS)
    dice.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    dice.xaxis.set_minor_formatter(NullFormatter())
    dice.set_xlim(1, max(500, *epochs) * 1.25)
    if with_loss:
        for key, width in (("train_loss", 0.8), ("validation_loss", 1.8)):
            points = losses[key]
            axes[0][0].plot([e for e, _ in points], [v for _, v in points], color=style.INK, linewidth=width)
        axes[0][0].set_ylabel("loss (thin: training)")
    handles = [Line2D([], [], color=LINE_COLOURS[s.key], label=s.key.upper()) for s in CARDIAC]
    handles.append(Line2D([], [], color=style.GREY, linewidth=1.4, label="this run"))
    handles.append(
        Line2D([], [], color="white", marker="D", markeredgecolor=style.GREY, linestyle="", label="published")
    )
    figure.legend(handles=handles, loc="outside upper left", ncols=5, columnspacing=1.2, handletextpad=0.5)
    return style.save(figure, path)
