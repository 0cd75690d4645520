"""Cohorts that part from training and cohorts that don't: the test's level, and what is said."""

import numpy as np

from qcjax.quality.drift import Drift, drifts, in_words


def values(rng: np.random.Generator, n: int, shift: float = 0.0) -> dict[str, dict[str, list[float]]]:
    """Two images of each of n / 2 subjects that are hardly different."""
    of = np.repeat(rng.normal(0.9 - shift, 0.03, n // 2), 2) + rng.normal(0, 0.003, n)
    return {"predicted_dice": {"lv": of.tolist()}, "pdc": {"lv": rng.normal(0.9, 0.02, n).tolist()}}


def test_a_cohort_of_the_same_kind_seldom_parts_and_another_one_does() -> None:
    rng = np.random.default_rng(0)
    reference = values(rng, 200)
    alarms = [any(d.parts for d in drifts(values(rng, 200), values(rng, 60))) for _ in range(200)]
    assert np.mean(alarms) <= 0.03  # 1 % is promised
    found = drifts(reference, values(rng, 60, 0.05))
    assert [(d.measure, d.parts) for d in found] == [("predicted_dice", True), ("pdc", False)]
    (sentence,) = in_words(found)
    assert sentence.startswith("These images part from those that the model has learnt from")
    assert (
        "LV: the median predicted Dice is 0.8" in sentence and "of the subjects of training 0.9" in sentence
    )
    assert "pseudo Dice" not in sentence
    assert in_words(drifts(reference, reference))[0].startswith("These images look like those")


def test_few_images_and_unknown_measures_are_not_tested() -> None:
    rng = np.random.default_rng(1)
    assert drifts(values(rng, 40), values(rng, 8)) == []
    assert drifts({"volume_ml": {"lv": [1.0] * 20}}, values(rng, 40)) == []
    assert in_words([]) == []


def test_the_three_largest_are_told_in_a_measures_own_digits() -> None:
    found = [Drift("pdc", key, 0.8765, 0.9123, 0.5, 1e-4, True) for key in ("lv", "myo", "rv", "more")]
    (sentence,) = in_words([*found, Drift("volume_ml", "lv", 99.6, 120.4, 0.1, 0.5, False)])
    told = "the median pseudo Dice is 0.88, of the subjects of training 0.91 (p = 0.0001)."
    assert all(f"{key}: {told}" in sentence for key in ("LV", "MYO", "RV")) and "MORE" not in sentence
    assert Drift("volume_ml", "lv", 99.6, 120.4, 0.3, 1e-4, True).sentence.startswith(
        "LV: the median volume in ml is 100, of the subjects of training 120 "
    )


def test_ten_images_are_enough() -> None:
    rng = np.random.default_rng(1)
    assert len(drifts(values(rng, 40), values(rng, 10))) == 2
