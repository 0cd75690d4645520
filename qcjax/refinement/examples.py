"""Which cases to picture before and after refinement: those that gained and lost most."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcjax.refinement.table import CaseRow, has_truth

LEAST_CHANGE = 0.01  # of Dice; less than that cannot be seen


@dataclass(frozen=True)
class Example:
    """A case at two stages."""

    kind: str  # "gain" or "loss"
    words: str
    before: CaseRow
    after: CaseRow


def refinement_examples(before: Sequence[CaseRow], after: Sequence[CaseRow]) -> list[Example]:
    """The case that gained most RV Dice and the one that lost most; by pDC where no case has truth.

    Args:
      before, after: rows of one segmenter and view at two stages.
    """
    later = {(row["subject"], row["phase"]): row for row in after}
    pairs = [(row, later[key]) for row in before if (key := (row["subject"], row["phase"])) in later]
    scored = [pair for pair in pairs if has_truth(pair[0]) and has_truth(pair[1])]
    column, name, pairs = ("dc_rv", "DC", scored) if scored else ("pdc_rv", "pDC", pairs)
    changes = [(pair[1][column] - pair[0][column], pair) for pair in pairs]
    changes = [change for change in changes if math.isfinite(change[0])]
    if not changes:
        return []
    examples = []
    best, worst = max(changes, key=lambda change: change[0]), min(changes, key=lambda change: change[0])
    for kind, words, (change, (first, second)) in (("gain", "gained", best), ("loss", "lost", worst)):
        if (change if kind == "gain" else -change) >= LEAST_CHANGE:
            values = f"{first[column]:.2f} before, {second[column]:.2f} after"
            text = f"the case that {words} most: RV {name} {values}."
            examples.append(Example(kind, text, first, second))
    return examples
