"""What predictions are worth, by hand; and that a subject doesn't calibrate what judges it."""

import numpy as np
import pytest

from qcjax.quality.check import checked, row_of
from qcjax.quality.model import Estimate, KnownCase, QualityModel


def test_a_row_by_hand() -> None:
    estimates = [Estimate(0.9, 0.8, 5, 10), Estimate(0.8, 0.75, 6, 9), Estimate(), Estimate(0.9, 0.85, 5, 8)]
    row = row_of("lv", False, estimates, [0.85, 0.7, 0.9, 0.0], [10.0, 12.0, 3.0, None], ["a", "a", "b", "c"])
    assert (row.n, row.subjects) == (2, 1)
    assert row.error == pytest.approx(0.075) and row.bias == pytest.approx(0.075)
    assert row.covered == 0.5 and row.covered_hd == 0.5
    assert row.width == pytest.approx(0.075)
    assert row_of("lv", False, [Estimate()], [0.5], [3.0], ["a"]).n == 0


def drawn(n: int, shift: float = 0.0, seed: int = 0) -> list[KnownCase]:
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        x = rng.normal(2.5, 0.5)
        dice = 1 / (1 + np.exp(-x - rng.normal(0, 0.2) + shift))
        cases.append(KnownCase(f"s{i}", {"pdc": [float(x)]}, [float(dice)], [float(30 * (1 - dice))]))
    return cases


def test_a_shifted_site_is_wrong_as_it_is_and_right_when_calibrated_on_the_others() -> None:
    quality = QualityModel.fit(drawn(60), ["lv"])
    assert quality is not None
    before, after = checked(quality, drawn(20, 0.8, 1), "mask")
    assert (before.calibrated, after.calibrated) == (False, True)
    assert before.bias > 0.05 and abs(after.bias) < 0.02
    assert before.covered < 0.5 and after.covered > 0.8


def test_a_subject_does_not_calibrate_what_judges_it() -> None:
    """One subject far off: the others' predictions move with it, its own don't."""
    quality = QualityModel.fit(drawn(40), ["lv"])
    assert quality is not None
    cases = drawn(12, seed=3)
    cases[0] = KnownCase("s0", cases[0].signals, [0.05], [60.0])
    row = checked(quality, cases, "mask")[1]
    assert row.covered <= 11 / 12 and row.error > 0.85 / 12
    assert [r.calibrated for r in checked(quality, cases[:9], "mask")] == [
        False
    ]  # nine are needed without it
