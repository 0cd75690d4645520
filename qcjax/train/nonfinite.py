"""A step whose loss or gradient isn't finite, left out of training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

SKIPPED = "skipped"  # metric: whether the step was left out

Update = Callable[..., tuple[Any, dict[str, Any]]]


def skip_nonfinite(update: Update, axis_name: str | None = None) -> Update:
    """The same update (state, ...) -> (state, metrics), but where loss or gradient isn't finite the state stays.

    The choice is made on the device, so that nothing waits for it. The metrics gain `skipped` (); those of a skipped
    step are as they were found.

    Args:
      axis_name: of the devices: they leave a batch out together.
    """

    def guarded(state: Any, *arguments: Any) -> tuple[Any, dict[str, Any]]:
        changed, metrics = update(state, *arguments)
        good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        if axis_name is not None:
            good = lax.pmin(good.astype(jnp.int32), axis_name) > 0
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), changed, state)
        return kept, metrics | {SKIPPED: ~good}

    return guarded
