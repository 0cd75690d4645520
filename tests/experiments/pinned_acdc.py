"""The table of the monitoring experiment, worked out by hand from what its run has left."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from qcjax.inference.monitor import Monitor
from tests.experiments.by_hand import (
    area_of_risk,
    check_correlation,
    dice,
    distances,
    number,
    pseudo,
    read,
    results,
    table,
)

STORED = {"lv": 3, "myo": 2, "rv": 1}  # in ACDC's files
OURS = {"lv": 1, "myo": 2, "rv": 3}
FAILED = 0.7  # a Dice below is a failure
DC_LIMIT, HD_LIMIT_MM = 0.5, 50.0

Rows = list[dict[str, Any]]
Seen = dict[bytes, tuple[np.ndarray, np.ndarray]]


def moved(slices: np.ndarray) -> np.ndarray:
    """What the autoencoder of these tests makes of masks (n, size, size): the same, a row further down."""
    return np.roll(slices, 1, axis=1)


@contextmanager
def recording(seen: Seen) -> Iterator[None]:
    """Keep each mask as the monitor compares it, (s, h, w) on its own grid, with its reconstruction's square."""
    assess = Monitor.assess

    def assessing(monitor: Monitor, prepared: Any, rebuilt: np.ndarray) -> Any:
        seen[prepared.mask.tobytes()] = (prepared.resampled, rebuilt)
        return assess(monitor, prepared, rebuilt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, "assess", assessing)
        yield


def check(run: Path, seen: Seen, target_mm: float) -> None:
    """The measures of `measures.csv` and what `results.json` makes of them."""
    rows: Rows = []
    told = table(run / "measures.csv")
    masks = {(r["method"], r["subject"], r["phase"]): _mask(run, r["mask_path"]) for r in told}
    for row in told:
        expected = _of_files(run, row, seen, target_mm)
        expected["agreement"] = _agreement(row, masks)
        for column, value in expected.items():
            said = (row["method"], row["subject"], row["phase"], row["structure"], column)
            assert number(row[column]) == pytest.approx(value, nan_ok=True, rel=1e-9, abs=1e-9), said
        absent, doubtful = (
            math.isnan(expected["phd"]),
            expected["pdc"] < DC_LIMIT or expected["phd"] > HD_LIMIT_MM,
        )
        assert row["flag"] == ("erroneous" if absent else "suspicious" if doubtful else "")
        # what is ranked below has its ties as the table has them
        rows.append(row | {k: number(row[k]) for k in (*expected, "suspicion", "doubt", "n_rules")})
    assert len({r["pdc"] for r in rows}) > len(rows) / 2  # else they would tell nothing of a wrong order
    found = results(run)
    _check_flags(found, rows)
    scope = found["scopes"]["all"]
    worst = {c: max(r[c] for r in rows if math.isfinite(r[c])) for c in ("hd", "phd")}
    assert scope["worst"] == pytest.approx(worst)
    for key in OURS:
        own = [r for r in rows if r["structure"] == key]
        _check_correlations(scope["correlation"]["ours"][key], own, worst, _dropped(rows))
        for phase in ("ED", "ES"):
            _check_ranking(
                scope["ranking"]["counted"][phase][key], [r for r in own if r["phase"] == phase], worst
            )
    _check_risk(scope["risk"], rows)


def _mask(run: Path, path: str) -> np.ndarray:
    stored, _ = read(run / path)
    return np.select([stored == STORED[key] for key in OURS], list(OURS.values()), 0).astype(np.uint8)


def _of_files(run: Path, row: dict[str, str], seen: Seen, target_mm: float) -> dict[str, float]:
    mask, mm = read(run / row["mask_path"])
    truth, _ = read(Path(row["label_path"]))
    key = row["structure"]
    a, b = mask == STORED[key], truth == STORED[key]
    resampled, square = seen[_mask(run, row["mask_path"]).tobytes()]
    height, width = resampled.shape[1:]
    assert (height, width) == (
        round(mask.shape[1] * mm[1] / target_mm),
        round(mask.shape[0] * mm[0] / target_mm),
    )
    grid = (mm[2], mask.shape[1] * mm[1] / height, mask.shape[0] * mm[0] / width)
    rebuilt = _cut_out(square, resampled)
    pdc, phd = pseudo(resampled == OURS[key], rebuilt == OURS[key], grid)
    return {"dc": dice(a, b), "hd": distances(a, b, mm)[0], "pdc": pdc, "phd": phd}


