import math

import numpy as np
import pytest

from qcjax.metrics.clinical import body_surface_m2, ejection_fraction, myocardial_mass_g, volume_ml


def test_volume_counts_voxels_in_millilitres():
    mask = np.zeros((10, 20, 5), bool)
    mask[2:7, 4:14, 1:4] = True  # 150 voxels
    assert volume_ml(mask, (1.25, 1.25, 8.0)) == pytest.approx(150 * 12.5 / 1000)
    assert volume_ml(np.zeros((2, 2, 2), bool), (1.0, 1.0, 1.0)) == 0


def test_volume_of_a_ball():
    mm = np.indices((64, 64, 64)) - 31.5
    ball = np.linalg.norm(mm * np.array([1.0, 1.2, 0.8]).reshape(3, 1, 1, 1), axis=0) < 20
    assert volume_ml(ball, (1.0, 1.2, 0.8)) == pytest.approx(4 / 3 * math.pi * 20**3 / 1000, rel=0.01)


def test_ejection_fraction_is_in_percent():
    assert ejection_fraction(150.0, 60.0) == pytest.approx(60)
    assert ejection_fraction(100.0, 120.0) == pytest.approx(-20)
    assert math.isnan(ejection_fraction(0.0, 0.0))
    assert math.isnan(ejection_fraction(0.0, 10.0))


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="esv_ml"):
        ejection_fraction(100.0, -1.0)
    with pytest.raises(ValueError, match="expected one for each of 2 axes"):
        volume_ml(np.ones((2, 2), bool), (1.0, 1.0, 1.0))


def test_mass_and_body_surface_by_hand() -> None:
    assert myocardial_mass_g(100.0) == pytest.approx(105) and myocardial_mass_g(0.0) == 0
    assert body_surface_m2(180.0, 80.0) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("height", "weight", "words"), [(1.8, 80.0, "height_cm: 1.8"), (180.0, 80000.0, "weight_kg: 80000")]
)
def test_other_units_are_refused(height: float, weight: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        body_surface_m2(height, weight)


def test_whoever_is_as_small_or_large_as_the_limits_has_a_body_surface() -> None:
    assert body_surface_m2(30.0, 1.0) == pytest.approx((30 / 3600) ** 0.5)
    assert body_surface_m2(250.0, 400.0) == pytest.approx((250 * 400 / 3600) ** 0.5)
    for height, weight in ((29.9, 80.0), (250.1, 80.0), (180.0, 0.9), (180.0, 400.1)):
        with pytest.raises(ValueError, match="expected"):
            body_surface_m2(height, weight)


def test_a_negative_volume_has_no_mass() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        myocardial_mass_g(-1.0)
