"""Flagged cases: which they are, in what order they are shown, and how many there are at each stage."""

from collections.abc import Sequence

from qcjax.data.subject import VIEWS
from qcjax.refinement.figures import last_stage
from qcjax.refinement.table import STAGES, CaseRow, case_name, has_truth
from qcjax.refinement.tables import STAGE_WORDS
from qcjax.report.columns import present
from qcjax.report.table import DASH, Table, number

_URGENCY = {"erroneous": 0, "suspicious": 1}


def flagged_cases(rows: Sequence[CaseRow]) -> list[CaseRow]:
    """The flagged or OoD cases of each segmenter's last stage: erroneous first, then by pDC of the RV."""
    chosen = []
    for segmenter in present(rows, "segmenter"):
        own = [row for row in rows if row["segmenter"] == segmenter]
        last = last_stage(present(own, "stage"))
        chosen += [row for row in own if row["stage"] == last and (row["flag"] or row["ood"])]
    return sorted(chosen, key=lambda row: (_URGENCY.get(row["flag"], 2), _finite(row["pdc_rv"]) or 0.0))


def flag_table(rows: Sequence[CaseRow]) -> Table | None:
    """How many cases are flagged at each stage, with the real Dice of the flagged and of the others."""
    lines = []
    for segmenter in present(rows, "segmenter"):
        for view in present(rows, "view", VIEWS):
            for stage in STAGES:
                cases = [
                    row
                    for row in rows
                    if (row["segmenter"], row["view"], row["stage"]) == (segmenter, view, stage)
                ]
                if cases:
                    flagged = [row for row in cases if row["flag"]]
                    lines.append(
                        [
                            f"{segmenter}, {view}, {STAGE_WORDS[stage]}",
                            *(
                                str(sum(row["flag"] == flag for row in cases))
                                for flag in ("erroneous", "suspicious")
                            ),
                            str(sum(row["ood"] for row in cases)),
                            str(len(cases)),
                            _mean_dice(flagged),
                            _mean_dice([row for row in cases if not row["flag"]]),
                        ]
                    )
    header = ["segmenter, view, stage", "erroneous", "suspicious", "OoD", "cases", "mean RV DC, flagged",
              "mean RV DC, others"]  # fmt: skip
    return Table("Flags at each stage", header, lines) if lines else None


def flagged_table(rows: Sequence[CaseRow]) -> Table | None:
    """Flagged cases without a picture, a row each."""
    lines = [
        [
            f"{case_name(row)}, {row['segmenter']}",
            verdict(row),
            row["reason"] or DASH,
            number(_finite(row["pdc_rv"]), 2),
            number(_finite(row["phd_rv_mm"]), 1),
            number(_finite(row["dc_rv"]), 2),
            row["candidate"],
        ]
        for row in rows
    ]
    header = ["case", "flag", "reason", "pDC RV", "pHD RV (mm)", "real DC RV", "mask of"]
    return Table("The other flagged cases", header, lines) if lines else None


def verdict(row: CaseRow) -> str:
    """E.g. ``erroneous, out of distribution``."""
    return ", ".join(word for word in (row["flag"], "out of distribution" if row["ood"] else "") if word)


def _mean_dice(rows: Sequence[CaseRow]) -> str:
    known = [row["dc_rv"] for row in rows if has_truth(row)]
    return f"{sum(known) / len(known):.2f}" if known else DASH


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None


def describe(row: CaseRow) -> str:
    """What QC measured of a case and what is known of it, in a sentence or two."""
    texts = [f"Reason: {row['reason']}."] if row["reason"] else []
    measured = f"RV: pDC {number(_finite(row['pdc_rv']), 2)}, pHD {number(_finite(row['phd_rv_mm']), 1)} mm"
    if has_truth(row):
        measured += f"; against the truth: DC {row['dc_rv']:.2f}, HD {number(_finite(row['hd_rv_mm']), 1)} mm"
    texts.append(measured + ".")
    known = [text for text in (row["disease"], row["vendor"], row["part"]) if text]
    return " ".join(
        [*texts, f"Mask of {row['candidate']}.", f"({', '.join(known)})" if known else ""]
    ).strip()
