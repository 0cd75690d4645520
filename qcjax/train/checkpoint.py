"""Checkpoints by Orbax: the m_best by validation loss, the latest, and any asked for by number."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

LOSS = "validation_loss"


@dataclass(frozen=True)
class Candidate:
    """A model that was kept."""

    stage: str
    epoch: int
    loss: float  # validation loss


@dataclass
class _Always:
    """Keeps given steps, whatever their metrics."""

    steps: Collection[int]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        return [c.step in self.steps for c in checkpoints]


class Checkpoints:
    """The checkpoints of one training stage, one per epoch, in a folder of their own."""

    def __init__(self, folder: Path, stage: str, m_best: int, always: Collection[int] = ()) -> None:
        self.stage, self.m_best = stage, m_best
        best = policies.BestN(get_metric_fn=_loss, reverse=True, n=m_best)
        kept: list[Any] = [policies.LatestN(1), best, _Always(always)]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept), best_fn=_loss, best_mode="min"
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, epoch: int, metrics: dict[str, Any], **items: Any) -> None:
        """Write trees of arrays under an epoch's number; returns before the files are complete."""
        self._manager.save(
            epoch,
            args=ocp.args.Composite(**{k: ocp.args.StandardSave(v) for k, v in items.items()}),
            metrics=metrics,
        )

    def latest(self) -> int | None:
        """The last epoch that was saved."""
        return self._manager.latest_step()

    def metrics(self, epoch: int) -> dict[str, Any]:
        """What was saved beside an epoch's arrays."""
        return dict(self._manager.metrics(epoch) or {})

    def candidates(self) -> list[Candidate]:
        """The m_best, lowest validation loss first; of equals the later. All of them are on disk."""
        self.wait()
        kept = [Candidate(self.stage, step, _loss(self.metrics(step))) for step in self._manager.all_steps()]
        return sorted(kept, key=lambda c: (c.loss, -c.epoch))[: self.m_best]

    def restore(self, epoch: int, **templates: Any) -> dict[str, Any]:
        """Read what was saved; `templates` are trees of arrays (or shapes) of the same structure."""
        place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def abstract(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

        items = {k: ocp.args.StandardRestore(jax.tree.map(abstract, v)) for k, v in templates.items()}
        restored = self._manager.restore(epoch, args=ocp.args.Composite(**items))
        return {k: restored[k] for k in templates}

    def wait(self) -> None:
        """Until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and let go of the folder."""
        self._manager.close()


def _loss(metrics: dict[str, Any]) -> float:
    """A validation loss that isn't finite counts as the worst."""
    loss = float(metrics.get(LOSS, math.inf))
    return loss if math.isfinite(loss) else math.inf
