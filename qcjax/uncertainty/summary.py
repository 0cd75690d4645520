"""The numbers of the uncertainty experiment, from the rows of `cases.csv`.

Cited throughout: uncertainty paper (Arega et al., UNSURE 2021), sections 3.1 and 3.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qcjax.metrics.failure_detection import MEASURES as FAILURE_MEASURES
from qcjax.metrics.statistics import paired_bootstrap, summary
from qcjax.report.columns import Row, groups, present, records
from qcjax.report.failures import detections
from qcjax.uncertainty.table import (
    ARMS,
    CASE_MEASURES,
    GROUPS,
    IDENTITY_COLUMNS,
    MEASURES,
    POSITIONS,
    STRUCTURES,
)

COMPARISONS = (("proposed", "baseline"), ("control", "baseline"), ("proposed", "control"))
COMPARED = ("dc", "hd_mm", "volume_error_ml", "volume_error_percent", "brier", "brier_volume",
            "dice_within_samples", "pairwise_dice")  # fmt: skip
BETWEEN_PREDICTIONS = ("dc", "hd_mm", "volume_error_ml", "brier")
REFERENCE = "dice_within_samples"  # whose failure detection the others' is compared with


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
    frame = pd.DataFrame(rows, columns=[*IDENTITY_COLUMNS, *MEASURES, *CASE_MEASURES])
    known = frame[np.isfinite(frame["dc"].astype(float))]
    single = known[known["prediction"] == "deterministic"]
    arms, structures = present(frame, "arm", ARMS), present(frame, "structure", STRUCTURES)
    comparisons = {f"{b} - {a}": (a, b) for b, a in COMPARISONS if a in arms and b in arms}
    options = {"n_resamples": n_resamples, "seed": seed}

    def whole(arm: str, key: str, prediction: str = "deterministic") -> pd.DataFrame:
        return _of(known, position="all", arm=arm, prediction=prediction, structure=key)

    return {
        "arms": arms,
        "structures": structures,
        "positions": present(frame, "position", POSITIONS),
        "groups": present(frame, "group", GROUPS),
        "n": {
            "subjects": frame["subject"].nunique(),
            "with_truth": known["subject"].nunique(),
            "by_group": {
                name: own["subject"].nunique() for name, own in groups(frame, "group", GROUPS).items()
            },
        },
        "measures": _measures(known, options),
        "by_group": _by_group(single[single["position"] == "all"]),
        "case": {
            prediction: {arm: _summaries(_cases(frame, arm, prediction), CASE_MEASURES) for arm in arms}
            for prediction in present(frame, "prediction")
        },
        "differences": {name: _differences(single, *pair, options) for name, pair in comparisons.items()},
        "case_differences": {
            name: _paired(_cases(frame, a), _cases(frame, b), CASE_MEASURES, options)
            for name, (a, b) in comparisons.items()
        },
        "mean_prediction": {
            arm: {
                key: _paired(whole(arm, key), whole(arm, key, "mean"), BETWEEN_PREDICTIONS, options)
                for key in structures
            }
            for arm in arms
        },
        "detection": {arm: {key: _detection(whole(arm, key)) for key in structures} for arm in arms},
        "failures": {
            key: {arm: _failures(whole(arm, key), seed, n_resamples) for arm in arms} for key in structures
        },
    }


def _of(rows: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """The rows whose columns have these values."""
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows


def _summaries(rows: pd.DataFrame, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {column: dict(summary(rows[column].to_numpy(float))) for column in columns}


def _measures(rows: pd.DataFrame, options: Mapping[str, int]) -> dict[str, Any]:
    cells: dict[Any, Any] = {}
    for (prediction, position, arm, key), own in rows.groupby(["prediction", "position", "arm", "structure"]):
        found = _summaries(own, MEASURES)
        for column in ("dc", "dice_within_samples") if prediction == "deterministic" else ():
            values = own[column].to_numpy(float)
            limits = paired_bootstrap(np.zeros_like(values), values, own["subject"].tolist(), **options)
            found[column] |= {"low": limits["low"], "high": limits["high"]}
        cells.setdefault(prediction, {}).setdefault(position, {}).setdefault(arm, {})[key] = found
    return cells


def _by_group(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        arm: {
            group: {key: _summaries(cases, MEASURES) for key, cases in groups(members, "structure").items()}
            for group, members in groups(own, "group").items()
        }
        for arm, own in groups(rows[rows["group"] != ""], "arm").items()
    }


def _cases(rows: pd.DataFrame, arm: str, prediction: str = "deterministic") -> pd.DataFrame:
    """One row per subject, for what is measured of the whole case."""
    return _of(rows, arm=arm, prediction=prediction).drop_duplicates("subject")


def _differences(rows: pd.DataFrame, a: str, b: str, options: Mapping[str, int]) -> dict[str, Any]:
    return {
        position: {
            key: _paired(_of(own, arm=a), _of(own, arm=b), COMPARED, options)
            for key, own in groups(at, "structure", STRUCTURES).items()
        }
        for position, at in groups(rows, "position", POSITIONS).items()
    }


def _paired(
    first: pd.DataFrame, second: pd.DataFrame, columns: Sequence[str], options: Mapping[str, int]
) -> dict[str, Any]:
    """Paired differences second - first over the subjects that both have, column by column."""
    pairs = second.merge(first, on="subject", suffixes=("_b", "_a"))
    subjects = pairs["subject"].tolist()
    return {
        c: dict(
            paired_bootstrap(
                pairs[f"{c}_a"].to_numpy(float), pairs[f"{c}_b"].to_numpy(float), subjects, **options
            )
        )
        for c in columns
    }


def _detection(rows: pd.DataFrame) -> dict[str, Any]:
    """In how many cases a structure that is there is missed, and one that isn't is found, with its volume."""
    without, with_it = rows[rows["true_volume_ml"] == 0], rows[rows["true_volume_ml"] > 0]
    false, normal = without.loc[without["volume_ml"] > 0, "volume_ml"], rows[rows["group"] == "normal"]
    return {
        "n_without": len(without),
        "n_false": len(false),
        "n_normal": len(normal),
        "n_false_normal": int((normal["volume_ml"] > 0).sum()),
        "false_ml": dict(summary(false.to_numpy(float))) | {"max": max(false, default=None)},
        "n_with": len(with_it),
        "n_missed": int((with_it["volume_ml"] == 0).sum()),
    }


def _failures(rows: pd.DataFrame, seed: int, n_resamples: int) -> dict[str, Any]:
    """`failure_table` of the measures that the run took."""
    columns = {name: name for name in FAILURE_MEASURES}
    return detections(records(rows), "dc", columns, REFERENCE, seed, n_resamples)
