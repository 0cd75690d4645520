"""The viewer of a page: cases slice by slice, frame by frame, with masks over them, in a file that needs no network.

Hundreds of cases cost what their pictures weigh: a browser draws one slice at a time (`qcjax.report.tiles`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qcjax.labels import CARDIAC, Structure
from qcjax.report import style
from qcjax.report.distribution import Distribution


@dataclass(frozen=True)
class ViewedCase:
    """A case as the viewer shows it."""

    name: str
    verdict: str  # one word, such as erroneous; "" where nothing is wrong
    text: str  # what was found, in words
    values: Mapping[str, float | str | None]  # of the table's columns
    tiles: Mapping[str, Any] = field(default_factory=dict)  # of `pack_case`; empty where nothing can be shown
    unseen: str = ""  # why nothing can be shown
    measures: Sequence[Sequence[str]] = ()  # a row of text per structure
    curves: Mapping[str, Sequence[float | None]] = field(default_factory=dict)  # key -> ml in each frame


def viewer_data(
    cases: Sequence[ViewedCase],
    columns: Sequence[str],
    structures: Sequence[Structure] = CARDIAC,
    measures: Sequence[str] = (),
    cohort: Mapping[str, Distribution] | None = None,
    note: str = "",
) -> dict[str, Any]:
    """What the template `viewer.html.j2` needs: the cases in the order in which they are shown at first.

    Args:
      columns: of the table, keys of the cases' `values`; those that are numbers are sorted as such.
      measures: header of the cases' `measures`.
      cohort: column -> how it is distributed over all cases, of which these may be a part.
      note: below the table, such as where further cases are.
    """
    return {
        "columns": list(columns),
        "structures": [{"key": s.key, "name": s.name, "colour": s.colour} for s in structures],
        "differ": style.INCONSISTENT_COLOUR,
        "measures": list(measures),
        "cohort": [{"name": name, **found.to_json()} for name, found in (cohort or {}).items()],
        "note": note,
        "cases": [
            {
                "name": c.name,
                "verdict": c.verdict,
                "text": c.text,
                "values": [_plain(c.values.get(column)) for column in columns],
                "tiles": dict(c.tiles) or None,
                "unseen": c.unseen,
                "measures": [list(row) for row in c.measures],
                "curves": {key: [_plain(v) for v in curve] for key, curve in c.curves.items()},
            }
            for c in cases
        ],
    }


def _plain(value: float | str | None) -> float | str | None:
    """For JSON, which has no infinity and no NaN."""
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    if np.isnan(number):
        return None
    return number if np.isfinite(number) else ("∞" if number > 0 else "−∞")
