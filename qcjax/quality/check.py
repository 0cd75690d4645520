"""What predictions of quality are worth on cases whose truth is known: before and after calibration on them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from qcjax.quality.conformal import LEAST_SUBJECTS
from qcjax.quality.model import COVERAGE, Estimate, Kind, KnownCase, QualityModel, values_of


class Row(NamedTuple):
    """One structure's predictions against its truth; NaN where nothing is known."""

    structure: str
    calibrated: bool  # on the other subjects, or not at all
    n: int  # masks
    subjects: int
    error: float  # mean absolute, of the predicted Dice
    bias: float  # of the predicted Dice
    covered: float  # share of masks whose Dice is at least the lower bound
    width: float  # mean, of the predicted Dice less its lower bound
    covered_hd: float  # share whose distance is at most the upper bound


Checked = list[Row]


def expected(
    quality: QualityModel, cases: Sequence[KnownCase], kind: Kind, coverage: float = COVERAGE
) -> list[dict[str, Estimate]]:
    """What a quality model expects of each case, by structure."""
    found = []
    for case in cases:
        signals = {name: values_of([values])[0] for name, values in case.signals.items()}
        found.append(quality.estimates(signals, [hd is None for hd in case.hd_mm], kind, coverage))
    return found


def row_of(
    structure: str,
    calibrated: bool,
    estimates: Sequence[Estimate],
    dice: Sequence[float | None],
    hd_mm: Sequence[float | None],
    subjects: Sequence[str],
) -> Row:
    """How predictions of one structure compare with its truth; masks or truths without it don't count."""
    rows = [
        (e, d, h, s)
        for e, d, h, s in zip(estimates, dice, hd_mm, subjects, strict=True)
        if d is not None and h is not None and np.isfinite(e.dice)
    ]
    if not rows:
        return Row(structure, calibrated, 0, 0, *(np.nan,) * 5)
    found = np.array([e for e, *_ in rows])
    true, distance = (np.array([row[i] for row in rows], np.float64) for i in (1, 2))
    error = found[:, 0] - true
    return Row(
        structure,
        calibrated,
        len(rows),
        len({s for *_, s in rows}),
        float(np.abs(error).mean()),
        float(error.mean()),
        float((true >= found[:, 1]).mean()),
        float((found[:, 0] - found[:, 1]).mean()),
        float((distance <= found[:, 3]).mean()),
    )


def rows_of(
    estimates: Sequence[Mapping[str, Estimate]],
    cases: Sequence[KnownCase],
    structures: Sequence[str],
    calibrated: bool = False,
) -> list[Row]:
    """What estimates of some cases are worth, a row for each structure."""
    return [
        row_of(
            key,
            calibrated,
            [e[key] for e in estimates],
            [case.dice[i] for case in cases],
            [case.hd_mm[i] for case in cases],
            [case.subject for case in cases],
        )
        for i, key in enumerate(structures)
    ]


def checked(quality: QualityModel, cases: Sequence[KnownCase], kind: Kind) -> Checked:
    """Two rows for each structure: as the model is, and calibrated on all other subjects for each subject in turn.

    The latter need one subject more than a calibration takes, else there are none.
    """
    subjects = list(dict.fromkeys(case.subject for case in cases))
    ways = [(False, expected(quality, cases, kind))]
    if len(subjects) > LEAST_SUBJECTS:
        ways.append((True, _left_out(quality, cases, kind, subjects)))
    by_way = [rows_of(estimates, cases, quality.structures, calibrated) for calibrated, estimates in ways]
    return [row for rows in zip(*by_way, strict=True) for row in rows]


def _left_out(
    quality: QualityModel, cases: Sequence[KnownCase], kind: Kind, subjects: Sequence[str]
) -> list[dict[str, Estimate]]:
    found: list[dict[str, Estimate]] = [{}] * len(cases)
    for subject in subjects:
        here = quality.calibrated([case for case in cases if case.subject != subject], kind)
        own = [i for i, case in enumerate(cases) if case.subject == subject]
        for i, estimate in zip(own, expected(here, [cases[i] for i in own], kind), strict=True):
            found[i] = estimate
    return found
