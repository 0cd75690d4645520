"""The table of the uncertainty experiment, worked out by hand from what its run has left."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcjax.uncertainty.run
import qcjax.uncertainty.scores
from qcjax.inference.monitor import Monitor
from tests.experiments.by_hand import (
    EXACT,
    SINGLE,
    area_of_risk,
    check_correlation,
    check_interval,
    check_summary,
    dice,
    distances,
    millilitres,
    number,
    pseudo,
    read,
    results,
    table,
    thirds,
)

REGIONS = {"myocardium": {2, 3, 4}, "infarction": {3, 4}, "no_reflow": {4}, "cavity": {1}}
MARGIN_MM = 10
BINS = 15


class Seen:
    """What isn't left in files: probabilities and samples of each mask, the monitor's reconstructions."""

    def __init__(self) -> None:
        self.probabilities: dict[bytes, np.ndarray] = {}  # of a mask: on its grid, (slices, y, x, classes)
        self.samples: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}  # and its inside of the padded volume
        self.rebuilt: dict[bytes, np.ndarray] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        judge, restored = qcjax.uncertainty.run.judge_volume, qcjax.uncertainty.scores._restored
        score, of_case = Monitor.score, []

        def judging(*args: Any) -> Any:
            of_case.clear()
            found = judge(*args)
            for labels, probabilities in zip((found.labels, found.mean_labels), of_case, strict=True):
                self.probabilities[labels.tobytes()] = probabilities
            self.samples[found.labels.tobytes()] = (args[1], args[2])
            return found

        def restoring(*args: Any) -> np.ndarray:
            of_case.append(restored(*args))
            return of_case[-1]

        def scoring(monitor: Monitor, mask: np.ndarray, spacing_mm: Any) -> Any:
            found = score(monitor, mask, spacing_mm)
            self.rebuilt[mask.tobytes()] = found.reconstruction
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(qcjax.uncertainty.run, "judge_volume", judging)
            patch.setattr(qcjax.uncertainty.scores, "_restored", restoring)
            patch.setattr(Monitor, "score", scoring)
            yield


def check(run: Path, seen: Seen, seed: int) -> None:
    """Every value of `cases.csv` and what `results.json` makes of them."""
    rows = table(run / "cases.csv")
    values: dict[tuple[str, ...], dict[str, float]] = {}
    for of_mask in _by_mask(rows).values():
        expected = _of_mask(run, of_mask[0], seen)
        for row in of_mask:
            found = expected[row["position"], row["structure"]]
            for column, value in found.items():
                said = (
                    row["arm"],
                    row["subject"],
                    row["prediction"],
                    row["position"],
                    row["structure"],
                    column,
                )
                assert number(row[column]) == pytest.approx(value, nan_ok=True, **_exact(column)), said
            key = (row["arm"], row["prediction"], row["position"], row["structure"], row["subject"])
            values[key] = {column: number(row[column]) for column in found}  # with the table's own ties
    assert len(values) == len(rows)
    groups = {row["subject"]: row["group"] for row in rows}
    check_tables(results(run)["tables"], values, groups, seed)


def _exact(column: str) -> dict[str, float]:
    of_files = ("dc", "hd_mm", "volume", "true_volume", "pdc", "phd_mm")
    return EXACT if column.startswith(of_files) else SINGLE


def _by_mask(rows: list[dict[str, str]]) -> dict[tuple[str, str, str], list[dict[str, str]]]:
    found = defaultdict(list)
    for row in rows:
        found[row["arm"], row["subject"], row["prediction"]].append(row)
    return found


def _of_mask(run: Path, row: dict[str, str], seen: Seen) -> dict[tuple[str, str], dict[str, float]]:
    """(position, structure) -> column -> value."""
    deterministic, _ = read(run / row["mask_path"])
    mask, mm = read(run / row["mask_path" if row["prediction"] == "deterministic" else "mean_path"])
    truth, true_mm = read(Path(row["label_path"]))
    assert mm == pytest.approx(true_mm)
    p = seen.probabilities[mask.tobytes()].transpose(2, 1, 0, 3)
    of_case = _of_samples(*seen.samples[deterministic.tobytes()])
    case = of_case.pop("case") | {"ece": _calibration_error(p, truth, mm)}
    places = {"all": np.arange(truth.shape[2])} | thirds(truth)
    found = {}
    for position, slices in places.items():
        for key, ids in REGIONS.items():
            of_place = _measures(mask[:, :, slices], truth[:, :, slices], p[:, :, slices], ids, key, mm)
            if position == "all":
                of_place |= of_case[key]
                if row["prediction"] == "deterministic":
                    rebuilt = seen.rebuilt[mask.tobytes()]
                    pair = pseudo(np.isin(mask, list(ids)), np.isin(rebuilt, list(ids)), mm)
                    either = np.isin(mask, list(ids)).any() or np.isin(rebuilt, list(ids)).any()
                    of_place["pdc"] = pair[0]
                    of_place["phd_mm"] = pair[1] if either else math.nan
            found[position, key] = of_place | case
    return found


def _measures(
    mask: np.ndarray, truth: np.ndarray, p: np.ndarray, ids: set[int], key: str, mm: np.ndarray
) -> dict[str, float]:
    a, b = np.isin(mask, list(ids)), np.isin(truth, list(ids))
    ml, true_ml = millilitres(a, mm), millilitres(b, mm)
    walls = [millilitres(np.isin(m, [2, 3, 4]), mm) for m in (mask, truth)]
    share = math.nan
    if key in ("infarction", "no_reflow"):
        share = (
            100 * abs(ml / walls[0] - true_ml / walls[1]) if all(walls) else math.nan if any(walls) else 0.0
        )
    square = (p[..., sorted(ids)].sum(-1) - b) ** 2
    return {
        "dc": dice(a, b),
        "hd_mm": distances(a, b, mm)[0],
        "volume_ml": ml,
        "true_volume_ml": true_ml,
        "volume_error_ml": abs(ml - true_ml),
        "volume_error_percent": share,
        "brier": float(square[_heart(truth, mm)].mean()),
        "brier_volume": float(square.mean()),
    }


def _heart(truth: np.ndarray, mm: np.ndarray) -> tuple[slice, slice, slice]:
    """The true labels' box with its margin in plane."""
    where = np.argwhere(truth > 0)
    low, high = where.min(0), where.max(0)
    x, y = (
        slice(max(0, low[i] - math.ceil(MARGIN_MM / mm[i])), high[i] + math.ceil(MARGIN_MM / mm[i]) + 1)
        for i in (0, 1)
    )
    return x, y, slice(low[2], high[2] + 1)


