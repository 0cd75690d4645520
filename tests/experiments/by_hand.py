"""The numbers of the tables from the files of a run, by other means than the project's own: nothing of it is used here.

Arrays are as they are stored, (x, y, slices), with the millimetres of their headers.
"""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.spatial.distance import cdist

EXACT = {"rel": 1e-9, "abs": 1e-9}  # of double precision
SINGLE = {"rel": 1e-4, "abs": 1e-6}  # of what is kept or summed in single precision


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The stored label map and its voxels' size in mm."""
    image = nib.load(path)
    return np.asarray(image.dataobj), np.array(image.header.get_zooms()[:3], float)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results(run: Path) -> Any:
    return json.loads((run / "results.json").read_text())


def number(text: str) -> float:
    return float(text) if text else math.nan


def dice(a: np.ndarray, b: np.ndarray, neither: float = 1.0) -> float:
    total = a.sum() + b.sum()
    return 2 * (a & b).sum() / total if total else neither


def surface(mask: np.ndarray) -> np.ndarray:
    """Voxels with a neighbour outside, across every axis that has more than one voxel."""
    cross = ndimage.generate_binary_structure(mask.ndim, 1)
    for axis, n in enumerate(mask.shape):
        if n == 1:
            cross = cross & (np.indices(cross.shape)[axis] == 1)
    return mask & ~ndimage.binary_erosion(mask, cross, border_value=0)


def distances(a: np.ndarray, b: np.ndarray, mm: Sequence[float]) -> tuple[float, float, float]:
    """Hausdorff distance, the larger 95th percentile, the average surface distance."""
    if not a.any() and not b.any():
        return 0.0, 0.0, 0.0
    if not a.any() or not b.any():
        return math.nan, math.nan, math.nan
    first, second = (np.argwhere(surface(m)) * np.asarray(mm) for m in (a, b))
    there, back = (_nearest(p, q) for p, q in ((first, second), (second, first)))
    return (
        max(there.max(), back.max()),
        max(np.percentile(there, 95), np.percentile(back, 95)),
        np.concatenate([there, back]).mean(),
    )


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.concatenate([cdist(points[i : i + 500], others).min(1) for i in range(0, len(points), 500)])


def millilitres(mask: np.ndarray, mm: Sequence[float]) -> float:
    return sum(1 for _ in np.argwhere(mask)) * mm[0] * mm[1] * mm[2] / 1000


def pseudo(a: np.ndarray, b: np.ndarray, mm: Sequence[float]) -> tuple[float, float]:
    """Dice and Hausdorff distance of a mask and its reconstruction; 0 and undefined where one of them is empty."""
    return (dice(a, b), distances(a, b, mm)[0]) if a.any() and b.any() else (0.0, math.nan)


def check_summary(found: dict[str, Any], values: Iterable[float], exact: Any = EXACT) -> None:
    """Mean, standard deviation, how many there are and how many are undefined."""
    every = list(values)
    known = [v for v in every if math.isfinite(v)]
    mean = sum(known) / len(known) if known else None
    spread = math.sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1)) if len(known) > 1 else None
    # rounding of the values moves their spread by as much, however small that is
    within = exact | {"abs": 2 * exact["rel"] * max((abs(v) for v in known), default=0.0) + exact["abs"]}
    for name, expected in (("mean", mean), ("sd", spread)):
        assert found[name] == (None if expected is None else pytest.approx(expected, **within)), name
    assert (found["n"], found["n_missing"]) == (len(known), len(every) - len(known))


def check_interval(
    found: dict[str, Any],
    differences: Sequence[float],
    subjects: Sequence[str],
    seed: int,
    exact: Any = EXACT,
    draws: int = 2000,
) -> None:
    """Mean and the middle 95 % of the means of so many cohorts of subjects, drawn again."""
    pairs = [(d, s) for d, s in zip(differences, subjects, strict=True) if math.isfinite(d)]
    assert (found["n"], found.get("n_missing", 0)) == (len(pairs), len(differences) - len(pairs))
    names = sorted({s for _, s in pairs})
    if not pairs:
        assert found["mean"] is None
        return
    of_subject = [[d for d, s in pairs if s == name] for name in names]
    assert found["mean"] == pytest.approx(sum(d for d, _ in pairs) / len(pairs), **exact)
    if len(names) == 1:
        assert found["low"] is None and found["high"] is None
        return
    means = []
    for draw in np.random.default_rng(seed).integers(len(names), size=(draws, len(names))):
        drawn = [d for i in draw for d in of_subject[i]]
        means.append(sum(drawn) / len(drawn))
    assert [found["low"], found["high"]] == pytest.approx(list(np.percentile(means, (2.5, 97.5))), **exact)


def check_correlation(
    found: dict[str, Any], a: Sequence[float], b: Sequence[float], kind: str = "pearson"
) -> None:
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if math.isfinite(x) and math.isfinite(y)]
    assert found["n"] == len(pairs)
    x, y = (list(side) for side in zip(*pairs, strict=True)) if pairs else ([], [])
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert found["r"] is None
        return
    if kind == "spearman":
        x, y = stats.rankdata(x), stats.rankdata(y)
    assert found["r"] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-6, abs=1e-9)


def area_of_risk(confidence: Sequence[float], loss: Sequence[float]) -> float:
    """Mean over all coverages of the mean loss of the most confident; equals are exchangeable."""
    expected = [
        np.mean([cost for other, cost in zip(confidence, loss, strict=True) if other == own])
        for own in confidence
    ]
    order = sorted(range(len(confidence)), key=lambda i: -confidence[i])
    total, risks = 0.0, []
    for count, i in enumerate(order, start=1):
        total += expected[i]
        risks.append(total / count)
    return float(np.mean(risks))


def thirds(truth: np.ndarray) -> dict[str, np.ndarray]:
    """EMIDEC's slices with myocardium (x, y, slices) in three parts, the apex at the smaller end."""
    slices = [k for k in range(truth.shape[2]) if (truth[:, :, k] >= 2).any()]
    n = len(slices)
    ends = {0: n // 3, 1: n // 3, 2: n // 3 + 1}[n % 3]
    low, middle, high = slices[:ends], slices[ends : n - ends], slices[n - ends :]
    sizes = [sum((truth[:, :, k] > 0).sum() for k in part) for part in (low, high)]
    if sizes[1] < 0.9 * sizes[0]:
        low, high = high, low
    assert all(b == a + 1 for part in (low, middle, high) for a, b in pairwise(part))
    return {"apical": np.array(low), "mid": np.array(middle), "basal": np.array(high)}
