"""The numbers of the uncertainty experiment: its table `cases.csv`, and all that is made of it for the page.

Cited throughout: uncertainty paper (Arega et al., UNSURE 2021), sections 3.1 and 3.2.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from qcjax.labels import EMIDEC_REGIONS
from qcjax.metrics import infarct
from qcjax.metrics.failure_detection import MEASURES as FAILURE_MEASURES
from qcjax.metrics.statistics import paired_bootstrap, summary
from qcjax.report.columns import Columns, Row, present
from qcjax.report.failures import detections

ARMS = ("baseline", "control", "proposed")
GROUPS = ("normal", "pathological")
POSITIONS = ("all", *infarct.POSITIONS)
STRUCTURES = tuple(region.key for region in EMIDEC_REGIONS)
COMPARISONS = (("proposed", "baseline"), ("control", "baseline"), ("proposed", "control"))

IDENTITY_COLUMNS = ("arm", "fold", "subject", "group", "prediction", "position", "structure")
MEASURES = (  # of one structure at one position
    "dc",
    "hd_mm",
    "volume_ml",
    "true_volume_ml",
    "volume_error_ml",
    "volume_error_percent",
    "brier",
    "brier_volume",
    "dice_within_samples",
    "pairwise_dice",
    "pdc",
    "phd_mm",
)
CASE_MEASURES = (  # of the whole case, repeated in its rows
    "variance",
    "variance_foreground",
    "variance_interior",
    "entropy",
    "expected_entropy",
    "mutual_information",
    "ece",
)
PATH_COLUMNS = ("image_path", "label_path", "mask_path", "variance_path", "mean_path")
COLUMNS = (*IDENTITY_COLUMNS, *MEASURES, *CASE_MEASURES, *PATH_COLUMNS)
COMPARED = ("dc", "hd_mm", "volume_error_ml", "volume_error_percent", "brier", "brier_volume",
            "dice_within_samples", "pairwise_dice")  # fmt: skip
BETWEEN_PREDICTIONS = ("dc", "hd_mm", "volume_error_ml", "brier")
REFERENCE = "dice_within_samples"  # whose failure detection the others' is compared with
_TABLE = Columns(COLUMNS, (*MEASURES, *CASE_MEASURES), ("fold",), IDENTITY_COLUMNS, "case row")


def write_cases(path: Path, rows: Sequence[Row]) -> None:
    """Write `cases.csv`: a row per arm, subject, prediction, position and structure; NaN becomes an empty field.

    Raises:
      ValueError: a row has a column that the table does not know, or lacks one that identifies it.
    """
    _TABLE.write(path, rows)


def read_cases(path: Path) -> list[Row]:
    """Read the table as `write_cases` wrote it; an empty number becomes NaN.

    Raises:
      ValueError: columns are absent, or a number cannot be read; names file, line and column.
    """
    return _TABLE.read(path)


def is_uncertainty_table(path: Path) -> bool:
    """Whether a `cases.csv` is this experiment's: its header names arms and positions."""
    with path.open(encoding="utf-8") as file:
        return {"arm", "position"} <= set(file.readline().strip().split(","))


def has_truth(row: Row) -> bool:
    """Whether the row was scored against ground truth: its Dice is then always defined."""
    return math.isfinite(row["dc"])


def select(rows: Iterable[Row], **wanted: str) -> list[Row]:
    """The rows whose columns have these values."""
    return [row for row in rows if all(row[column] == value for column, value in wanted.items())]


def summarise_uncertainty(rows: Sequence[Row], seed: int = 0, n_resamples: int = 2000) -> dict[str, Any]:
    """Every table of the uncertainty report as nested dictionaries that JSON can hold (None, never NaN).

    Args:
      rows: as in `cases.csv`, a number that isn't given is NaN; rows without truth count in what needs none.
      seed, n_resamples: of the bootstraps, which draw whole subjects.

    Returns:
      `arms`, `structures`, `positions`, `groups`, `n` (subjects, and those with truth, by group);
      `measures`: prediction -> position -> arm -> structure -> measure -> mean, sd, n, n_missing, at
      the deterministic prediction's Dice and DiceWithinSamples with the mean's `low` and `high`;
      `by_group`: arm -> group -> structure -> measure -> the same, without limits;
      `case`: prediction -> arm -> measure of the whole case -> the same;
      `differences`: "b - a" -> position -> structure -> measure -> paired difference, and
      `case_differences`: "b - a" -> measure of the whole case;
      `mean_prediction`: arm -> structure -> measure -> mean prediction less deterministic one;
      `detection`: arm -> structure -> found and missed, and found where there is none;
      `failures`: structure -> arm -> what `metrics.failure_detection.failure_table` tells of each measure.
    """
    rows = [dict.fromkeys((*MEASURES, *CASE_MEASURES), math.nan) | row for row in rows]  # as read back
    known = [row for row in rows if has_truth(row)]
    arms, structures = present(rows, "arm", ARMS), present(rows, "structure", STRUCTURES)
    whole = _index(select(known, position="all"))
    comparisons = [(b, a) for b, a in COMPARISONS if a in arms and b in arms]
    options = {"n_resamples": n_resamples, "seed": seed}
    return {
        "arms": arms,
        "structures": structures,
        "positions": present(rows, "position", POSITIONS),
        "groups": present(rows, "group", GROUPS),
        "n": {
            "subjects": len({row["subject"] for row in rows}),
            "with_truth": len({row["subject"] for row in known}),
            "by_group": {
                group: len({row["subject"] for row in select(rows, group=group)})
                for group in present(rows, "group", GROUPS)
            },
        },
        "measures": _measures(known, options),
        "by_group": _by_group(known),
        "case": _case_measures(rows),
        "differences": {
            f"{b} - {a}": _differences(select(known, prediction="deterministic"), b, a, options)
            for b, a in comparisons
        },
        "case_differences": {
            f"{b} - {a}": {
                column: _paired(_cases(rows, arm=a), _cases(rows, arm=b), column, options)
                for column in CASE_MEASURES
            }
            for b, a in comparisons
        },
        "mean_prediction": {
            arm: {
                key: {
                    column: _paired(
                        whole.get((arm, "deterministic", key), []), whole.get((arm, "mean", key), []),
                        column, options,
                    )
                    for column in BETWEEN_PREDICTIONS
                }
                for key in structures
            }
            for arm in arms
        },
        "detection": {
            arm: {key: _detection(whole.get((arm, "deterministic", key), [])) for key in structures}
            for arm in arms
        },
        "failures": {
            key: {arm: _failures(whole.get((arm, "deterministic", key), []), seed, n_resamples) for arm in arms}
            for key in structures
        },
    }  # fmt: skip


