"""The scale on which shares such as Dice are predicted."""

import numpy as np
from jaxtyping import Float

MARGIN = 0.005  # of a share, so that 0 and 1 have a logit


def logit(share: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """log((s + m) / (1 − s + m)) with a margin of 0.005: even steps near 1, where the Dice of most masks is."""
    return np.log((share + MARGIN) / (1 - share + MARGIN))


def share_of(logits: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The inverse of `logit`, in [0, 1]."""
    share = 1 / (1 + np.exp(-logits))
    return np.clip(share * (1 + 2 * MARGIN) - MARGIN, 0, 1)
