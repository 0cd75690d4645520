"""`python -m tests.smooth_experiment OPTIONS`: `experiments.mnms2` with activations that have no kink.

Where leaky ReLU's input is 0 but for rounding, its slope is 1 or 0.01 by chance, and a gradient of a network of a few
hundred weights jumps by a thousandth while the loss stays the same to its last digit. Without kinks what differs by
rounding before a step differs by rounding after it, so runs can be compared to that.
"""

import sys

import jax

from experiments import mnms2

SHARPNESS = 10.0


def smooth(x: jax.Array, slope: float = 0.01) -> jax.Array:
    """Leaky ReLU with its corner rounded off: differentiable everywhere."""
    return slope * x + (1 - slope) * jax.nn.softplus(SHARPNESS * x) / SHARPNESS


if __name__ == "__main__":
    jax.nn.leaky_relu = smooth
    sys.exit(mnms2.main())
