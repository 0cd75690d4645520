"""Which candidates were chosen and how often, and which cases were out of distribution (OoD) after each epoch k."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from qcjax.data.subject import VIEWS
from qcjax.refinement.table import STAGES, CaseRow
from qcjax.refinement.tables import STAGE_WORDS
from qcjax.report.table import NBSP, Table, number
from qcjax.train.stage import LOSS

MEANS = "means of several"


def count_chosen(candidates: Sequence[Mapping[str, Any]], rows: Sequence[CaseRow]) -> list[dict[str, Any]]:
    """A stage's candidates with `cases`, for how many each was chosen alone; last, those with the mean of two.

    Args:
      candidates: `name` and `validation_loss` of each, best first.
      rows: of the stage, whose `candidate` is a name, or that of two.
    """
    counts = Counter(row["candidate"] for row in rows)
    alone = [dict(candidate) | {"cases": counts.pop(candidate["name"], 0)} for candidate in candidates]
    return [*alone, {"name": MEANS, LOSS: None, "cases": counts.total()}]


def candidates_table(results: Mapping[str, Any]) -> Table | None:
    """The candidates of every segmenter, view and stage, and for how many cases each was chosen."""
    rows = []
    for segmenter, views in (results.get("candidates") or {}).items():
        for view in (v for v in VIEWS if v in views):
            for stage in (s for s in STAGES if s in views[view]):
                found = views[view][stage]
                total = sum(c["cases"] for c in found)
                for c in found:
                    if c["name"] != MEANS or len(found) > 2:  # of one candidate there are no means
                        share = f"{c['cases']} of {total}".replace(" ", NBSP)
                        where = f"{segmenter}, {view}, {STAGE_WORDS[stage]}"
                        rows.append([where, c["name"], number(c[LOSS], 4), share])
    header = ["segmenter, view, stage", "candidate", "validation loss", "chosen for"]
    return Table("Candidates, best validation loss first", header, rows) if rows else None


def ood_by_epoch_table(results: Mapping[str, Any]) -> Table | None:
    """How many cases are OoD before refinement (k = 0) and after each epoch, and who came and went."""
    rows = []
    for segmenter, views in (results.get("ood") or {}).items():
        for view, found in views.items():
            after = [set(names) for names in found.get("cases_after_k") or ()]
            for k, names in enumerate(after if len(after) > 1 else ()):
                changes = [len(names - after[k - 1]), len(after[k - 1] - names)] if k else ["", ""]
                rows.append([f"{segmenter}, {view}", str(k), str(len(names)), *map(str, changes)])
    header = ["segmenter, view", "k", "OoD", "new", "no longer"]
    return Table("Out of distribution after each epoch of refinement", header, rows) if rows else None
