"""The quality model of drawn cases: its file, absences, structures that few have, and what is decided."""

from pathlib import Path

import numpy as np
import pytest

from qcjax.quality.model import (
    FILE,
    Estimate,
    Expectation,
    KnownCase,
    QualityModel,
    decide,
    predicted_columns,
    worst_decision,
)

KEYS = ("lv", "rv")


def drawn(n: int, seed: int = 0) -> list[KnownCase]:
    """Subjects whose confidence, a logit, tells of their Dice; the second structure's is worse."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        quality = rng.normal([3.0, 2.0], 0.6)
        dice = 1 / (1 + np.exp(-quality - rng.normal(0, 0.2, 2)))
        signals = {"pdc": rng.normal(2, 1, 2).tolist(), "confidence": quality.tolist()}
        cases.append(KnownCase(f"s{i}", signals, dice.tolist(), (20 * (1 - dice)).tolist()))
    return cases


def signals(confidence: float) -> dict[str, np.ndarray]:
    return {"pdc": np.full(2, 2.0), "confidence": np.full(2, confidence)}


@pytest.fixture(scope="module")
def quality() -> QualityModel:
    found = QualityModel.fit(drawn(40), KEYS)
    assert found is not None
    return found


def test_estimates_follow_the_signals_and_bounds_lie_on_the_worse_side(quality: QualityModel) -> None:
    good, bad = (quality.estimates(signals(x), (False, False), "segmented")["lv"] for x in (4.0, 1.5))
    assert good.dice > bad.dice and good.hd_mm < bad.hd_mm
    for found in (good, bad):
        assert found.dice_low < found.dice < 1 and found.hd_high_mm > found.hd_mm > 0


def test_more_coverage_is_a_lower_bound_and_the_same_prediction(quality: QualityModel) -> None:
    less, more = (quality.estimates(signals(2.5), (False, False), "segmented", c)["rv"] for c in (0.6, 0.95))
    assert more.dice == less.dice
    assert more.dice_low < less.dice_low and more.hd_high_mm > less.hd_high_mm
    too_much = quality.estimates(signals(2.5), (False, False), "segmented", 0.99)["rv"]
    assert too_much.dice_low == 0 and too_much.hd_high_mm == np.inf  # 40 subjects can't promise that


def test_of_a_mask_alone_confidence_is_not_asked_for(quality: QualityModel) -> None:
    found = quality.estimates({"pdc": np.full(2, 2.0)}, (False, True), "mask")
    assert np.isfinite(found["lv"]).all()
    assert np.isnan(found["rv"]).all()  # absent


def test_it_goes_through_a_file_without_names(quality: QualityModel, tmp_path: Path) -> None:
    quality.save(tmp_path)
    assert "s17" not in (tmp_path / FILE).read_text()
    assert QualityModel.load(tmp_path) == quality
    (tmp_path / FILE).write_text('{"format": 9}')
    with pytest.raises(ValueError, match="quality.json: format 9 found, expected 1"):
        QualityModel.load(tmp_path)
    (tmp_path / FILE).write_text('{"format": 1, "structures": []}')
    with pytest.raises(ValueError, match="expected a quality model"):
        QualityModel.load(tmp_path)
    assert QualityModel.load(tmp_path / "elsewhere") is None


def test_few_subjects_have_no_model_and_a_rare_structure_no_predictor() -> None:
    cases = drawn(12)
    assert QualityModel.fit(cases[:8], KEYS) is None
    rare = [KnownCase(c.subject, c.signals, [c.dice[0], None], [c.hd_mm[0], None]) for c in cases]
    found = QualityModel.fit(rare, KEYS)
    assert found is not None
    of = found.estimates(signals(3.0), (False, False), "segmented")
    assert np.isfinite(of["lv"]).all() and np.isnan(of["rv"]).all()


def test_a_site_is_calibrated_for_one_kind_alone(quality: QualityModel) -> None:
    here = [KnownCase(c.subject, c.signals, (np.array(c.dice) - 0.1).tolist(), c.hd_mm) for c in drawn(9, 1)]
    found = quality.calibrated(here, "mask")
    before, after = (q.estimates(signals(3.0), (False, False), "mask")["lv"] for q in (quality, found))
    assert after.dice < before.dice - 0.03
    assert found.predictors["segmented"] == quality.predictors["segmented"]


def test_decisions() -> None:
    assert decide(Estimate(0.9, 0.81), False, 0.8) == "accept"
    assert decide(Estimate(0.9, 0.79), False, 0.8) == "review"
    assert decide(Estimate(0.79, 0.7), False, 0.8) == "reject"
    assert decide(Estimate(), True) == "reject"
    assert decide(Estimate(), False) == ""
    assert worst_decision(["accept", "", "review"]) == "review"
    assert worst_decision(["", ""]) == ""


def test_the_columns_of_a_structure_by_hand(quality: QualityModel) -> None:
    found = predicted_columns(Estimate(0.876543, 0.812345, 5.6789, 12.3456), lost=False)
    assert tuple(found.values()) == (0.8765, 0.8123, 5.68, 12.35, "accept")
    assert predicted_columns(Estimate(0.8, 0.7, 5.0, 9.0), lost=True)["decision"] == "reject"
    assert predicted_columns(Estimate(0.8, 0.7, 5.0, 9.0), False, accept=0.75)["decision"] == "review"
    assert tuple(predicted_columns(Estimate(), False).values()) == (None, None, None, None, "")
    assert predicted_columns(Estimate(0.9, 0.9, 1.0, 2.0), True, None)["decision"] == ""


def test_what_is_asked_of_predictions_is_checked(quality: QualityModel) -> None:
    assert Expectation(quality, accept=1.0, coverage=0.5).settings["coverage"] == 0.5
    with pytest.raises(ValueError, match="--accept: 1.5 found"):
        Expectation(quality, accept=1.5)
    with pytest.raises(ValueError, match="--coverage: 1.0 found"):
        Expectation(quality, coverage=1.0)
