"""One look for every figure: size for a phone's width, colours that colour-blind readers can tell apart."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from qcjax.labels import CARDIAC, Structure
from qcjax.runtime.files import write_whole

WIDTH_IN = 5.0  # at a phone's 390 pixels its 10 pt letters are 11 pixels high
INK = "#222222"
GREY = "#8c8c8c"
OOD_COLOUR = "#e69f00"
INCONSISTENT_COLOUR = "#ff3bd4"
STAGE_COLOURS = {"segmenter": "#8c8c8c", "selection": "#56b4e9", "control": "#e69f00", "refined": "#009e73"}
ARM_COLOURS = {"baseline": "#6e6e6e", "control": "#e69f00", "proposed": "#0072b2"}
ARM_MARKERS = {"baseline": "o", "control": "s", "proposed": "D"}
SEGMENTER_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00")
SEGMENTER_MARKERS = ("o", "s", "D", "^")
METHOD_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#222222")  # Okabe & Ito
METHOD_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")  # one more than colours: 56 methods look different
PART_HATCHES = {"validation": "////", "test": ""}
STAGE_TICKS = {
    "segmenter": "M",
    "mean": "mean",
    "mirrored": "mirr.",
    "largest": "piece",
    "baseline": "base",
    "selection": "{M}\n+QC",
    "control": "control",
    "refined": "full",
    "oracle_gate": "oracle",
    "random_gate": "chance",
    "gated": "gated",
}
VIEW_NAMES = {"SA": "short axis", "LA": "long axis", "AVG": "average"}
MEASURE_NAMES = {"dc": "Dice (DC)", "hd": "Hausdorff distance (mm)"}

STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 1.2,
}


def new_figure(
    height_in: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of the common width and its axes, row by row."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options).tolist()


def save(figure: Figure, path: Path, dpi: int = 200) -> Path:
    """Write a figure as PNG, making its folder; without the date and version that would change its bytes."""
    packed = io.BytesIO()
    figure.savefig(packed, dpi=dpi, format="png", metadata={"Software": None})
    write_whole(path, packed.getvalue())
    return path


def segmenter_style(segmenter: str, segmenters: Sequence[str]) -> tuple[str, str]:
    """Colour and marker of a segmenter, by its place among those of the run."""
    place = list(segmenters).index(segmenter)
    return SEGMENTER_COLOURS[place % len(SEGMENTER_COLOURS)], SEGMENTER_MARKERS[
        place % len(SEGMENTER_MARKERS)
    ]


def method_style(method: str, methods: Sequence[str]) -> tuple[str, str]:
    """Colour and marker of a segmentation method, by its place among those that are compared."""
    place = list(methods).index(method)
    return METHOD_COLOURS[place % len(METHOD_COLOURS)], METHOD_MARKERS[place % len(METHOD_MARKERS)]


def structure_handles(structures: Sequence[Structure] = CARDIAC) -> list[Patch]:
    """Legend entries of the structures in their colours."""
    return [Patch(facecolor=structure.colour, label=structure.key.upper()) for structure in structures]
