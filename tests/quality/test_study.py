"""The study on drawn cases: what is held out isn't seen, rankings by hand, calibration of a shifted site."""

import numpy as np
import pytest

from qcjax.metrics.selective import augrc, excess_aurc
from qcjax.metrics.statistics import bootstrap_weights
from qcjax.quality.check import rows_of
from qcjax.quality.model import KnownCase, QualityModel, values_of
from qcjax.quality.study import (
    calibration_draws,
    combined,
    dealt,
    held_out_estimates,
    rankings,
    ridge,
)


def drawn(n: int, shift: float = 0.0, seed: int = 0) -> list[KnownCase]:
    """Two masks a subject; `pdc` and `confidence` each tell half of what there is to know."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(2 * n):
        a, b = rng.normal(0, 0.6, (2, 2))
        dice = 1 / (1 + np.exp(-2 - a - b + shift - rng.normal(0, 0.1, 2)))
        signals = {"pdc": a.tolist(), "confidence": b.tolist()}
        cases.append(KnownCase(f"s{i // 2}", signals, dice.tolist(), (30 * (1 - dice)).tolist()))
    return cases


def test_groups_are_dealt_whole_and_every_row_once() -> None:
    subjects = list("aabbccddee")
    folds = dealt(subjects, 3)
    assert len(folds) == 3 and (np.sum(folds, axis=0) == 1).all()
    for out in folds:
        assert len({s for s, o in zip(subjects, out, strict=True) if o}) == out.sum() / 2
    assert len(dealt(["x", "y", "x", "z"])) == 3


def test_what_combines_signals_beats_each_and_has_not_seen_whom_it_judges() -> None:
    cases = drawn(40)
    subjects, dice = [c.subject for c in cases], values_of([c.dice for c in cases])
    folds = dealt(subjects, 5)
    scores = {name: values_of([c.signals[name] for c in cases]) for name in ("pdc", "confidence")}
    scores["both"] = combined(cases, ("pdc", "confidence"), folds, ridge)
    found = rankings(scores, dice, subjects, "confidence")
    assert found["both"].excess < 0.3 * min(found["pdc"].excess, found["confidence"].excess)
    assert found["both"].difference_high < 0
    assert found["confidence"].difference == 0
    seen: list[set[object]] = []

    def fit(x, y, known):  # type: ignore[no-untyped-def]
        seen.append(set(known))
        return lambda x: x[:, 0]

    combined(cases, ("pdc",), folds, fit)
    for out, known in zip(folds, seen, strict=False):
        assert not known & {s for s, o in zip(subjects, out, strict=True) if o}


def test_a_perfect_ranking_has_no_excess_and_a_missing_score_is_the_worst() -> None:
    dice = np.array([[0.9], [0.5], [0.7], [0.8]])
    perfect = rankings(
        {"dice": dice, "part": np.array([[0.9], [np.nan], [0.7], [0.8]])}, dice, list("abcd"), "dice"
    )
    assert perfect["dice"].excess == pytest.approx(0)
    assert perfect["part"].excess == pytest.approx(0)
    # accepted in the order .9, .8, .7, .5: losses .1, .3, .6, 1.1 of 4 results, averaged over 4 coverages
    assert perfect["dice"].augrc == pytest.approx((0.1 + 0.3 + 0.6 + 1.1) / 4 / 4)
    assert augrc(dice[:, 0], 1 - dice[:, 0]) == pytest.approx(perfect["dice"].augrc)


def test_intervals_are_those_of_resampled_subjects() -> None:
    rng = np.random.default_rng(3)
    subjects = list("aabcccdd")
    dice, score = rng.uniform(0.3, 1, (2, 8, 1))
    found = rankings({"m": score, "ideal": dice}, dice, subjects, "ideal")["m"]
    members = np.array([["abcd".index(s) == i for s in subjects] for i in range(4)])
    excess = []
    for weights in bootstrap_weights(4, 1000, 0).astype(int):
        times = (weights[:, None] * members).sum(0)
        excess.append(excess_aurc(np.repeat(score[:, 0], times), 1 - np.repeat(dice[:, 0], times)))
    expected = np.quantile(excess, (0.025, 0.975))
    np.testing.assert_allclose((found.low, found.high), expected)
    np.testing.assert_allclose(
        (found.difference_low, found.difference_high), expected
    )  # the ideal has no excess


def test_bounds_cover_and_a_site_is_calibrated() -> None:
    cases, structures = drawn(50), ("lv", "rv")
    estimates = held_out_estimates(cases, structures, "segmented", dealt([c.subject for c in cases], 4))
    for row in rows_of(estimates, cases, structures):
        assert row.n == 100 and row.subjects == 50
        assert 0.82 < row.covered < 0.98 and row.error < 0.02
    model = QualityModel.fit(cases, structures)
    assert model is not None
    site = drawn(25, 0.8, 1)
    draws = calibration_draws(model, site, "segmented", 9, 3)
    assert [row.subjects for row in draws[0]] == [16, 16]
    covered = np.mean([row.covered for rows in draws for row in rows])
    as_it_is = np.mean([r.covered for r in calibration_rows(model, site)])
    assert as_it_is < 0.3 and covered > 0.85


def calibration_rows(model: QualityModel, site: list[KnownCase]):  # type: ignore[no-untyped-def]
    from qcjax.quality.check import expected

    return rows_of(expected(model, site, "segmented"), site, model.structures)
