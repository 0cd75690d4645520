"""The table of the refinement experiment, worked out by hand from what its run has left."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import qcjax.refinement.export
from tests.experiments.by_hand import (
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
)

LABELS = {"lv": 1, "myo": 2, "rv": 3}
STAGES = ("segmenter", "selection", "control", "refined")
WEIGHTS = {"SA": 0.75, "LA": 0.25}
PAIRS = [("selection", "segmenter"), ("control", "segmenter"), ("refined", "segmenter"), ("refined", "selection"),
         ("refined", "control")]  # fmt: skip

Values = list[dict[str, Any]]
Seen = dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]]


@contextmanager
def recording(seen: Seen) -> Iterator[None]:
    """Keep what isn't left in files: each mask and its reconstruction on the networks' grid, (s, h, w)."""
    score = qcjax.refinement.export._score

    def scoring(
        arm: Any, stage: str, case: int, probabilities: np.ndarray, rebuilt: np.ndarray, *rest: Any
    ) -> Any:
        name = arm.data.unlabelled.cases[case].name
        key = (arm.networks.name, arm.data.view, stage, name)
        seen[key] = (np.argmax(probabilities, -1), np.argmax(rebuilt, -1))
        return score(arm, stage, case, probabilities, rebuilt, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qcjax.refinement.export, "_score", scoring)
        yield


def check(run: Path, seen: Seen, target_mm: float, seed: int) -> None:
    """Every value of `cases.csv` and what `results.json` makes of them."""
    rows = table(run / "cases.csv")
    first: dict[tuple[str, ...], str] = {}  # the stage that has predicted what later ones copy
    values: Values = []
    for row in rows:
        key = (row["segmenter"], row["view"], row["candidate"], row["subject"], row["phase"])
        stage = first.setdefault(key, row["stage"])
        name = f"{row['subject']}_{row['view']}_{row['phase']}"
        own = (row["segmenter"], row["view"], row["stage"], name)
        pair = seen.get(own) or seen[row["segmenter"], row["view"], stage, name]
        expected = _of_files(run, row) | _pseudo_measures(row, *pair, target_mm)
        for column, value in expected.items():
            assert number(row[column]) == pytest.approx(value, nan_ok=True, rel=1e-9, abs=1e-9), (
                *own,
                column,
            )
        _check_flag(row, expected)
        values.append(row | {column: number(row[column]) for column in expected})  # with the table's own ties
    check_tables(results(run), values, seed)


def check_tables(found: Any, values: Values, seed: int, draws: int = 2000) -> None:
    """What `results.json` makes of the rows, of which the test part has truth."""
    assert found["scored_part"] == "test"
    for segmenter in {row["segmenter"] for row in values}:
        of_segmenter = [v for v in values if v["segmenter"] == segmenter]
        _check_ablation(found["ablation"][segmenter], of_segmenter, seed, draws)
        _check_averages(found["average"][segmenter], of_segmenter)
        _check_differences(found["differences"][segmenter], of_segmenter, seed, draws)
        _check_qc(found["qc"][segmenter], of_segmenter)
        _check_clinical(found["clinical"][segmenter], of_segmenter)


def _of_files(run: Path, row: dict[str, str]) -> dict[str, float]:
    prediction, mm = read(run / row["prediction_path"])
    truth, true_mm = read(Path(row["label_path"]))
    assert mm == pytest.approx(true_mm)
    found = {}
    for key, label in LABELS.items():
        a, b = prediction == label, truth == label
        hd, hd95, assd = distances(a, b, mm)
        found |= {
            f"dc_{key}": dice(a, b),
            f"hd_{key}_mm": hd,
            f"hd95_{key}_mm": hd95,
            f"assd_{key}_mm": assd,
            f"volume_{key}_ml": millilitres(a, mm),
            f"truth_volume_{key}_ml": millilitres(b, mm),
        }
    return found


def _pseudo_measures(
    row: dict[str, str], mask: np.ndarray, rebuilt: np.ndarray, target_mm: float
) -> dict[str, float]:
    """In millimetres of the networks' grid: the image without its dark margins, in whole pixels."""
    image = nib.load(row["image_path"])
    x_mm, y_mm, slice_mm = (float(z) for z in image.header.get_zooms()[:3])
    bright = np.argwhere(np.asarray(image.dataobj) != 0)
    width, height = ((np.ptp(bright[:, i]) + 1) * step for i, step in ((0, x_mm), (1, y_mm)))
    mm = (slice_mm, height / round(height / target_mm), width / round(width / target_mm))
    found = {}
    for key, label in LABELS.items():
        dc, hd = pseudo(mask == label, rebuilt == label, mm)
        found |= {f"pdc_{key}": dc, f"phd_{key}_mm": hd}
    return found


def _check_flag(row: dict[str, str], expected: dict[str, float]) -> None:
    absent = any(math.isnan(expected[f"phd_{key}_mm"]) for key in LABELS)
    doubtful = any(expected[f"phd_{key}_mm"] > 50 or expected[f"pdc_{key}"] < 0.5 for key in LABELS)
    assert row["flag"] == ("erroneous" if absent else "suspicious" if doubtful else "")


def _of(values: Values, **wanted: str) -> Values:
    return [v for v in values if all(v[key] == value for key, value in wanted.items())]


