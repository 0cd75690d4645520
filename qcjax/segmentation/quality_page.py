"""What a training's page says of predicted quality: predicted against real Dice, risk against coverage, groups."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from qcjax.labels import Structure
from qcjax.metrics.selective import risk_coverage
from qcjax.quality.check import Row, row_of
from qcjax.quality.model import COVERAGE, Estimate
from qcjax.report import style
from qcjax.report.table import Table
from qcjax.segmentation.judge import Record

Estimates = Sequence[Mapping[str, Estimate]]  # of cases that the prediction hasn't seen, by structure
HEADER = ("", "masks", "mean error of Dice", "bias", "Dice above its bound", "HD below its bound")


def quality_tables(
    records: Sequence[Record], estimates: Estimates, groups: Mapping[str, Sequence[str]]
) -> list[Table]:
    """Errors and coverage over all cases, then by group.

    Args:
      groups: title -> the group of each record; empty strings are none.
    """
    keys = list(records[0]["structures"])
    every = list(range(len(records)))
    tables = [_table("All held-out masks", [(key, _row(records, estimates, every, key)) for key in keys])]
    for title, of_record in groups.items():
        names = sorted({name for name in of_record if name})
        chosen = {name: [i for i in every if of_record[i] == name] for name in names}
        rows = [
            (f"{name}, {key}", _row(records, estimates, own, key))
            for name, own in chosen.items()
            for key in keys
        ]
        if len(names) > 1:
            tables.append(_table(f"By {title}", rows))
    return tables


def _row(records: Sequence[Record], estimates: Estimates, chosen: Sequence[int], key: str) -> Row:
    found = [records[i]["structures"][key] for i in chosen]
    dice, hd_mm = [v["dice"] for v in found], [v["hd_mm"] for v in found]
    subjects = [records[i]["subject"] for i in chosen]
    return row_of(key, False, [estimates[i][key] for i in chosen], dice, hd_mm, subjects)


def _table(caption: str, rows: Sequence[tuple[str, Row]]) -> Table:
    cells = [
        [name.upper() if name == r.structure else name, str(r.n), f"{r.error:.3f}", f"{r.bias:+.3f}",
         f"{r.covered:.0%}", f"{r.covered_hd:.0%}"]
        for name, r in rows
    ]  # fmt: skip
    note = f"Bounds are promised for {COVERAGE:.0%} of masks of new subjects."
    return Table(caption, list(HEADER), cells, note)


def draw_reliability(
    records: Sequence[Record], estimates: Estimates, structures: Sequence[Structure], path: Path
) -> Path:
    """Real against predicted Dice, a dot for each mask; crosses lie below their lower bound."""

    def draw(axis: Any, colour: Any, predicted: np.ndarray, low: np.ndarray, real: np.ndarray) -> None:
        held = real >= low
        axis.scatter(predicted[held], real[held], s=8, color=colour, edgecolors="none")
        axis.scatter(predicted[~held], real[~held], s=18, color=style.INK, marker="x", linewidths=1)
        least = max(0.0, min(predicted.min(initial=1), real.min(initial=1)) - 0.02)
        axis.plot([least, 1], [least, 1], color="0.4", linewidth=1)

    return _draw_each(records, estimates, structures, draw, ("predicted Dice", "real Dice"), path)


def draw_risk(
    records: Sequence[Record], estimates: Estimates, structures: Sequence[Structure], path: Path
) -> Path:
    """Mean 1 − Dice of the masks that are accepted first, by predicted Dice (line) and by the real one (dashes)."""

    def draw(axis: Any, colour: Any, predicted: np.ndarray, low: np.ndarray, real: np.ndarray) -> None:
        if len(real):
            for score, dash in ((predicted, "-"), (real, "--")):
                curve = risk_coverage(score, 1 - real)
                axis.plot(curve.coverage, curve.risk, color=colour, linestyle=dash)

    return _draw_each(
        records, estimates, structures, draw, ("share accepted", "mean 1 − Dice of these"), path
    )


@matplotlib.rc_context(style.STYLE)
def _draw_each(
    records: Sequence[Record],
    estimates: Estimates,
    structures: Sequence[Structure],
    draw: Callable[[Any, Any, np.ndarray, np.ndarray, np.ndarray], None],
    words: tuple[str, str],
    path: Path,
) -> Path:
    """A panel for each structure: axes, its colour, and predicted Dice, bound and real Dice of its masks."""
    figure, rows = style.new_figure(3.0, 1, len(structures))
    for axis, s in zip(rows[0], structures, strict=True):
        draw(axis, s.colour, *_dice(records, estimates, s.key))
        axis.set_title(s.key.upper())
        axis.set_xlabel(words[0])
    rows[0][0].set_ylabel(words[1])
    return style.save(figure, path, dpi=110)


def _dice(records: Sequence[Record], estimates: Estimates, key: str) -> tuple[np.ndarray, ...]:
    """Predicted Dice, its bound, and the real one of the masks that have all."""
    table = np.array(
        [
            [e[key].dice, e[key].dice_low, np.nan if (d := r["structures"][key]["dice"]) is None else d]
            for r, e in zip(records, estimates, strict=True)
        ]
    )
    return tuple(table[np.isfinite(table).all(1)].T)


def quality_findings(records: Sequence[Record], estimates: Estimates) -> list[str]:
    """A sentence for each structure."""
    sentences: list[str] = []
    every: Any = range(len(records))
    for key in records[0]["structures"]:
        row = _row(records, estimates, every, key)
        sentences.append(
            f"{key.upper()}: the Dice of a mask is predicted to within {row.error:.3f} on average; in "
            f"{row.covered:.0%} of masks it is at least its lower bound, which is promised for {COVERAGE:.0%}."
        )
    return sentences
