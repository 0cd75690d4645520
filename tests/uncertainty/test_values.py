"""Every number of the uncertainty tables on a drawn cohort, worked out again by other means."""

from typing import Any

import numpy as np
import pytest

from qcjax.metrics.failure_detection import MEASURES
from qcjax.uncertainty.summary import summarise_uncertainty
from tests.experiments import pinned_emidec
from tests.experiments.by_hand import check_correlation, check_interval
from tests.uncertainty.uncertainty_runs import make_case_row

DRAWS, SEED = 60, 9
NUMBERS = (
    *(
        "dc",
        "hd_mm",
        "volume_ml",
        "true_volume_ml",
        "volume_error_ml",
        "volume_error_percent",
        "brier",
        "brier_volume",
    ),
    *("dice_within_samples", "pairwise_dice", "pdc", "phd_mm"),
)
OF_CASE = ("variance", "variance_foreground", "variance_interior", "entropy", "expected_entropy", "mutual_information",
           "ece")  # fmt: skip
GROUPS = {f"Case_{'N' if i < 3 else 'P'}{i}": "normal" if i < 3 else "pathological" for i in range(7)}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(4)
    found = []
    for arm in ("baseline", "control", "proposed"):
        for subject, group in GROUPS.items():
            of_case = {name: float(rng.uniform(0, 1)) for name in OF_CASE}
            for prediction in ("deterministic", "mean"):
                for position in ("all", "apical", "mid", "basal"):
                    for structure in pinned_emidec.REGIONS:
                        values = {name: float(rng.uniform(0, 1)) for name in NUMBERS}
                        for name, share in (("true_volume_ml", 0.3), ("volume_ml", 0.3)):
                            values[name] = 0.0 if rng.random() < share else values[name]
                        if rng.random() < 0.2:
                            values |= {"hd_mm": np.nan, "dc": 0.0, "pdc": np.nan}
                        identity = {"arm": arm, "subject": subject, "group": group, "prediction": prediction}
                        identity |= {"position": position, "structure": structure}
                        found.append(make_case_row(**identity, **values, **of_case))
    return found


@pytest.fixture(scope="module")
def tables(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return summarise_uncertainty(rows, SEED, DRAWS)


def test_every_number_of_the_tables(rows: list[dict[str, Any]], tables: dict[str, Any]) -> None:
    keys = ("arm", "prediction", "position", "structure", "subject")
    values = {tuple(row[k] for k in keys): {name: row[name] for name in (*NUMBERS, *OF_CASE)} for row in rows}
    pinned_emidec.check_tables(tables, values, GROUPS, SEED, DRAWS)


def column(rows: list[dict[str, Any]], name: str, **wanted: str) -> list[float]:
    return [row[name] for row in rows if all(row[k] == v for k, v in wanted.items())]


@pytest.mark.parametrize(
    ("b", "a"), [("proposed", "baseline"), ("control", "baseline"), ("proposed", "control")]
)
def test_differences_of_whole_cases(
    rows: list[dict[str, Any]], tables: dict[str, Any], a: str, b: str
) -> None:
    place = {"prediction": "deterministic", "position": "all", "structure": "cavity"}
    for name in OF_CASE:
        pairs = zip(column(rows, name, arm=a, **place), column(rows, name, arm=b, **place), strict=True)
        change = [second - first for first, second in pairs]
        check_interval(
            tables["case_differences"][f"{b} - {a}"][name], change, list(GROUPS), SEED, draws=DRAWS
        )


def test_mean_prediction_less_the_deterministic_one(
    rows: list[dict[str, Any]], tables: dict[str, Any]
) -> None:
    for arm in ("baseline", "proposed"):
        for key in pinned_emidec.REGIONS:
            for name in ("dc", "hd_mm", "volume_error_ml", "brier"):
                place = {"arm": arm, "structure": key, "position": "all"}
                first, second = (column(rows, name, prediction=p, **place) for p in ("deterministic", "mean"))
                change = [b - a for a, b in zip(first, second, strict=True)]
                check_interval(
                    tables["mean_prediction"][arm][key][name], change, list(GROUPS), SEED, draws=DRAWS
                )


def test_what_finds_the_failures(rows: list[dict[str, Any]], tables: dict[str, Any]) -> None:
    """Undefined is worst: in ranks below all, for Pearson's r level with the lowest."""
    for arm in ("baseline", "control", "proposed"):
        for key in pinned_emidec.REGIONS:
            place = {"arm": arm, "structure": key, "position": "all", "prediction": "deterministic"}
            real = column(rows, "dc", **place)
            for name, sign in MEASURES.items():
                measure = np.array([sign * v for v in column(rows, name, **place)])
                found, lowest = tables["failures"][key][arm][name], np.nanmin(measure)
                check_correlation(
                    found["pearson"], np.where(np.isnan(measure), lowest, measure).tolist(), real
                )
                below = np.where(np.isnan(measure), lowest - 1, measure).tolist()
                check_correlation(found["spearman"], below, real, "spearman")
                assert found["n_undefined"] == np.isnan(measure).sum()


def test_2000_draws_of_seed_0_unless_told_otherwise(rows: list[dict[str, Any]]) -> None:
    few = [row for row in rows if row["structure"] == "cavity" and row["position"] == "all"]
    assert summarise_uncertainty(few) == summarise_uncertainty(few, 0, 2000)
