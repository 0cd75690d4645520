"""Cases whose slices lie one after another in one array, and how to find a case in it."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, Real, Shaped

from qcjax.data.preprocess import Geometry


class Stacked:
    """What cohorts of prepared cases share: slices of a case lie together, cases in order."""

    geometries: tuple[Geometry, ...]  # one per case

    @property
    def first(self) -> Int[np.ndarray, " bounds"]:
        """Where each case's slices begin, and where the last one's end: (cases + 1,)."""
        return np.cumsum([0, *(g.stack_shape[0] for g in self.geometries)])

    def split(self, stack: Shaped[np.ndarray, "n *rest"]) -> Iterator[Shaped[np.ndarray, "_ *rest"]]:
        """An array over all slices, (n, ...), case by case."""
        first = self.first
        return (stack[a:b] for a, b in zip(first[:-1], first[1:], strict=True))

    def sum_by_case(self, per_slice: Real[np.ndarray, "n *rest"]) -> Real[np.ndarray, "cases *rest"]:
        """Values of all slices, (n, ...), summed over each case's: (cases, ...)."""
        return np.add.reduceat(per_slice, self.first[:-1])

    def mean_by_case(self, per_slice: Real[np.ndarray, " n"]) -> Float[np.ndarray, " cases"]:
        """A value of every slice, (n,), averaged over each case's: (cases,)."""
        return self.sum_by_case(per_slice) / np.diff(self.first)
