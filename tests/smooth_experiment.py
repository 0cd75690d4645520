"""`python -m tests.smooth_experiment OPTIONS`: `experiments.mnms2` with activations that have no kink.

Where leaky ReLU's input is 0 but for rounding, its slope is 1 or 0.01 by chance, and a gradient of a network of a few
hundred weights jumps by a thousandth while the loss stays the same to its last digit. Without kinks what differs by
rounding before a step differs by rounding after it, so runs can be compared to that. And whatever networks of a few
steps give, the first two cases are out of distribution, so that there is a refinement to compare.
"""

import sys
from typing import Any

import jax
import numpy as np

from experiments import mnms2
from qcjax.refinement.refine import Pool

SHARPNESS = 10.0


def smooth(x: jax.Array, slope: float = 0.01) -> jax.Array:
    """Leaky ReLU with its corner rounded off: differentiable everywhere."""
    return slope * x + (1 - slope) * jax.nn.softplus(SHARPNESS * x) / SHARPNESS


def detect(self: Pool, *args: Any) -> tuple[np.ndarray, Any]:
    """The thresholds as they are; out of distribution are the first two."""
    found, thresholds = DETECT(self, *args)
    return np.arange(len(found)) < 2, thresholds


DETECT = Pool.detect

if __name__ == "__main__":
    jax.nn.leaky_relu = smooth
    Pool.detect = detect  # type: ignore[method-assign]
    sys.exit(mnms2.main())