def _column(values: Values, name: str) -> list[float]:
    return [v[name] for v in values]


def _check_ablation(found: Any, values: Values, seed: int, draws: int) -> None:
    for view in WEIGHTS:
        for stage in STAGES:
            cell, own = found[view][stage], _of(values, view=view, stage=stage)
            tested = _of(own, part="test")
            for part, scored in (("test", tested), ("validation", _of(own, part="validation"))):
                for measure, column in (("dc", "dc_rv"), ("hd", "hd_rv_mm")):
                    of_part = [cell["by_part"][part][measure]]
                    for told in of_part + ([cell[measure]] if part == "test" else []):
                        check_summary(told, _column(scored, column))
                        check_interval(
                            told, _column(scored, column), _column(scored, "subject"), seed, draws=draws
                        )
            for key in LABELS:
                check_summary(cell["structures"][key]["dc"], _column(tested, f"dc_{key}"))
                check_summary(cell["structures"][key]["hd"], _column(tested, f"hd_{key}_mm"))
            for group in ("disease", "vendor"):
                for name, told in cell[f"by_{group}"].items():
                    check_summary(told["dc"], _column(_of(tested, **{group: name}), "dc_rv"))
                    check_summary(told["hd"], _column(_of(tested, **{group: name}), "hd_rv_mm"))


def _mean(values: list[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


def _check_averages(found: Any, values: Values) -> None:
    for stage in STAGES:
        for part, cell in (("test", found[stage]), *found[stage]["by_part"].items()):
            own = _of(values, stage=stage, part=part)
            for measure, column in (("dc", "dc_rv"), ("hd", "hd_rv_mm")):
                expected = sum(w * _mean(_column(_of(own, view=view), column)) for view, w in WEIGHTS.items())
                told = math.nan if cell[measure] is None else cell[measure]
                assert told == pytest.approx(expected, nan_ok=True), (stage, part, measure)


def _check_differences(found: Any, values: Values, seed: int, draws: int) -> None:
    tested = _of(values, part="test")

    def by_case(stage: str, view: str, column: str) -> dict[tuple[str, ...], float]:
        return {(v["subject"], v["phase"]): v[column] for v in _of(tested, stage=stage, view=view)}

    def by_subject(stage: str, _: str, column: str) -> dict[tuple[str, ...], float]:
        """Both phases' mean, both views' average; undefined where any of the four is."""
        sums: dict[tuple[str, ...], float] = {}
        for v in _of(tested, stage=stage):
            sums[(v["subject"],)] = sums.get((v["subject"],), 0.0) + WEIGHTS[v["view"]] * v[column] / 2
        return sums

    ways: dict[str, Callable[..., dict[tuple[str, ...], float]]] = {v: by_case for v in WEIGHTS} | {
        "AVG": by_subject
    }
    for view, way in ways.items():
        assert set(found[view]) == {f"{b} - {a}" for b, a in PAIRS}
        for b, a in PAIRS:
            for measure, column in (("dc", "dc_rv"), ("hd", "hd_rv_mm")):
                first, second = way(a, view, column), way(b, view, column)
                change = [second[case] - first[case] for case in first]
                check_interval(
                    found[view][f"{b} - {a}"][measure], change, [case[0] for case in first], seed, draws=draws
                )


def _check_qc(found: Any, values: Values) -> None:
    for view in WEIGHTS:
        own = _of(values, view=view, stage="segmenter")
        for key in LABELS:
            for measure, pattern in (("dc", "dc_{}"), ("hd", "hd_{}_mm")):
                pair = [_column(own, start + pattern.format(key)) for start in ("p", "")]
                for kind in ("pearson", "spearman"):
                    check_correlation(found[view]["structures"][key][measure][kind], *pair, kind)
                    if key == "rv":
                        check_correlation(found[view][measure][kind], *pair, kind)


def _check_clinical(found: Any, values: Values) -> None:
    tested = _of(values, view="SA", part="test")
    for stage in STAGES:
        own = _of(tested, stage=stage)
        subjects = sorted({v["subject"] for v in own})
        for key in ("lv", "rv"):
            errors = []
            for subject in subjects:
                (ed,), (es,) = (_of(own, subject=subject, phase=phase) for phase in ("ED", "ES"))
                fractions = [
                    100 * (1 - es[column] / ed[column]) if ed[column] else math.nan
                    for column in (f"volume_{key}_ml", f"truth_volume_{key}_ml")
                ]
                errors.append(fractions[0] - fractions[1])
            _check_errors(found[stage]["ef"][key], errors, "points")
        for key in LABELS:
            for phase in ("ED", "ES"):
                of_phase = _of(own, phase=phase)
                errors = [v[f"volume_{key}_ml"] - v[f"truth_volume_{key}_ml"] for v in of_phase]
                _check_errors(found[stage]["volume"][key][phase], errors, "ml")


def _check_errors(found: Any, errors: list[float], unit: str) -> None:
    known = [e for e in errors if math.isfinite(e)]
    assert (found["n"], found["n_missing"]) == (len(known), len(errors) - len(known))
    expected = (_mean([abs(e) for e in known]), _mean(known)) if known else (None, None)
    for name, value in zip((f"mae_{unit}", f"bias_{unit}"), expected, strict=True):
        assert found[name] == (None if value is None else pytest.approx(value)), name
