"""What the flags catch and miss, and how that depends on their limits (monitoring paper, section 3.2)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qcjax.metrics.selective import flag_counts, flag_curve
from qcjax.monitoring.table import MeasureRow, by_case
from qcjax.report.columns import present

HD_LIMITS = tuple(range(2, 102, 2))
DC_LIMITS = tuple(i / 50 for i in range(51))
KINDS = ("erroneous", "suspicious")


def is_absent(row: MeasureRow) -> bool:
    """Whether only one of mask and truth has the structure, the NaN of the paper's challenge platform."""
    return math.isfinite(row["dc"]) and not math.isfinite(row["hd"])


def is_failure(row: MeasureRow, failure_dc: float) -> bool:
    """Whether a structure failed: Dice below the limit, or in only one of mask and truth."""
    return row["dc"] < failure_dc or is_absent(row)


def verdict(rows: Sequence[MeasureRow]) -> str:
    """The worst flag of a mask's structures: "erroneous", "suspicious" or ""."""
    found = {row["flag"] for row in rows}
    return next((kind for kind in KINDS if kind in found), "")


def count_flags(rows: Sequence[MeasureRow]) -> dict[str, Any]:
    """Masks by their worst flag, over all (`all`) and per method (`methods`); needs no truth."""
    cases = {case: verdict(own) for case, own in by_case(rows).items()}

    def count(verdicts: Sequence[str]) -> dict[str, int]:
        return {kind: verdicts.count(kind) for kind in KINDS} | {"n": len(verdicts)}

    return {
        "all": count(list(cases.values())),
        "methods": {
            method: count([found for case, found in cases.items() if case[0] == method])
            for method in present(rows, "method")
        },
    }


def flags_against_truth(rows: Sequence[MeasureRow], failure_dc: float) -> dict[str, Any]:
    """Failures that the flags catch and miss, and their false alarms.

    A mask counts as failed where any of its structures failed, and as caught where any is flagged; per
    structure, only its own flag counts.

    Args:
      rows: with truth.

    Returns:
      [`case` or `structure`][`failed` (Dice below the limit or absent) or `absent`] with the counts over
      all (`all`) and per method (`methods`): `n`, `failures`, `caught_erroneous`, `caught_suspicious`,
      `missed`, `false_alarms`, `passed`.
    """
    judgements: dict[str, Callable[[MeasureRow], bool]] = {
        "failed": lambda row: is_failure(row, failure_dc),
        "absent": is_absent,
    }
    units = {"case": list(by_case(rows).values()), "structure": [[row] for row in rows]}
    return {
        level: {
            name: {
                "all": _count(found, judge),
                "methods": {
                    method: _count([unit for unit in found if unit[0]["method"] == method], judge)
                    for method in present(rows, "method")
                },
            }
            for name, judge in judgements.items()
        }
        for level, found in units.items()
    }


def limits_curves(
    rows: Sequence[MeasureRow], failure_dc: float, hd_limit: float, dc_limit: float
) -> dict[str, Any]:
    """Counts of masks over the limit of pHD (that of pDC held) and over that of pDC (that of pHD held).

    Args:
      rows: with truth.

    Returns:
      `n` and `failures`, and for `hd` and `dc`: `limits`, `caught`, `missed`, `false_alarms`, lists of
      one length.
    """
    cases = list(by_case(rows).values())
    failed = [any(is_failure(row, failure_dc) for row in own) for own in cases]
    pdc = [min(row["pdc"] for row in own) for own in cases]
    phd = [max(_or_infinite(row["phd"]) for row in own) for own in cases]
    limits = {"hd": ([dc_limit], HD_LIMITS), "dc": (DC_LIMITS, [hd_limit])}
    curves: dict[str, Any] = {"n": len(cases), "failures": sum(failed)}
    for name, (dc_limits, hd_limits) in limits.items():
        counts = flag_curve(pdc, phd, failed, dc_limits, hd_limits)
        curves[name] = {"limits": list(HD_LIMITS if name == "hd" else DC_LIMITS)} | {
            key: np.asarray(getattr(counts, key)).tolist() for key in ("caught", "missed", "false_alarms")
        }
    return curves


def _count(units: Sequence[Sequence[MeasureRow]], judge: Callable[[MeasureRow], bool]) -> dict[str, int]:
    failed = [any(judge(row) for row in unit) for unit in units]
    verdicts = [verdict(unit) for unit in units]
    counts = flag_counts([bool(kind) for kind in verdicts], failed)
    caught = {
        f"caught_{kind}": sum(bad and found == kind for bad, found in zip(failed, verdicts, strict=True))
        for kind in KINDS
    }
    return {
        "n": len(units),
        "failures": sum(failed),
        **caught,
        "missed": counts.missed,
        "false_alarms": counts.false_alarms,
        "passed": counts.correctly_passed,
    }


def _or_infinite(distance: float) -> float:
    return distance if math.isfinite(distance) else math.inf