def _calibration_error(p: np.ndarray, truth: np.ndarray, mm: np.ndarray) -> float:
    box = _heart(truth, mm)
    confidence, right = p[box].max(-1).ravel(), (p[box].argmax(-1) == truth[box]).ravel()
    total = 0.0
    for i in range(BINS):
        chosen = (confidence > i / BINS) & (confidence <= (i + 1) / BINS)
        if chosen.any():
            total += chosen.mean() * abs(right[chosen].mean() - confidence[chosen].mean())
    return total


def _of_samples(samples: np.ndarray, inside: np.ndarray) -> dict[str, Any]:
    """What dropout samples (n, s, h, w, k) tell of the case and of its structures."""
    p = samples.astype(np.float64)
    mean = p.mean(0)
    labels, of_mean = samples.argmax(-1), mean.argmax(-1)
    variance = ((p - mean) ** 2).mean(0).mean(-1)
    entropy, expected = _entropy(mean), _entropy(p).mean(0)
    found: dict[str, Any] = {
        "case": {
            "variance": variance[inside].mean(),
            "variance_foreground": variance[inside & (of_mean > 0)].mean(),
            "entropy": entropy[inside].mean(),
            "expected_entropy": expected[inside].mean(),
        }
    }
    n = len(samples)
    for key, ids in REGIONS.items():
        masks = [np.isin(m, list(ids)) for m in labels]
        pairs = [dice(masks[i], masks[j]) for i in range(n) for j in range(i)]
        within = [dice(np.isin(of_mean, list(ids)), m) for m in masks]
        found[key] = {"dice_within_samples": sum(within) / n, "pairwise_dice": sum(pairs) / len(pairs)}
    return found


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def check_tables(
    tables: Any,
    values: dict[tuple[str, ...], dict[str, float]],
    groups: dict[str, str],
    seed: int,
    draws: int = 2000,
) -> None:
    """What `results.json` makes of the rows: (arm, prediction, position, structure, subject) -> column -> value."""
    subjects = sorted(groups)

    def column(name: str, arm: str, prediction: str, position: str, key: str) -> list[float]:
        return [values[arm, prediction, position, key, s].get(name, math.nan) for s in subjects]

    of_places = [key for key in values if key[-1] == subjects[0]]
    for arm, prediction, position, key, _ in of_places:
        cell = tables["measures"][prediction][position][arm][key]
        for name in values[arm, prediction, position, key, subjects[0]]:
            if name in cell:
                check_summary(cell[name], column(name, arm, prediction, position, key), _exact(name))
        if prediction == "deterministic":
            check_interval(
                cell["dc"], column("dc", arm, prediction, position, key), subjects, seed, draws=draws
            )
            _check_differences(tables["differences"], column, position, key, subjects, seed, draws)
    for arm in tables["arms"]:
        for key in REGIONS:
            whole = ("deterministic", "all", key)
            _check_detection(tables["detection"][arm][key], column, (arm, *whole), subjects, groups)
            _check_failures(tables["failures"][key][arm], column, (arm, *whole))
            for group in set(groups.values()):
                of_group = [values[arm, *whole, s]["dc"] for s in subjects if groups[s] == group]
                check_summary(tables["by_group"][arm][group][key]["dc"], of_group)
        for name in ("variance", "variance_foreground", "entropy", "ece"):
            own = column(name, arm, "deterministic", "all", "cavity")
            check_summary(tables["case"]["deterministic"][arm][name], own, SINGLE)