def _cut_out(square: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """The image's part of the square, in whose middle the foreground's median row and column are."""
    size, (height, width) = square.shape[1], resampled.shape[1:]
    wide = np.pad(square, ((0, 0), (size, size), (size, size)))
    foreground = np.argwhere(resampled)
    rows, columns = (sorted(foreground[:, i])[(len(foreground) - 1) // 2] for i in (1, 2))
    top = size + (size - height) // 2 - (rows - height // 2)
    left = size + (size - width) // 2 - (columns - width // 2)
    return wide[:, top : top + height, left : left + width]


def _agreement(row: dict[str, str], masks: dict[tuple[str, ...], np.ndarray]) -> float:
    """Mean Dice with the masks of the other methods."""
    label = OURS[row["structure"]]
    own = masks[row["method"], row["subject"], row["phase"]] == label
    others = [
        mask == label
        for (method, *case), mask in masks.items()
        if case == [row["subject"], row["phase"]] and method != row["method"]
    ]
    return sum(dice(own, other) for other in others) / len(others)


def _failed(row: dict[str, Any]) -> bool:
    return row["dc"] < FAILED or math.isnan(row["hd"])


def _check_flags(found: Any, rows: Rows) -> None:
    cases: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        cases.setdefault((row["method"], row["subject"], row["phase"]), []).append(row)
    for method in {m for m, *_ in cases} | {None}:
        own = {case: of for case, of in cases.items() if method in (None, case[0])}
        flags = {
            case: next((k for k in ("erroneous", "suspicious") if k in {r["flag"] for r in of}), "")
            for case, of in own.items()
        }
        counts = Counter(flags.values())
        flagged, failures = found["flagged"], found["flags"]["case"]["failed"]
        flagged, failures = (
            x["all"] if method is None else x["methods"][method] for x in (flagged, failures)
        )
        assert flagged == {k: counts[k] for k in ("erroneous", "suspicious")} | {"n": len(own)}
        bad = {case for case, of in own.items() if any(_failed(r) for r in of)}
        raised = {case for case, flag in flags.items() if flag}
        assert (failures["n"], failures["failures"]) == (len(own), len(bad))
        assert failures["missed"] == len(bad - raised) and failures["false_alarms"] == len(raised - bad)
        assert failures["passed"] == len(own.keys() - bad - raised)
        assert failures["caught_suspicious"] == sum(flags[case] == "suspicious" for case in bad)
    low = {case: min(r["pdc"] for r in of) for case, of in cases.items()}
    far = {
        case: max(math.inf if math.isnan(r["phd"]) else r["phd"] for r in of) for case, of in cases.items()
    }
    bad = {case for case, of in cases.items() if any(_failed(r) for r in of)}
    curves = found["flag_curves"]
    for name, raised in (
        ("hd", lambda case, limit: low[case] < DC_LIMIT or far[case] > limit),
        ("dc", lambda case, limit: low[case] < limit or far[case] > HD_LIMIT_MM or math.isinf(far[case])),
    ):
        limits = curves[name]["limits"]
        for i, limit in list(enumerate(limits))[::7]:
            caught = {case for case in cases if raised(case, limit)}
            assert curves[name]["caught"][i] == len(caught & bad), (name, limit)
            assert curves[name]["false_alarms"][i] == len(caught - bad), (name, limit)


def _dropped(rows: Rows) -> set[tuple[str, ...]]:
    """Masks with a value of 0 or none in any structure, which the paper leaves out."""
    return {
        (r["method"], r["subject"], r["phase"])
        for r in rows
        if any(r[c] == 0 or math.isnan(r[c]) for c in ("dc", "hd", "pdc", "phd"))
    }


def _check_correlations(
    found: Any, rows: Rows, worst: dict[str, float], dropped: set[tuple[str, ...]]
) -> None:
    kept = [r for r in rows if (r["method"], r["subject"], r["phase"]) not in dropped]
    for measure, (real, pseudo_column) in {"dc": ("dc", "pdc"), "hd": ("hd", "phd")}.items():
        counted = [
            [worst[c] if math.isnan(r[c]) else r[c] for r in rows]
            if measure == "hd"
            else [r[c] for r in rows]
            for c in (real, pseudo_column)
        ]
        check_correlation(found[measure]["counted"], *counted)
        check_correlation(
            found[measure]["dropped"], [r[real] for r in kept], [r[pseudo_column] for r in kept]
        )
        assert found[measure]["dropped"]["n_dropped"] == len(rows) - len(kept)


def _check_ranking(found: Any, rows: Rows, worst: dict[str, float]) -> None:
    means = {}
    for method, told in found["methods"].items():
        own = [r for r in rows if r["method"] == method]
        pair = [sum(worst[c] if math.isnan(r[c]) else r[c] for r in own) / len(own) for c in ("hd", "phd")]
        assert [told["hd"], told["ours"]] == pytest.approx(pair), method
        assert told["n"] == len(own)
        means[method] = pair
    assert len(means) == 7
    expected = stats.spearmanr(*zip(*means.values(), strict=True)).statistic
    assert found["r_s"]["ours"]["r"] == pytest.approx(expected)


def _check_risk(found: Any, rows: Rows) -> None:
    confidence = {
        "pdc": [r["pdc"] for r in rows],
        "phd": [-math.inf if math.isnan(r["phd"]) else -r["phd"] for r in rows],
        "suspicion": [-r["suspicion"] for r in rows],
        "image": [-r["doubt"] for r in rows],
        "agreement": [r["agreement"] for r in rows],
        "rules": [-r["n_rules"] for r in rows],
    }
    losses = {"failure": [float(_failed(r)) for r in rows], "graded": [1 - r["dc"] for r in rows]}
    assert found["n"] == len(rows) and found["measures"] == list(confidence)
    for name, loss in losses.items():
        ideal = area_of_risk([-x for x in loss], loss)
        assert found[name]["mean_loss"] == pytest.approx(sum(loss) / len(loss))
        assert found[name]["ideal"] == pytest.approx(ideal)
        for measure, values in confidence.items():
            told, area = found[name]["measures"][measure], area_of_risk(values, loss)
            assert told["aurc"] == pytest.approx(area), (name, measure)
            assert told["excess"] == pytest.approx(area - ideal), (name, measure)
        difference = found[name]["measures"]["agreement"]["difference"]["mean"]
        areas = [found[name]["measures"][m]["aurc"] for m in ("agreement", "pdc")]
        assert difference == pytest.approx(areas[0] - areas[1])
