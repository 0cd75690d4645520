"""What a run worked on, part by part of the data set."""

from collections.abc import Sequence
from typing import Any

from qcjax.data.subject import PARTS, Subject


def cohort_table(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """A row per part of the data set: what was found."""

    def counts(values: list[str]) -> dict[str, int]:
        return {v: values.count(v) for v in sorted(set(values))}

    table = []
    for part in PARTS:
        members = [s for s in subjects if s.part == part]
        if not members:
            continue
        table.append(
            {
                "part": part,
                "subjects": len(members),
                "diseases": counts([s.disease for s in members]),
                "vendors": counts([s.vendor for s in members]),
                "views": counts([c.view for s in members for c in s.cases]),
                "with_truth": sum(any(c.label_path for c in s.cases) for s in members),
            }
        )
    return table
