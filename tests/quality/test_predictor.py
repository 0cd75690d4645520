"""Predicted quality on drawn cohorts whose truth is known: bias, coverage, another site, absences."""

import json

import numpy as np
import pytest

from qcjax.quality.predictor import QualityPredictor
from qcjax.quality.scales import logit


def cohort(rng: np.random.Generator, subjects: int, shift: float = 0.0):
    """Two masks a subject: one signal that tells of Dice, more loosely where quality is low; and one of noise."""
    of_case = np.repeat(np.arange(subjects), 2)
    quality = rng.normal(2, 0.8, subjects)[of_case] + rng.normal(0, 0.3, 2 * subjects)  # a logit
    noise = rng.normal(0, 1, 2 * subjects) * np.where(quality < 2, 0.6, 0.2)
    dice = 1 / (1 + np.exp(-(quality + noise - shift)))
    hd_mm = np.exp(3 - 0.5 * (quality + noise - shift) + rng.normal(0, 0.3, 2 * subjects))
    signals = {"agreement": quality, "noise": rng.normal(size=2 * subjects)}
    return signals, dice, hd_mm, [str(s) for s in of_case]


def test_coverage_and_error_of_new_subjects() -> None:
    rng = np.random.default_rng(0)
    in_dice, in_hd, errors = [], [], []
    for _ in range(12):
        model = QualityPredictor.fit(*cohort(rng, 80))
        signals, dice, hd_mm, _ = cohort(rng, 300)
        found = model.predict(signals)
        in_dice.append(np.mean(dice >= found.dice_low))
        in_hd.append(np.mean(hd_mm <= found.hd_high_mm))
        errors.append(np.mean(np.abs(dice - found.dice)))
        assert (found.dice_low <= found.dice).mean() > 0.99
    assert 0.88 < np.mean(in_dice) < 0.93 and 0.88 < np.mean(in_hd) < 0.93
    assert np.mean(errors) < 0.06


def test_bounds_are_wider_where_less_is_known() -> None:
    model = QualityPredictor.fit(*cohort(np.random.default_rng(1), 200))
    found = model.predict({"agreement": np.array([1.0, 3.0]), "noise": np.zeros(2)})
    widths = logit(found.dice) - logit(found.dice_low)
    assert widths[0] > 1.5 * widths[1]


def test_a_site_that_draws_otherwise_is_calibrated_by_nine_of_its_subjects() -> None:
    rng = np.random.default_rng(2)
    before, after = [], []
    model = QualityPredictor.fit(*cohort(rng, 80))
    for _ in range(20):
        here = model.calibrated(*cohort(rng, 9, shift=0.8))
        signals, dice, _, _ = cohort(rng, 200, shift=0.8)
        before.append(np.mean(dice >= model.predict(signals).dice_low))
        after.append(np.mean(dice >= here.predict(signals).dice_low))
    assert np.mean(before) < 0.7 and 0.87 < np.mean(after) < 0.97


def test_absences_have_no_prediction_and_do_not_teach() -> None:
    signals, dice, hd_mm, subjects = cohort(np.random.default_rng(4), 40)
    lost = {k: np.append(v, 50.0) for k, v in signals.items()}
    with_one = QualityPredictor.fit(lost, np.append(dice, 0.0), np.append(hd_mm, np.nan), [*subjects, "lost"])
    assert with_one == QualityPredictor.fit(signals, dice, hd_mm, subjects)
    found = with_one.predict({k: v[:3] for k, v in signals.items()}, [True, False, False])
    assert np.isnan([x[0] for x in found]).all() and np.isfinite([x[1] for x in found]).all()


def test_it_goes_through_a_file() -> None:
    signals, dice, hd_mm, subjects = cohort(np.random.default_rng(5), 30)
    model = QualityPredictor.fit(signals, dice, hd_mm, subjects)
    assert QualityPredictor.from_json(json.loads(json.dumps(model.to_json()))) == model


def test_what_is_refused() -> None:
    signals, dice, hd_mm, subjects = cohort(np.random.default_rng(6), 8)
    with pytest.raises(ValueError, match="8 subjects with masks of known quality found, expected at least 9"):
        QualityPredictor.fit(signals, dice, hd_mm, subjects)
    with pytest.raises(ValueError, match="expected values in \\[0, 1\\]"):
        QualityPredictor.fit(signals, dice + 1, hd_mm, subjects)
    with pytest.raises(ValueError, match="expected as many of each"):
        QualityPredictor.fit(signals, dice[:-1], hd_mm, subjects)
    model = QualityPredictor.fit(*cohort(np.random.default_rng(7), 20))
    with pytest.raises(ValueError, match="noise not found"):
        model.predict({"agreement": np.zeros(1)})


def test_a_distance_below_a_millimetre_can_be_predicted() -> None:
    signals, dice, hd_mm, subjects = cohort(np.random.default_rng(7), 20)
    model = QualityPredictor.fit(signals, dice, np.full_like(hd_mm, 0.2), subjects)
    found = model.predict(signals)
    np.testing.assert_allclose((found.hd_mm, found.hd_high_mm), 0.2, atol=1e-6)
