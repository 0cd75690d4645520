"""Bounds that hold with a promised probability, from the residuals of cases whose truth is known.

Cases of one subject resemble each other, so subjects and not cases are what is exchangeable. The bound is hierarchical
conformal prediction (Lee, Barber & Willett, arXiv:2306.06342): each subject's cases share one weight, and one more
subject, the new one, has an infinite residual. It promises that a case of a new subject lies within the bound with at
least the wanted probability, if that subject is like those of the calibration; of another scanner or disease it
promises nothing.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import beta

LEAST_SUBJECTS = 9  # the fewest that bound nine in ten: the tenth is the new one


def upper_quantile(
    residuals: Float[np.ndarray, " n"], subjects: Sequence[Hashable], coverage: float = 0.9
) -> float:
    """The value that the residual of a case of a new subject stays at or below with probability `coverage`.

    The least q at which the weights of the residuals up to q reach `coverage`, where each of S subjects has
    1 / (S + 1), shared evenly by its cases, and the new subject's 1 / (S + 1) lies at infinity.

    Args:
      residuals: of n cases; the larger, the worse. NaN is refused, infinite is fine.
      subjects: whose each case is.
      coverage: within (0, 1).

    Returns:
      Infinite where so few subjects can't promise that much: below `coverage` / (1 − `coverage`) of them.

    Raises:
      ValueError: a coverage outside of (0, 1), NaN, or not one subject for each residual.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage: {coverage} found, expected a share between 0 and 1")
    if len(subjects) != len(residuals) or np.isnan(residuals).any():
        raise ValueError(
            f"{len(residuals)} residuals ({np.isnan(residuals).sum()} of them NaN) of {len(subjects)} cases found, "
            "expected a number for each case"
        )
    names: dict[Hashable, int] = {}
    of_case = np.array([names.setdefault(s, len(names)) for s in subjects], np.intp)
    if not names:
        return np.inf
    weights = 1 / np.bincount(of_case)[of_case] / (len(names) + 1)
    order = np.argsort(residuals, kind="stable")
    reached = np.cumsum(weights[order]) >= coverage - 1e-12
    return float(residuals[order][reached.argmax()]) if reached.any() else np.inf


def coverage_interval(n_subjects: int, coverage: float = 0.9, within: float = 0.95) -> tuple[float, float]:
    """Where the real coverage of a bound lies that was calibrated on so many subjects, with probability `within`.

    Over draws of the calibration subjects it has a Beta distribution (Vovk, 2012); this is its central interval.

    Raises:
      ValueError: too few subjects to promise `coverage`.
    """
    rank = int(np.ceil(coverage * (n_subjects + 1) - 1e-12))
    if rank > n_subjects:
        raise ValueError(
            f"{n_subjects} subjects found, expected at least {int(np.ceil(coverage / (1 - coverage) - 1e-12))} for a "
            f"coverage of {coverage:g}"
        )
    low, high = (
        float(beta.ppf(p, rank, n_subjects + 1 - rank)) for p in ((1 - within) / 2, (1 + within) / 2)
    )
    return low, high
