"""`benchmark.json`, the table as text and Markdown, and a bar chart of the ratios."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.machine import in_words
from benchmarks.timing import OURS, THEIRS, Measured, Row
from qcjax.report import style

BETTER, WORSE = style.SEGMENTER_COLOURS[0], style.SEGMENTER_COLOURS[3]
TICKS = (0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 100, 300, 1000)
HEADER = ("", "what", OURS, THEIRS, "ratio", "goal", "compile")
CAPTION = (
    "Median (lowest–highest) of {repeats}, taking turns after a warm-up. Ratio: PyTorch over qcjax; above 1, "
    "qcjax is faster, or needs less memory. Compile: qcjax's, once, before the first step, not in the times. Peak "
    "memory: of a process each, once."
)


def write(folder: Path, results: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """All files; the chart only where there are ratios."""
    text = json.dumps(dict(results) | {"rows": [as_json(row) for row in rows]}, indent=2)
    (folder / "benchmark.json").write_text(text + "\n", encoding="utf-8")
    (folder / "benchmark.md").write_text(markdown(rows, results), encoding="utf-8")
    (folder / "benchmark.txt").write_text(plain(rows, results), encoding="utf-8")
    if any(row.ratio is not None for row in rows):
        draw(folder / "benchmark.png", rows, in_words(results["machine"]))


def as_json(row: Row) -> dict[str, Any]:
    """Everything that was measured."""
    measured = {
        name: {"median": m.median, "low": min(m.values), "high": max(m.values), "values": list(m.values)}
        | ({"compile_s": m.compile_s} if m.compile_s is not None else {})
        for name, m in row.measured.items()
    }
    return {
        "row": row.name, "work": row.work, "unit": row.unit, "measured": measured,
        "ratio": row.ratio, "goal": row.goal, "note": row.note,
    } | dict(row.extra)  # fmt: skip


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Cells, the header first. Columns that would be empty are left out."""
    lines: list[tuple[str, ...]] = [HEADER]
    for row in rows:
        ours, theirs = row.measured.get(OURS), row.measured.get(THEIRS)
        lines.append(
            (
                row.name,
                row.work,
                _value(ours, row.unit),
                _value(theirs, row.unit),
                "" if row.ratio is None else f"{row.ratio:.2f}",
                "" if row.goal is None or row.ratio is None else f"{row.goal:g}",
                "" if ours is None or ours.compile_s is None else f"{ours.compile_s:.1f} s",
            )
        )
    used = [i for i in range(len(HEADER)) if i == 0 or any(line[i] for line in lines[1:])]
    return [tuple(line[i] for i in used) for line in lines]


def variants(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Other precisions and compilers, beside PyTorch's eager float32; empty where there are none."""
    lines: list[tuple[str, ...]] = [("", "side", "time", f"{THEIRS} float32 over it", "compile")]
    for row in rows:
        reference = row.measured.get(THEIRS)
        for name, measured in row.measured.items():
            if name not in (OURS, THEIRS):
                ratio = f"{reference.median / measured.median:.2f}" if reference else ""
                compiled = f"{measured.compile_s:.1f} s" if measured.compile_s is not None else ""
                lines.append((row.name, name, _value(measured, row.unit), ratio, compiled))
    return lines if len(lines) > 1 else []


def shares(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each row's share of the measured matrix-multiply ceiling."""
    lines: list[tuple[str, ...]] = [("", "side", "share of the matrix-multiply ceiling")]
    lines += [(x["row"], x["side"], f"{x['share']:.0%}") for x in results.get("shares", ())]
    return lines if len(lines) > 1 else []


def markdown(rows: Sequence[Row], results: Mapping[str, Any]) -> str:
    """As for a README."""
    parts = [_markdown(table(rows)), CAPTION.format(repeats=results["repeats"]), *_remarks(rows, results)]
    parts += [_markdown(lines) for lines in (variants(rows), shares(results)) if lines]
    return "\n\n".join(parts) + "\n"


def plain(rows: Sequence[Row], results: Mapping[str, Any]) -> str:
    """As for a terminal."""
    parts = [_aligned(table(rows)), CAPTION.format(repeats=results["repeats"]), *_remarks(rows, results)]
    parts += [_aligned(lines) for lines in (variants(rows), shares(results)) if lines]
    return "\n\n".join(parts) + "\n"


def draw(path: Path, rows: Sequence[Row], caption: str) -> None:
    """Bars of the ratios, on a logarithmic axis around 1."""
    compared = [(row.name, row.ratio) for row in rows if row.ratio is not None][::-1]
    names, ratios = [name for name, _ in compared], [ratio for _, ratio in compared]
    low, high = min(0.5, *ratios) / 3, max(2.0, *ratios) * 2  # room for the numbers beside the bars
    with matplotlib.rc_context(style.STYLE):
        figure, [[axes]] = style.new_figure(1.4 + 0.3 * len(compared))
        axes.barh(
            names,
            [ratio - 1 for ratio in ratios],
            left=1,
            color=[BETTER if ratio >= 1 else WORSE for ratio in ratios],
        )
        for place, ratio in enumerate(ratios):
            side, shift = ("left", 3) if ratio >= 1 else ("right", -3)
            axes.annotate(
                f"{ratio:.2g}", (ratio, place), (shift, 0), textcoords="offset points", ha=side, va="center"
            )
        axes.axvline(1, color=style.INK, linewidth=1)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_xticks([t for t in TICKS if low <= t <= high], minor=False)
        axes.set_xticks([], minor=True)
        axes.xaxis.set_major_formatter("{x:g}")
        about = f"{THEIRS} over {OURS}: right of 1, {OURS} is faster or needs less memory. {caption}"
        figure.supxlabel("\n".join(textwrap.wrap(about, 90)), fontsize=6, color=style.GREY)
        style.save(figure, path)


def _remarks(rows: Sequence[Row], results: Mapping[str, Any]) -> list[str]:
    machine = results["machine"]
    remarks = [in_words(machine) + "."]
    if results["quick"]:
        remarks.append("Quick: tiny inputs. It shows that everything works; its figures mean nothing.")
    remarks += [f"{row.name}: {row.note}" for row in rows if row.note]
    remarks += _goals(rows)
    if results.get("hint"):
        remarks.append(results["hint"])
    return remarks


def _goals(rows: Sequence[Row]) -> list[str]:
    """How many ratios are what they should be, and which aren't; nothing where there is no ratio with a goal."""
    aimed = [
        (row.name, row.ratio, row.goal) for row in rows if row.goal is not None and row.ratio is not None
    ]
    missed = [f"{name} ({ratio:.2f} of {goal:g})" for name, ratio, goal in aimed if ratio < goal]
    if not aimed:
        return []
    rest = f"; not: {'; '.join(missed)}" if missed else ""
    return [f"Goals: {len(aimed) - len(missed)} of {len(aimed)} ratios reach theirs{rest}."]


def _value(measured: Measured | None, unit: str) -> str:
    if measured is None:
        return ""
    if unit != "s":
        return f"{measured.median:.0f} {unit}"
    scale, unit = (1000, "ms") if measured.median < 0.1 else (1, "s")
    middle, low, high = (
        f"{scale * v:.3g}" for v in (measured.median, min(measured.values), max(measured.values))
    )
    return f"{middle} {unit} ({low}–{high})"


def _markdown(lines: Sequence[tuple[str, ...]]) -> str:
    rule = ("---",) * len(lines[0])
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )
