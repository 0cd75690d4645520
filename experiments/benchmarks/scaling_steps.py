"""Training steps on emulated devices of one processor, in a process of their own: `scaling` starts it and asks.

For every line on its standard input, the name of something to be timed, it answers with seconds per step.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from qcjax import losses, runtime
from qcjax.data.batches import Batch
from qcjax.models import NnUNet
from qcjax.train.parallel import BROADCAST, REPLICATED, SHARDED, Devices
from qcjax.train.state import create, sgd
from qcjax.train.updates import make_supervised_update
from qcjax.typing import Array

PLAIN, MACHINERY, WEAK, STRONG = "plain jit", "machinery", "weak", "strong"
RATE = np.float32(0.01)
CLASSES = 4


@dataclass(frozen=True)
class StepSizes:
    """Of the networks and batches; the devices must divide `trivial_batch` and `strong_batch`."""

    size: int = 64  # of the slices, in pixels
    width: int = 8
    stages: int = 4
    weak_batch: int = 2  # per device
    strong_batch: int = 16  # of all devices
    steps: int = 5  # that are timed at once
    loss_steps: int = 5  # after which losses are compared
    trivial_size: int = 8
    trivial_batch: int = 8
    trivial_steps: int = 300


class Trivial(nn.Module):
    """A linear map of each pixel: all that its step costs is the step itself."""

    @nn.compact
    def logits(
        self, x: Array, batch_stats: bool = False, dropout: bool = False, weight: Array | None = None
    ) -> tuple[Array, ...]:
        return (nn.Dense(CLASSES)(x),)

    def __call__(self, x: Array) -> Array:
        return self.logits(x)[0]


class Training:
    """Supervised updates of one network on some devices, each on the same batch."""

    def __init__(self, model: nn.Module, devices: Devices, batch: Batch, plain: bool = False) -> None:
        """With `plain` the update is jitted as it is, without anything of `Devices`; for one device."""
        tx = sgd()
        update = make_supervised_update(model, tx, losses.SUPERVISED["paper"], devices.axis_name)
        state = create(model, tx, jax.random.key(0), jnp.asarray(batch.image[:1]))
        self._key, self._batch = jax.random.key(1), batch
        self._step: Callable[..., Any]
        self._share: Callable[[Any], Any]
        if plain:
            self._state: Any = state
            self._step, self._share = jax.jit(update, donate_argnums=0), lambda batch: batch
        else:
            axes = (REPLICATED, SHARDED, BROADCAST, BROADCAST)
            self._state = devices.replicate(state)
            self._step, self._share = devices.compile(update, axes, donate=(0,)), devices.shard
        self._unreplicate = devices.unreplicate

    def loss(self, steps: int) -> float:
        """That of the last of so many more steps."""
        return float(self._unreplicate(self._run(steps)["loss"]))

    def seconds(self, steps: int) -> float:
        """Per step, over so many more."""
        started = time.perf_counter()
        self._run(steps)
        return (time.perf_counter() - started) / steps

    def _run(self, steps: int) -> Any:
        # One step ahead, as a training is. With 32 executions of a device waiting, all threads that JAX has for a CPU's
        # devices can wait for a place or for each other's part of a sum, and none is left for the last device.
        metrics: Any = None
        for _ in range(steps):
            before = metrics
            self._state, metrics = self._step(self._state, self._share(self._batch), self._key, RATE)
            jax.block_until_ready(before)
        jax.block_until_ready((self._state, metrics))
        return metrics


def slices(n: int, size: int) -> Batch:
    """Discs in noise: n slices (n, size, size, 1) with their labels, as host arrays."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    centres, radii = rng.uniform(0.35 * size, 0.65 * size, (2, n, 1, 1)), rng.uniform(0.15, 0.3, (n, 1, 1))
    distance = np.hypot(rows - centres[0], columns - centres[1]) / (radii * size)
    label = np.digitize(-distance, (-1.5, -1.0, -0.6)).astype(np.int32)  # 0 outside, 3 in the middle
    image = np.array([-0.5, 0.0, 1.5, 1.0])[label] + rng.normal(0, 0.3, label.shape)
    return Batch(image[..., None].astype(np.float32), label, np.ones(n, np.float32))


class Contest:
    """All that is timed on one number of devices."""

    def __init__(self, count: int, s: StepSizes) -> None:
        """Compile everything, make each first step, and compare losses with one device's."""
        devices, one = Devices(count), Devices(1)
        trivial = slices(s.trivial_batch, s.trivial_size)
        self.steps = {PLAIN: s.trivial_steps, MACHINERY: s.trivial_steps, WEAK: s.steps, STRONG: s.steps}
        self.training = {
            PLAIN: Training(Trivial(), one, trivial, plain=True),
            MACHINERY: Training(Trivial(), devices, trivial),
        }
        self.found: dict[str, dict[str, float]] = {}
        for name, batch in ((WEAK, count * s.weak_batch), (STRONG, s.strong_batch)):
            of_all = slices(batch, s.size)
            self.training[name] = Training(network(s, devices), devices, of_all)
            loss = self.training[name].loss(s.loss_steps)
            alone = Training(network(s, one), one, of_all).loss(s.loss_steps) if count > 1 else loss
            self.found[name] = {"batch": batch, "loss": loss, "loss_of_one_device": alone}
        for name in (PLAIN, MACHINERY):
            loss = self.training[name].loss(s.loss_steps)
            self.found[name] = {"batch": s.trivial_batch, "loss": loss}

    def seconds(self, name: str) -> float:
        """Per step."""
        return self.training[name].seconds(self.steps[name])


def network(s: StepSizes, devices: Devices) -> nn.Module:
    """A narrow `nnunet`."""
    strides = ((1, 1), *((2, 2),) * (s.stages - 1))
    return NnUNet(width=s.width, max_width=8 * s.width, strides=strides, axis_name=devices.axis_name)


def main(job: dict[str, Any]) -> None:
    """Answer until there are no more questions; the first answer is what isn't timed."""
    runtime.prepare()
    contest = Contest(job["count"], StepSizes(**job["sizes"]))
    print(json.dumps(contest.found), flush=True)
    for name in sys.stdin:
        print(json.dumps(contest.seconds(name.strip())), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
