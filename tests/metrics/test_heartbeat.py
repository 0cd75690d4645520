"""A ventricle from its two volumes: by hand, what is absent, and how far models agree."""

import math

import numpy as np
import pytest
from scipy import stats

from qcjax.metrics.heartbeat import model_interval, ventricle


def test_a_ventricle_by_hand() -> None:
    found = ventricle(150.0, 60.0, 120.0)
    assert found.stroke_volume_ml == 90.0 and found.ejection_fraction.value == pytest.approx(60.0)
    assert found.mass_g == pytest.approx(126.0)
    assert math.isnan(found.edv_ml.low) and math.isnan(ventricle(150.0, 60.0).mass_g)


@pytest.mark.parametrize(("edv", "esv"), [(0.0, 60.0), (150.0, 0.0), (0.0, 0.0)])
def test_what_is_absent_has_no_volume_and_no_ejection_fraction(edv: float, esv: float) -> None:
    found = ventricle(edv, esv, 0.0, [edv, edv + 1], [esv, esv + 1])
    assert math.isnan(found.ejection_fraction.value) and math.isnan(found.stroke_volume_ml)
    assert math.isnan(found.mass_g)
    assert math.isnan(found.edv_ml.value) == (edv == 0) and math.isnan(found.esv_ml.value) == (esv == 0)


def test_the_interval_by_hand() -> None:
    """Two models, 98 and 102: s = 2 √2, t of one degree of freedom 12.706, √(1 + 1/2)."""
    found = model_interval(100.0, [98.0, 102.0])
    half = 12.7062 * 2 * math.sqrt(2) * math.sqrt(1.5)
    assert (found.low, found.high) == (
        pytest.approx(100 - half, rel=1e-4),
        pytest.approx(100 + half, rel=1e-4),
    )
    assert model_interval(1.0, [0.0, 2.0], 0.0).low == 0.0
    for of_models in ([], [99.0], [99.0, math.nan]):
        assert math.isnan(model_interval(100.0, of_models).low)


def test_the_interval_holds_a_further_model_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(0)
    held, n = 0, 4000
    for _ in range(n):
        *models, further = rng.normal(100, 5, 5)
        found = model_interval(float(np.mean(models)), models)
        held += found.low <= further <= found.high
    low, high = stats.binom.ppf((1e-4, 1 - 1e-4), n, 0.95)
    assert low <= held <= high
