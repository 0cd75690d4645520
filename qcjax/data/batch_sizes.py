"""A few batch sizes for stacks of many lengths: little padding, and few compilations."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Integer

from qcjax.data.batches import Plan, in_batches


def batch_sizes(
    lengths: Sequence[int] | Integer[np.ndarray, " n"], largest: int, most: int
) -> tuple[int, ...]:
    """The sizes that leave the least padding where every stack goes in batches of its own, see `in_sizes`; ascending.

    Args:
      lengths: slices of each stack, at least 1.
      largest: of the sizes; a longer stack takes several batches.
      most: how many sizes there may be.
    """
    parts = [part for n in lengths for part in (*[largest] * (int(n) // largest), int(n) % largest) if part]
    if not parts:
        return ()
    *shorter, longest = sorted(set(parts))
    choices = combinations(shorter, min(most - 1, len(shorter)))
    return min(((*choice, longest) for choice in choices), key=lambda sizes: _padding(parts, sizes))


def _padding(parts: Sequence[int], sizes: Sequence[int]) -> int:
    return sum(sizes[bisect_left(sizes, part)] - part for part in parts)


def in_sizes(n: int, sizes: Sequence[int]) -> Iterator[Plan]:
    """The places 0 … n − 1 in order, a step at a time: as many as fit, in the smallest size that holds them.

    Args:
      sizes: ascending, as of `batch_sizes`.
    """
    for start in range(0, n, sizes[-1]):
        places = np.arange(start, min(start + sizes[-1], n))
        yield in_batches(places, sizes[bisect_left(sizes, len(places))])
