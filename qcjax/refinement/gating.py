"""The gated arms: per case the mask of the refined stage, or of the one without quality control."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from qcjax.config import Mnms2Config
from qcjax.qc.gate import gate, oracle_gate, random_gate
from qcjax.refinement.export import copied_row
from qcjax.refinement.table import GATED, STRUCTURES, CaseRow, case_name
from qcjax.runtime import hosts
from qcjax.train.arm import Arm


def gate_source(stages: Sequence[str]) -> str:
    """The stage that a gate keeps to: the baseline, or without one the single best model."""
    return "baseline" if "baseline" in stages else "segmenter"


def gated_arms(
    once: Callable[..., dict[str, Any]], arm: Arm, rows: Sequence[CaseRow], config: Mnms2Config
) -> tuple[list[CaseRow], dict[str, float]]:
    """The rows of every gated stage of an arm, and the seconds that each took, by its title.

    Args:
      once: (name, what makes a record) -> the record, read where it is done already (`ExperimentRun.once`).
      rows: of all stages so far.
    """
    of = {"segmenter": arm.networks.name, "view": arm.data.view}
    own = [row for row in rows if all(row[k] == v for k, v in of.items())]

    def made(stage: str) -> dict[str, Any]:
        return {"rows": hosts.lead(lambda: gated_rows(arm, stage, own, config))}

    found: list[CaseRow] = []
    seconds = {}
    for stage in GATED:
        title = " ".join(str(v) for v in arm.identity(stage).values())
        record = once(title.replace(" ", "-"), partial(made, stage))
        found += record["rows"]
        seconds[title] = record["seconds"]
    return found, seconds


def gated_rows(arm: Arm, stage: str, rows: Sequence[CaseRow], config: Mnms2Config) -> list[CaseRow]:
    """The rows of a gated stage, with copies of the masks that it takes.

    Args:
      stage: gated (by prediction), random_gate (as many, by chance), oracle_gate (by the RV's true distance).
      rows: of the segmenter and view, all stages before.
    """
    by_stage: dict[str, dict[str, CaseRow]] = {}
    for row in rows:
        by_stage.setdefault(row["stage"], {})[case_name(row)] = row
    source, refined = by_stage[gate_source(list(by_stage))], by_stage["refined"]
    names = list(source)
    pairs = [(source[name], refined[name]) for name in names]
    taken = accepted(stage, pairs, config)
    chosen = [b if yes else a for (a, b), yes in zip(pairs, taken.tolist(), strict=True)]
    return [copied_row(row, arm, stage) for row in chosen]


def accepted(
    stage: str, pairs: Sequence[tuple[CaseRow, CaseRow]], config: Mnms2Config
) -> Bool[np.ndarray, " n"]:
    """Whether a gated stage takes the refined mask, for n pairs of rows without QC and refined."""
    if stage == "oracle_gate":
        before, after = (np.array([pair[i]["hd_rv_mm"] for pair in pairs], float) for i in (0, 1))
        return oracle_gate(before, after, smaller_is_better=True)
    options = config.refinement
    assert options.gate is not None
    column = "predicted_dice_{}" if options.gate_by == "quality" else "pdc_{}"
    found = gate(_values(pairs, 0, column), _values(pairs, 1, column), options.gate).accepted
    return random_gate(found, config.seed) if stage == "random_gate" else found


def _values(pairs: Sequence[tuple[CaseRow, CaseRow]], place: int, column: str) -> Float[np.ndarray, "n 3"]:
    rows = [pair[place] for pair in pairs]
    return np.array([[row.get(column.format(k), np.nan) for k in STRUCTURES] for row in rows], float)
