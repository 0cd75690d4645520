"""The gate: per case, whether a refined segmenter's mask takes the place of its source's, by what quality is predicted.

Refinement helps where a segmenter is weak and harms a little where it isn't. Nothing here has seen the truth but
`oracle_gate`, which bounds what any gate could give.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

BOUND = 0.02  # of Dice: what a prediction errs by is no smaller


class Gate(NamedTuple):
    """What was decided for n cases."""

    accepted: Bool[np.ndarray, " n"]  # whether the refined mask is taken
    gain: Float[
        np.ndarray, " n"
    ]  # of predicted quality, mean over the structures; NaN where nothing is known


def gate(source: Float[np.ndarray, "n k"], refined: Float[np.ndarray, "n k"], bound: float = BOUND) -> Gate:
    """Refined masks where predicted quality gains more than a bound and no structure loses more; else the source's.

    Args:
      source, refined: predicted Dice of the masks of n cases and k structures, higher is better; 0 where a mask lacks
        a structure that it should have, NaN where nothing is known. A structure that is NaN in both masks says
        nothing; one that is NaN in one of them alone keeps the source's mask.
      bound: at least 0.

    Returns:
      (n,) decisions and (n,) mean gains over the structures known in both.

    Raises:
      ValueError: shapes that differ, or a bound below 0.
    """
    if source.shape != refined.shape or source.ndim != 2:
        raise ValueError(
            f"predictions of shapes {source.shape} and {refined.shape} found, expected both (cases, structures)"
        )
    if not bound >= 0:
        raise ValueError(f"bound: {bound} found, expected at least 0")
    change = refined - source
    known = np.isfinite(change)
    count = known.sum(1)
    total = np.where(known, change, 0).sum(1)
    gain = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    one_sided = (np.isnan(source) != np.isnan(refined)).any(1)
    loses = np.where(known, change, 0).min(1, initial=0) < -bound
    return Gate((count > 0) & (gain > bound) & ~loses & ~one_sided, gain)


def reason(source: Float[np.ndarray, " k"], refined: Float[np.ndarray, " k"], bound: float = BOUND) -> str:
    """Why the gate decides as it does for one case, in words; arguments as of `gate`, of one case."""
    (gain,) = gate(source[None], refined[None], bound).gain
    if np.isnan(gain):
        return "no quality is predicted of both masks"
    if (np.isnan(source) != np.isnan(refined)).any():
        return "one of the masks has a structure whose quality can't be compared"
    least = np.nanmin(refined - source)
    if least < -bound:
        return f"a structure's predicted Dice falls by {-least:.3f}, more than {bound:g}"
    return f"predicted Dice changes by {gain:+.3f}, {'more' if gain > bound else 'not more'} than {bound:g}"


def random_gate(accepted: Bool[np.ndarray, " n"], seed: int) -> Bool[np.ndarray, " n"]:
    """As many cases as a gate has accepted, drawn by chance: (n,). What a gate is worth is what it gains over this."""
    return np.random.default_rng(seed).permutation(accepted)


def oracle_gate(
    source: Float[np.ndarray, " n"], refined: Float[np.ndarray, " n"], smaller_is_better: bool = False
) -> Bool[np.ndarray, " n"]:
    """Whether the refined mask is truly the better one, (n,): no gate between the two can do better.

    Args:
      source, refined: a measure against the truth, (n,); NaN is worse than any number.
      smaller_is_better: of distances.
    """
    worst = np.inf if smaller_is_better else -np.inf
    a, b = (np.where(np.isnan(x), worst, x) for x in (source, refined))
    return b < a if smaller_is_better else b > a
