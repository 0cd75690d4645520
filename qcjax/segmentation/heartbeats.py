"""Volumes, ejection fraction and mass of held-out subjects beside the true ones: what a model's numbers are worth."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from qcjax.data.subject import PHASES
from qcjax.metrics.heartbeat import LEVEL, ventricle
from qcjax.report.table import Table, number
from qcjax.runtime.files import written_table
from qcjax.segmentation.judge import Record, bland_altman, rounded
from qcjax.segmentation.subjects import LEFT, RIGHT, WALL

FILE = "volumes.csv"  # in the folder of training, for it names subjects
MEASURES = {"edv_ml": "EDV (ml)", "esv_ml": "ESV (ml)", "ejection_fraction": "EF (%)", "mass_g": "mass (g)"}
LEAST = 3  # subjects of the other folds, of whose errors an interval is made
COLUMNS = ("subject", "structure", "fold", *(f"{kind}{m}" for m in MEASURES for kind in ("", "true_")))


def heartbeats(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row for each ventricle of each subject of whom both ED and ES are among the records: `COLUMNS`.

    NaN where a phase lacks the ventricle, or it has no wall; in the mask alone, or in the truth.
    """
    phases: dict[str, dict[str, Record]] = {}
    for record in records:
        if record["phase"] in PHASES:
            phases.setdefault(record["subject"], {})[record["phase"]] = record
    rows = []
    for subject, of in sorted(phases.items()):
        if set(of) != set(PHASES):
            continue
        ed, es = (of[phase]["structures"] for phase in PHASES)
        for key in (key for key in (*LEFT, *RIGHT) if key in ed):
            row: dict[str, Any] = {"subject": subject, "structure": key, "fold": of[PHASES[0]]["fold"]}
            for kind in ("", "true_"):
                wall = [ed[k][f"{kind}volume_ml"] for k in WALL if k in ed] if key in LEFT else []
                edv_ml, esv_ml = (at[key][f"{kind}volume_ml"] for at in (ed, es))
                found = ventricle(edv_ml, esv_ml, sum(wall) if wall else math.nan)
                values = found.edv_ml.value, found.esv_ml.value, found.ejection_fraction.value, found.mass_g
                row |= {f"{kind}{name}": v for name, v in zip(MEASURES, values, strict=True)}
            rows.append(row)
    return rows


def agreements(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Record]]:
    """Structure -> measure -> `agreement`; without measures that no subject has."""
    found: dict[str, dict[str, Record]] = {}
    for key in dict.fromkeys(row["structure"] for row in rows):
        own = [row for row in rows if row["structure"] == key]
        folds = [row["fold"] for row in own]
        for name in MEASURES:
            a, b = ([float(row[f"{kind}{name}"]) for row in own] for kind in ("", "true_"))
            if (cell := agreement(a, b, folds))["n"]:
                found.setdefault(key, {})[name] = cell
    return found


def agreement(found: Sequence[float], true: Sequence[float], folds: Sequence[int]) -> Record:
    """How two measurements of the same subjects agree.

    Args:
      found, true: of each subject, NaN where there is none.
      folds: of each subject.

    Returns:
      bias, sd, low, high: mean difference and limits of agreement (Bland & Altman, Lancet 1986); of `n` subjects.
      n_missing: subjects in whom one of both is missing.
      mean_absolute: mean absolute difference.
      correlation: Pearson's; None of fewer than three.
      covered: share of the subjects whose true value lies within the interval that the other folds' differences give,
        found − mean ± t sd √(1 + 1/n), meant for 0.95; None where they are fewer than three.
      half_width: its mean half width.
    """
    a, b, of = (np.asarray(x, float) for x in (found, true, folds))
    whole = np.isfinite(a) & np.isfinite(b)
    a, b, of = a[whole], b[whole], of[whole]
    nothing = {"n": 0} if not len(a) else bland_altman(a.tolist(), b.tolist())
    held, halves = [], []
    for fold in np.unique(of):
        own, d = of == fold, (a - b)[of != fold]
        if len(d) < LEAST:
            continue
        half = stats.t.ppf((1 + LEVEL) / 2, len(d) - 1) * d.std(ddof=1) * math.sqrt(1 + 1 / len(d))
        held += (np.abs((a - b)[own] - d.mean()) <= half).tolist()
        halves += [half] * int(own.sum())
    varies = len(a) >= LEAST and a.std() > 0 and b.std() > 0
    values = {
        "mean_absolute": np.abs(a - b).mean() if len(a) else math.nan,
        "correlation": np.corrcoef(a, b)[0, 1] if varies else math.nan,
        "covered": np.mean(held) if held else math.nan,
        "half_width": np.mean(halves) if halves else math.nan,
    }
    numbers = {k: v for k, v in nothing.items() if k != "n"} | values
    return dict(zip(numbers, rounded(numbers.values()), strict=True)) | {
        "n": len(a),
        "n_missing": int((~whole).sum()),
    }


def write_heartbeats(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `volumes.csv`; undefined is empty."""
    with written_table(path) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            cells = {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
            writer.writerow({k: round(v, 3) if isinstance(v, float) else v for k, v in cells.items()})


def heartbeat_table(measured: Mapping[str, Mapping[str, Record]]) -> Table | None:
    """What `agreements` found, as a table; None where there is nothing."""
    rows = [
        [
            key.upper(),
            MEASURES[name],
            str(cell["n"]),
            str(cell["n_missing"]),
            *(number(cell[k], 1) for k in ("bias", "low", "high", "mean_absolute")),
            number(cell["correlation"], 3),
            number(cell["covered"], 2),
            number(cell["half_width"], 1),
        ]
        for key, of in measured.items()
        for name, cell in of.items()
    ]
    header = ["structure", "measure", "subjects", "without", "bias", "lower limit", "upper limit"]
    header += ["mean absolute difference", "correlation", "covered", "±"]
    caption = (
        "Found less true value of subjects with ED and ES, and limits of agreement (Bland and Altman). Covered: how "
        "often the true value lies within the interval, ± so much on average, that other folds’ errors give for 95 %"
    )
    return Table(caption, header, rows) if rows else None


def heartbeat_findings(measured: Mapping[str, Mapping[str, Record]]) -> list[str]:
    """A sentence for the ejection fraction of each ventricle."""
    return [
        f"{key.upper()} ejection fraction of {cell['n']} subjects: {number(cell['bias'], 1)} percentage points off on "
        f"average, limits of agreement {number(cell['low'], 1)} to {number(cell['high'], 1)}."
        for key, of in measured.items()
        for name, cell in of.items()
        if name == "ejection_fraction"
    ]