def _index(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """(arm, prediction, structure) -> its rows."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["arm"], row["prediction"], row["structure"]), []).append(row)
    return found


def _measures(rows: Sequence[Row], options: Mapping[str, int]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    order = sorted(rows, key=_place)
    for place, own in groupby(order, key=_place):
        chosen = list(own)
        prediction, position, arm, key = place
        summaries: dict[str, Any] = {column: dict(summary(_column(chosen, column))) for column in MEASURES}
        for column in ("dc", "dice_within_samples") if prediction == "deterministic" else ():
            values = _column(chosen, column)
            subjects = [row["subject"] for row in chosen]
            limits = paired_bootstrap(np.zeros_like(values), values, subjects, **options)
            summaries[column] |= {"low": limits["low"], "high": limits["high"]}
        cells.setdefault(prediction, {}).setdefault(position, {}).setdefault(arm, {})[key] = summaries
    return cells


def _place(row: Row) -> tuple[str, str, str, str]:
    return row["prediction"], row["position"], row["arm"], row["structure"]


def _by_group(rows: Sequence[Row]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for row in select(rows, prediction="deterministic", position="all"):
        if row["group"]:
            groups = cells.setdefault(row["arm"], {}).setdefault(row["group"], {})
            groups.setdefault(row["structure"], []).append(row)
    return {
        arm: {
            group: {
                key: {column: dict(summary(_column(own, column))) for column in MEASURES}
                for key, own in structures.items()
            }
            for group, structures in groups.items()
        }
        for arm, groups in cells.items()
    }


def _case_measures(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        prediction: {
            arm: {
                column: dict(summary(_column(_cases(rows, arm=arm, prediction=prediction), column)))
                for column in CASE_MEASURES
            }
            for arm in present(rows, "arm", ARMS)
        }
        for prediction in present(rows, "prediction")
    }


def _cases(rows: Sequence[Row], arm: str, prediction: str = "deterministic") -> list[Row]:
    """One row per subject, for what is measured of the whole case."""
    own = select(rows, arm=arm, prediction=prediction)
    return list({row["subject"]: row for row in reversed(own)}.values())[::-1]


def _differences(rows: Sequence[Row], b: str, a: str, options: Mapping[str, int]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for position in present(rows, "position", POSITIONS):
        at = select(rows, position=position)
        for key in present(at, "structure", STRUCTURES):
            first, second = (select(at, arm=arm, structure=key) for arm in (a, b))
            cells.setdefault(position, {})[key] = {
                column: _paired(first, second, column, options) for column in COMPARED
            }
    return cells


def _paired(
    first: Sequence[Row], second: Sequence[Row], column: str, options: Mapping[str, int]
) -> dict[str, Any]:
    """Paired difference second - first over the subjects that both have."""
    values = {row["subject"]: row[column] for row in first}
    pairs = [
        (row["subject"], values[row["subject"]], row[column]) for row in second if row["subject"] in values
    ]
    subjects, a, b = ([pair[i] for pair in pairs] for i in range(3))
    return dict(paired_bootstrap(a, b, subjects, **options))


def _detection(rows: Sequence[Row]) -> dict[str, Any]:
    """In how many cases a structure that is there is missed, and one that isn't is found, with its volume."""
    without = [row for row in rows if row["true_volume_ml"] == 0]
    false = [row["volume_ml"] for row in without if row["volume_ml"] > 0]
    with_it = [row for row in rows if row["true_volume_ml"] > 0]
    normal = select(rows, group="normal")
    return {
        "n_without": len(without),
        "n_false": len(false),
        "n_normal": len(normal),
        "n_false_normal": sum(row["volume_ml"] > 0 for row in normal),
        "false_ml": dict(summary(false)) | {"max": max(false, default=None)},
        "n_with": len(with_it),
        "n_missed": sum(row["volume_ml"] == 0 for row in with_it),
    }


def _failures(rows: Sequence[Row], seed: int, n_resamples: int) -> dict[str, Any]:
    """`failure_table` of the measures that the run took."""
    return detections(rows, "dc", {name: name for name in FAILURE_MEASURES}, REFERENCE, seed, n_resamples)


def _column(rows: Sequence[Row], column: str) -> np.ndarray:
    return np.array([row[column] for row in rows], np.float64)
