"""Batch sizes for stacks of many lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcjax.data.batch_sizes import batch_sizes, in_sizes


def padding(lengths, sizes):
    return sum(len(w) - w.sum() for n in lengths for plan in in_sizes(n, sizes) for w in plan.weight)


@pytest.mark.parametrize(
    ("lengths", "most", "sizes"),
    [
        ([1, 1, 1], 3, (1,)),
        ([9, 10, 9, 12], 3, (9, 10, 12)),
        ([9, 9, 10, 12], 2, (10, 12)),  # 9 in 10 costs two slices; (9, 12) as many
        ([9, 10, 12], 1, (12,)),
        ([7, 8, 15, 16, 16], 2, (8, 16)),
        ([20, 10], 3, (10, 20)),
        ([50], 3, (10, 20)),  # two whole batches and the rest
        ([40], 3, (20,)),
        ([], 3, ()),
    ],
)
def test_the_least_padding_with_few_sizes(lengths, most, sizes):
    found = batch_sizes(np.array(lengths, int), 20, most)
    assert padding(lengths, found) == padding(lengths, sizes) and len(found) == len(sizes)
    assert set(found[-1:]) == set(sizes[-1:])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 3))
def test_every_slice_goes_once_and_more_sizes_pad_no_more(lengths, most):
    sizes = batch_sizes(lengths, 12, most)
    assert len(sizes) <= most and max(sizes) <= 12 and list(sizes) == sorted(set(sizes))
    for n in lengths:
        plans = list(in_sizes(n, sizes))
        taken = [i for p in plans for i in p.indices[p.weight > 0].tolist()]
        assert taken == list(range(n))
        assert {p.indices.shape for p in plans} <= {(1, size) for size in sizes}
    assert padding(lengths, batch_sizes(lengths, 12, most + 1)) <= padding(lengths, sizes)
    assert padding(lengths, sizes) <= padding(lengths, (max(sizes),))


def test_two_sizes_are_the_best_two():
    lengths = [3, 5, 5, 6, 9, 11]
    every = [(a, 11) for a in range(1, 11)]
    assert padding(lengths, batch_sizes(lengths, 20, 2)) == min(padding(lengths, s) for s in every)