Column = Callable[..., list[float]]


def _check_differences(
    found: Any, column: Column, position: str, key: str, subjects: list[str], seed: int, draws: int
) -> None:
    for name in ("dc", "hd_mm", "volume_error_ml", "brier"):
        proposed, baseline = (
            column(name, arm, "deterministic", position, key) for arm in ("proposed", "baseline")
        )
        change = [b - a for a, b in zip(baseline, proposed, strict=True)]
        check_interval(
            found["proposed - baseline"][position][key][name], change, subjects, seed, _exact(name), draws
        )


def _check_detection(
    found: Any, column: Column, place: tuple[str, ...], subjects: list[str], groups: dict[str, str]
) -> None:
    ml, true_ml = column("volume_ml", *place), column("true_volume_ml", *place)
    false = [a for a, b in zip(ml, true_ml, strict=True) if b == 0 and a > 0]
    normal = [a for a, s in zip(ml, subjects, strict=True) if groups[s] == "normal"]
    assert found["n_without"] == true_ml.count(0) and found["n_false"] == len(false)
    assert found["n_normal"] == len(normal) and found["n_false_normal"] == sum(a > 0 for a in normal)
    assert found["n_missed"] == sum(b > 0 and a == 0 for a, b in zip(ml, true_ml, strict=True))
    assert found["n_with"] == sum(b > 0 for b in true_ml)
    check_summary(found["false_ml"], false)
    assert found["false_ml"]["max"] == (pytest.approx(max(false)) if false else None)


def _check_failures(found: Any, column: Column, place: tuple[str, ...]) -> None:
    real = column("dc", *place)
    for name, sign in {"dice_within_samples": 1, "pairwise_dice": 1, "variance": -1, "pdc": 1}.items():
        measure = [sign * v for v in column(name, *place)]
        lowest = min(v for v in measure if not math.isnan(v))
        check_correlation(found[name]["pearson"], [lowest if math.isnan(v) else v for v in measure], real)
        below = [-math.inf if math.isnan(v) else v for v in measure]
        check_correlation(found[name]["spearman"], [max(v, lowest - 1) for v in below], real, "spearman")
        area = area_of_risk(below, [1 - dc for dc in real])
        assert found[name]["aurc"]["value"] == pytest.approx(area, rel=1e-6)
