"""Quarter turns by hand-made hearts."""

import numpy as np
import pytest

from qcjax.labels import CARDIAC, LV, MYO, RV
from qcjax.segmentation.turns import mean_direction, quarter_turns, rv_direction


def heart() -> np.ndarray:
    """The RV lies at lower x than the LV, as in ACDC's files."""
    mask = np.zeros((20, 16, 2), np.uint8)
    mask[10:14, 6:10], mask[3:6, 6:10] = LV.id, RV.id
    return mask


def test_the_direction_is_a_unit_vector_from_lv_to_rv() -> None:
    assert rv_direction(heart(), CARDIAC) == pytest.approx(-1)
    assert rv_direction(np.swapaxes(heart(), 0, 1), CARDIAC) == pytest.approx(-1j)
    assert rv_direction(np.where(heart() == RV.id, 0, heart()), CARDIAC) is None
    assert rv_direction(heart(), (LV, MYO)) is None


@pytest.mark.parametrize("k", range(4))
def test_turns_bring_it_back(k: int) -> None:
    turned = np.rot90(heart(), k, (0, 1))
    back = quarter_turns(rv_direction(turned, CARDIAC), -1 + 0j)
    assert np.array_equal(np.rot90(turned, back, (0, 1)), heart())


def test_unknown_directions_turn_nothing() -> None:
    assert quarter_turns(None, 1 + 0j) == quarter_turns(1 + 0j, None) == 0
    assert mean_direction([]) is None
    assert mean_direction([1, -1, 1j, -1j, None]) is None
    assert mean_direction([1, 1j, None]) == pytest.approx((1 + 1j) / 2**0.5)
