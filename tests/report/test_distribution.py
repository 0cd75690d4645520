"""Counts in bins: by hand, what is far out, and what has no range."""

import numpy as np
import pytest

from qcjax.report.distribution import BINS, distribution, distributions


def test_counts_by_hand() -> None:
    found = distribution([0.0, 0.0, 1.0, 24.0, np.nan])
    assert found is not None
    assert (found.low, found.high, found.beyond) == (0.0, 24.0, 0)
    assert found.counts[0] == 2 and found.counts[1] == 1 and found.counts[-1] == 1 and sum(found.counts) == 4


def test_what_is_far_out_is_counted_and_does_not_squash_the_others() -> None:
    """Quartiles of about 25 and 76: what is above 278 lies beyond."""
    found = distribution([*range(101), 300.0, np.inf])
    assert found is not None
    assert (found.high, found.beyond) == (100.0, 2) and sum(found.counts) == 101


@pytest.mark.parametrize("values", [[3.0], [5e-324, 0.0], [1e9, 1e9 + 1e-7], [7e37], [7.0, 7.0, np.inf]])
def test_values_all_alike(values: list[float]) -> None:
    found = distribution(values)
    assert found is not None and found.high - found.low == pytest.approx(max(1.0, values[0]))
    assert sum(found.counts) == sum(np.isfinite(values)) and len(found.counts) == BINS


def test_nothing_finite_has_no_distribution() -> None:
    assert distribution([]) is None and distribution([np.inf, np.nan]) is None
    assert list(distributions([{"a": 1.0, "b": np.nan}, {"a": 2.0}])) == ["a"]
