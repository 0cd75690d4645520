"""The page `report.html` of a model: how well its networks did on subjects that they hadn't seen."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from qcjax.labels import Structure
from qcjax.report import style
from qcjax.report.cards import drawn_pictures, opening
from qcjax.report.pictures import draw_inconsistency
from qcjax.report.render import write_page
from qcjax.report.table import Table, number, with_interval
from qcjax.segmentation.dataset import TrainingSet
from qcjax.segmentation.heartbeats import heartbeat_findings, heartbeat_table
from qcjax.segmentation.judge import Example, Record, summarise
from qcjax.segmentation.quality_page import (
    Estimates,
    draw_reliability,
    draw_risk,
    quality_findings,
    quality_tables,
)

SECTIONS = (
    ("findings", "In brief"),
    ("groups", "By fold, phase, site and disease"),
    ("volumes", "Volumes"),
    ("quality", "Predicted quality"),
    ("worst", "The lowest Dice"),
    ("learning", "Learning"),
    ("run", "What ran"),
)
LOWEST = 15  # cases in the table of the worst


def write_training_page(
    path: Path,
    description: Mapping[str, Any],
    records: Sequence[Record],
    data: TrainingSet,
    work: Path,
    example: Example,
    estimates: Estimates | None = None,
) -> Path:
    """Draw the figures and write the page; its path.

    Args:
      estimates: of each record's quality, by what other subjects have taught; None where there are none.
    """
    measured = description["cross_validated"]
    with tempfile.TemporaryDirectory() as scratch:
        volumes = _draw_volumes(records, data.structures, Path(scratch) / "volumes.png")
        shown = _draw_example(example, data.structures, Path(scratch) / "example.png")
        agree = drawn_pictures((volumes, "Difference of volumes, found less true, against their mean."))
        learning = _draw_learning(work / "metrics.jsonl", data.structures, Path(scratch) / "learning.png")
        context = {
            "title": f"A model of {', '.join(key.upper() for key in data.labels)}",
            "lead": "Each network is judged on the subjects of its own fold, which it hadn't seen.",
            "sections": SECTIONS,
            "opening": opening(
                (drawn_pictures((shown, "")), f"A case of median Dice, {example.name}, and its truth."),
                (agree, "How far each structure's volume is from the true one, over all cases."),
            ),
            "findings": _findings(description) + (quality_findings(records, estimates) if estimates else []),
            "overall": _overall(measured),
            "groups": _group_tables(records, data),
            "agreement": _agreement(measured),
            "heartbeats": heartbeat_table(description["heartbeats"]),
            "volumes": agree,
            "worst": _worst(records, list(data.labels)),
            "learning": drawn_pictures(
                (
                    learning,
                    "Loss, and Dice on a few held-out cases after each epoch; nothing is chosen by it.",
                )
            ),
            **_quality(records, data, estimates, Path(scratch)),
            "facts": [("versions", ", ".join(f"{k} {v}" for k, v in description["versions"].items()))],
            "settings": json.dumps(description["trained"]["options"], indent=2),
        }
        return write_page(path, "training.html.j2", context)


def _quality(
    records: Sequence[Record], data: TrainingSet, estimates: Estimates | None, scratch: Path
) -> dict[str, Any]:
    """What the section on predicted quality shows."""
    if estimates is None:
        return {"quality": None}
    figures = (
        (
            draw_reliability(records, estimates, data.structures, scratch / "reliability.png"),
            "Real against predicted Dice; on the line they are the same, crosses lie below their lower bound.",
        ),
        (
            draw_risk(records, estimates, data.structures, scratch / "risk.png"),
            "How bad accepted masks are, those of the highest predicted Dice first; dashes: in the best order.",
        ),
    )
    subjects = {s.code: s for s in data.subjects}
    groups = {
        "disease": [subjects[r["subject"]].disease for r in records],
        "site": [subjects[r["subject"]].vendor for r in records],
        "phase": [r["phase"] for r in records],
    }
    return {"quality": drawn_pictures(*figures), "quality_tables": quality_tables(records, estimates, groups)}


def _findings(description: Mapping[str, Any]) -> list[str]:
    trained, found = description["trained"], description["cross_validated"]
    sentences = [
        f"{trained['subjects']} subjects, {trained['cases']} images, {trained['slices']} slices; "
        f"{description['networks']} networks, one for each fold."
    ]
    for key, cell in found.items():
        sentences.append(
            f"{key.upper()}: Dice {with_interval(cell['dice'], 'mean', 3)}, "
            f"HD {with_interval(cell['hd_mm'], 'mean', 1)} mm, undefined in {cell['hd_mm']['n_missing']}."
        )
    return sentences + heartbeat_findings(description["heartbeats"])


def _overall(measured: Mapping[str, Any]) -> Table:
    rows = [
        [
            key.upper(),
            with_interval(cell["dice"], "mean", 3),
            with_interval(cell["hd_mm"], "mean", 1),
            with_interval(cell["hd95_mm"], "mean", 1),
            str(cell["hd_mm"]["n_missing"]),
            with_interval(cell["pdc"], "mean", 3),
        ]
        for key, cell in measured.items()
    ]
    header = ["structure", "Dice", "HD (mm)", "HD95 (mm)", "HD undefined", "pDC"]
    return Table("Means over cases with 95 % intervals, by bootstrap over subjects", header, rows)


def _group_tables(records: Sequence[Record], data: TrainingSet) -> list[Table]:
    subjects = {s.code: s for s in data.subjects}
    of: dict[str, Callable[[Record], str]] = {
        "fold": lambda r: f"fold {r['fold']}",
        "phase": lambda r: r["phase"],
        "site": lambda r: subjects[r["subject"]].vendor,
        "disease": lambda r: subjects[r["subject"]].disease,
    }
    tables = []
    for title, group in of.items():
        names = sorted({group(r) for r in records} - {""})
        if not names:
            continue
        rows = []
        for name in names:
            own = [r for r in records if group(r) == name]
            found = summarise(own, list(data.labels))
            cells = [name, str(len(own))]
            for cell in found.values():
                cells += [with_interval(cell["dice"], "mean", 3), number(cell["hd_mm"]["mean"], 1)]
            rows.append(cells)
        header = [title, "cases", *(f"{m} {k.upper()}" for k in data.labels for m in ("Dice", "HD (mm)"))]
        tables.append(Table(f"By {title}", header, rows))
    return tables


def _agreement(measured: Mapping[str, Any]) -> Table:
    rows = [
        [key.upper(), *(number(cell["volume_ml"][k], 1) for k in ("bias", "sd", "low", "high"))]
        for key, cell in measured.items()
    ]
    header = ["structure", "bias (ml)", "sd (ml)", "lower limit (ml)", "upper limit (ml)"]
    return Table("Found less true volume, and limits of agreement (Bland and Altman)", header, rows)


def _worst(records: Sequence[Record], keys: Sequence[str]) -> Table:
    def least(record: Record) -> float:
        return min(float(record["structures"][k]["dice"] or 0) for k in keys)

    rows = []
    for record in sorted(records, key=least)[:LOWEST]:
        cells = [record["case"], record["verdict"] or "–", number(record["suspicion"], 2)]
        for key in keys:
            found = record["structures"][key]
            cells += [number(found["dice"], 3), number(found["hd_mm"], 1), number(found["pdc"], 2)]
        rows.append(cells)
    header = [
        "case",
        "flag",
        "suspicion",
        *(f"{m} {k.upper()}" for k in keys for m in ("Dice", "HD (mm)", "pDC")),
    ]
    return Table("Cases of the lowest Dice of any structure, and what the monitor says of them", header, rows)


def _draw_example(example: Example, structures: Sequence[Structure], path: Path) -> Path:
    slices = np.flatnonzero((example.truth > 0).any((0, 1)))
    middle = int(slices[len(slices) // 2]) if len(slices) else example.truth.shape[2] // 2
    arrays = (example.image, example.mask, example.reconstruction)
    x_mm, y_mm, _ = example.spacing_mm
    return draw_inconsistency(*arrays, (x_mm, y_mm), middle, path, structures, 110, example.truth)


@matplotlib.rc_context(style.STYLE)
def _draw_volumes(records: Sequence[Record], structures: Sequence[Structure], path: Path) -> Path:
    figure, rows = style.new_figure(3.0, 1, len(structures))
    for axis, structure in zip(rows[0], structures, strict=True):
        own = [record["structures"][structure.key] for record in records]
        found = np.array([v["volume_ml"] for v in own], float)
        true = np.array([v["true_volume_ml"] for v in own], float)
        axis.scatter((found + true) / 2, found - true, s=8, color=structure.colour, edgecolors="none")
        difference = found - true
        for level, dash in ((0, "-"), (1.96, "--"), (-1.96, "--")):
            axis.axhline(
                difference.mean() + level * difference.std(ddof=1), color="0.4", linestyle=dash, linewidth=1
            )
        axis.set_title(structure.key.upper())
        axis.set_xlabel("mean (ml)")
    rows[0][0].set_ylabel("found − true (ml)")
    return style.save(figure, path, dpi=110)


@matplotlib.rc_context(style.STYLE)
def _draw_learning(journal: Path, structures: Sequence[Structure], path: Path) -> Path | None:
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    stages = sorted({line["stage"] for line in lines})
    if not stages:
        return None
    figure, rows = style.new_figure(3.0, 1, 2)
    for stage in stages:
        own = [line for line in lines if line["stage"] == stage]
        epochs = [line["epoch"] for line in own]
        rows[0][0].plot(epochs, [line["train_loss"] for line in own], label=stage.replace("_", " "))
        mean = [np.mean([line[f"validation_dice_{s.key}"] for s in structures]) for line in own]
        rows[0][1].plot(epochs, mean)
    rows[0][0].set_title("loss")
    rows[0][1].set_title("mean Dice, some held-out cases")
    for axis in rows[0]:
        axis.set_xlabel("epoch")
    rows[0][0].legend()
    return style.save(figure, path, dpi=110)
