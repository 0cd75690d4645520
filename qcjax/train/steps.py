"""Steps one after another: their metrics, what isn't finite among them, and where a stop cuts them short."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from qcjax.runtime import stops
from qcjax.runtime.devices import StopAllReduce
from qcjax.runtime.stops import Stopped
from qcjax.train.nonfinite import SKIPPED

Metrics = dict[str, np.ndarray]  # of steps, one after another: (steps, ...) each
WATCHED = ("loss", "grad_norm")  # what must be finite


class Taken(NamedTuple):
    """The steps of an epoch, taken."""

    state: Any  # after them
    metrics: Metrics  # of all of them
    means: dict[str, Any]  # of each metric, as `train_<name>`; over the steps that weren't left out

    @property
    def steps(self) -> int:
        """How many they are."""
        return len(next(iter(self.metrics.values())))


class CutShort(Stopped):
    """A stop between two steps, with what is worth keeping."""

    def __init__(self, signum: int, state: Any, metrics: Metrics, steps: int) -> None:
        super().__init__(signum)
        self.state, self.metrics, self.steps = state, metrics, steps


class NotFinite(FloatingPointError):
    """A step whose loss or gradient isn't finite."""

    def __init__(self, step: int, values: dict[str, float]) -> None:
        self.step, self.values = step, values
        super().__init__(f"step {step}: " + ", ".join(f"{k} {v}" for k, v in values.items()))


def run_steps(
    step: Callable[..., Any],
    state: Any,
    batches: Iterable[tuple[Any, ...]],
    begun: Metrics | None = None,
) -> Taken:
    """Donated steps one after another; metrics are fetched one step late, so that the device never waits.

    Args:
      step: (state, *batch) -> (state, metrics).
      begun: metrics of the first steps, which were taken before a stop; the state is the one after them.

    Returns the state, the metrics of all steps and their means; where steps may be left out
    (`nonfinite.skip_nonfinite`), the means over the others, and `skipped_batches`, how many they were.

    Raises:
      NotFinite: a loss or a gradient that isn't finite, unless that step was left out.
      CutShort: a stop was asked for; this comes after the running step. One that comes during the last step is left to
        the caller (`stops.check`), who has all that is to be kept then.
    """
    done = 0 if begun is None else len(next(iter(begun.values())))
    history: list[Any] = [] if begun is None else [{k: v[i] for k, v in begun.items()} for i in range(done)]
    any_stop = StopAllReduce()
    with stops.postponed():
        for number, arguments in enumerate(batches):
            if number < done:
                continue
            signum = any_stop.reduce(stops.asked(), state)
            if signum is not None:
                if len(history) > done:
                    _check(number - 1, history[-1])  # what is kept must be worth going on from
                stops.begin_stopping()
                raise CutShort(signum, state, _stacked(history), number)
            state, metrics = step(state, *arguments)
            if len(history) > done:
                history[-1] = jax.device_get(history[-1])
                _check(number - 1, history[-1])
            history.append(metrics)
        fetched = jax.device_get(history)
        _check(len(fetched) - 1, fetched[-1])
        return Taken(state, _stacked(fetched), _means(fetched))


def _check(step: int, metrics: Any) -> None:
    if np.any(metrics.get(SKIPPED, False)):
        return
    values = {k: float(np.mean(metrics[k])) for k in WATCHED if k in metrics}
    if not all(np.isfinite(v) for v in values.values()):
        raise NotFinite(step, values)


def _stacked(history: list[Any]) -> Metrics:
    fetched = jax.device_get(history)
    return {name: np.stack([m[name] for m in fetched]) for name in fetched[0]} if fetched else {}


def _means(fetched: list[Any]) -> dict[str, Any]:
    names = [name for name in fetched[0] if name != SKIPPED]
    taken = [m for m in fetched if not np.any(m.get(SKIPPED, False))]
    means = {f"train_{n}": float(np.mean([m[n] for m in taken])) if taken else float("nan") for n in names}
    if SKIPPED in fetched[0]:
        means["skipped_batches"] = len(fetched) - len(taken)
    return means
