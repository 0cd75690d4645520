"""Checkpoints by Orbax: the m_best by validation loss, the latest, and any asked for by number.

They are written by a thread of their own while training goes on. Damage shows when they are read (`checksums`), and
then what is damaged is set aside with everything after it: a run never goes on from, nor chooses among, other
models than it would have had.

Where several processes make the run, the lead writes and reads, and the others are told (`hosts`).
"""

import json
import math
import shutil
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from qcjax.runtime import hosts
from qcjax.runtime.devices import local_devices
from qcjax.runtime.exits import is_out_of_memory
from qcjax.runtime.messages import sendable
from qcjax.runtime.progress import say
from qcjax.runtime.stops import check, postponed
from qcjax.train import checksums
from qcjax.train.checksums import DamagedCheckpoint
from qcjax.train.stage import LOSS

LEAD_ALONE = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
NEWEST = 2  # how many of the latest are kept: should the last be damaged, little is lost
UNNEEDED = "unneeded"  # folder of what is about to be deleted

Metrics = dict[str, np.ndarray]  # of steps, one after another: (steps, ...) each


@sendable
@dataclass(frozen=True)
class Candidate:
    """A model that was kept."""

    stage: str
    epoch: int
    loss: float  # validation loss


class Cut(NamedTuple):
    """An epoch that a stop has cut short: the state after some of its steps, and their metrics."""

    epoch: int
    steps: int
    metrics: Metrics
    state: Any


@dataclass
class _Always:
    """Keeps given steps, whatever their metrics."""

    steps: Collection[int]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        return [c.step in self.steps for c in checkpoints]


class Checkpoints:
    """The checkpoints of one training stage, one per epoch, in a folder of their own."""

    def __init__(self, folder: Path, stage: str, m_best: int, always: Collection[int] = ()) -> None:
        self.folder, self.stage, self.m_best = folder.resolve(), stage, m_best
        best = policies.BestN(get_metric_fn=_loss, reverse=True, n=m_best)
        kept: list[Any] = [policies.LatestN(NEWEST), best, _Always(always)]
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            best_fn=_loss,
            best_mode="min",
            create=False,
            multiprocessing_options=LEAD_ALONE,
            enable_async_checkpointing=False,  # the whole of it happens in a thread of ours
            todelete_subdir=UNNEEDED,  # moved there whole: half of one would be taken for a damaged one
        )
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: Future[None] | None = None
        hosts.lead(self._open)

    def _open(self) -> None:
        """Look at what is there; what can't be one of ours is set aside."""
        self._records: dict[int, dict[str, Any]] = {}
        self._arrays: dict[int, dict[str, Any]] = {}
        for rest in (*self.folder.glob("*.orbax-checkpoint-tmp*"), self.folder / UNNEEDED):
            shutil.rmtree(rest, ignore_errors=True)
        for epoch in self._on_disk():
            try:
                text = (self.folder / str(epoch) / "metrics" / "metrics").read_text(encoding="utf-8")
                self._records[epoch], self._arrays[epoch] = checksums.verified(json.loads(text))
            except (OSError, ValueError) as error:
                say(f"warning: {self._set_aside(epoch, error)}")
                break
        self.folder.mkdir(parents=True, exist_ok=True)
        with postponed():
            self._manager = ocp.CheckpointManager(self.folder, options=self._options)
        check()

    def _on_disk(self) -> list[int]:
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(int(p.name) for p in found if p.name.isdecimal())

    @hosts.led
    def save(self, epoch: int, metrics: dict[str, Any], **items: Any) -> None:
        """Write trees of arrays under an epoch's number; returns while they are being written.

        The arrays are copied where they are, so that a donated step can follow.
        Raises OSError where the one before could not be written.
        """
        self.wait()
        copies = {name: jax.tree.map(_copy, tree) for name, tree in items.items()}
        self._records[epoch] = dict(metrics)
        self._pending = self._writer.submit(self._write, epoch, dict(metrics), copies)

    def _write(self, epoch: int, metrics: dict[str, Any], items: dict[str, Any]) -> None:
        try:
            arrays = jax.tree.map(np.asarray, items)
            record = checksums.with_checksums(metrics, arrays)
            args = ocp.args.Composite(**{k: ocp.args.StandardSave(v) for k, v in arrays.items()})
            self._manager.save(epoch, args=args, metrics=record)
            self._arrays[epoch] = record[checksums.CHECKS]["arrays"]
            for gone in (self._cut_folder, self.folder / UNNEEDED):
                shutil.rmtree(gone, ignore_errors=True)
        except Exception as error:
            del self._records[epoch]
            good = max(self._arrays, default=0)
            raise OSError(
                f"{self.folder}: the checkpoint of epoch {epoch} could not be written ({_short(error)}); the last good "
                f"one is that of epoch {good}, from which the run goes on when it is started again"
            ) from error

    @hosts.led
    def latest(self) -> int | None:
        """The last epoch that was saved."""
        self.wait()
        return max(self._records, default=None)

    @hosts.led
    def metrics(self, epoch: int) -> dict[str, Any]:
        """What was saved beside an epoch's arrays."""
        return dict(self._records[epoch])

    @hosts.led
    def candidates(self) -> list[Candidate]:
        """The m_best, lowest validation loss first; of equals the later. All of them are, or will be, on disk."""
        found = [Candidate(self.stage, epoch, _loss(r)) for epoch, r in self._records.items()]
        return sorted(found, key=lambda c: (c.loss, -c.epoch))[: self.m_best]

    def restore(self, epoch: int, **templates: Any) -> dict[str, Any]:
        """Read what was saved; `templates` are trees of arrays (or shapes) of the same structure.

        Raises:
          ValueError: the checkpoint has other arrays, so it is of another configuration.
          DamagedCheckpoint: it is damaged; it and all after it have been set aside.
          Stopped: a stop was asked for meanwhile.
        """
        leaves = self._leaves(epoch, templates)
        return {k: jax.tree.unflatten(jax.tree.structure(v), leaves[k]) for k, v in templates.items()}

    @hosts.led
    def _leaves(self, epoch: int, templates: dict[str, Any]) -> dict[str, list[Any]]:
        """`restore`, as the lead tells it the others: by name the arrays of each tree, in its order."""
        self.wait()
        saved = self._arrays[epoch]
        for name, template in templates.items():
            theirs, ours = saved.get(name, {}).get("shapes", {}), checksums.shapes_of(template)
            if theirs != ours:
                raise ValueError(
                    f"{self.folder / str(epoch)}: a checkpoint of another configuration: {name} holds "
                    f"{checksums.differences(theirs, ours)}; choose another --out, or the same options"
                )
        try:
            items = {k: ocp.args.StandardRestore(_abstract(v)) for k, v in templates.items()}
            with postponed():  # TensorStore makes an error of its own of what a signal raises
                restored = self._manager.restore(epoch, args=ocp.args.Composite(**items))
            for name in templates:
                checksums.verify(restored[name], saved[name])
        except Exception as error:  # Orbax's and TensorStore's are of every kind
            if is_out_of_memory(error) or isinstance(error, PermissionError):
                raise
            sentence = self._set_aside(epoch, error)
            self._manager.close()
            self._open()
            raise DamagedCheckpoint(f"{sentence}; started again, the run goes on from there") from error
        check()
        return {k: jax.tree.leaves(restored[k]) for k in templates}

    @hosts.led
    def forget_after(self, epoch: int, reason: str) -> None:
        """Set aside all that was saved after an epoch."""
        self.wait()
        later = [e for e in self._on_disk() if e > epoch]
        if later:
            say(f"warning: {self._set_aside(later[0], reason)}")
            self._manager.close()
            self._open()

    def _set_aside(self, epoch: int, reason: object) -> str:
        """Move an epoch's checkpoint and all later ones out of the way; what happened, in words."""
        aside = self.folder.with_name(f"{self.folder.name}.damaged")
        aside.mkdir(exist_ok=True)
        moved = [e for e in self._on_disk() if e >= epoch]
        for number in moved:
            target = aside / str(number)
            shutil.rmtree(target, ignore_errors=True)
            (self.folder / str(number)).rename(target)
        rest = [e for e in self._on_disk() if e < epoch]
        others = f" (with the later {', '.join(map(str, moved[1:]))})" if moved[1:] else ""
        where = f"the last good checkpoint is that of epoch {rest[-1]}" if rest else "there is no earlier one"
        return (
            f"{self.folder / str(epoch)}: a damaged checkpoint ({_short(reason)}); it was moved{others} to {aside}, "
            f"and {where}"
        )

    @property
    def _cut_folder(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.cut")

    @hosts.led
    def save_cut(self, cut: Cut) -> None:
        """Keep an epoch that was cut short; returns when it is on disk.

        Raises OSError where it can't be written.
        """
        self.wait()
        state = jax.tree.map(np.asarray, cut.state)
        metrics = {k: {"type": str(v.dtype), "values": v.tolist()} for k, v in cut.metrics.items()}
        record = checksums.with_checksums(
            {"epoch": cut.epoch, "steps": cut.steps, "metrics": metrics}, {"state": state}
        )
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        with postponed(), _checkpointer() as writer:
            writer.save(self._cut_folder, args=args, force=True)

    def cut(self, epoch: int, state: Any) -> Cut | None:
        """How far an epoch was when a stop cut it short; `state` is a template. None where nothing (sound) was kept."""
        found = self._cut(epoch, state)
        if found is None:
            return None
        steps, metrics, leaves = found
        return Cut(epoch, steps, metrics, jax.tree.unflatten(jax.tree.structure(state), leaves))

    @hosts.led
    def _cut(self, epoch: int, state: Any) -> tuple[int, Metrics, list[Any]] | None:
        """`cut`, as the lead tells it the others: with the state's arrays in their order."""
        if not self._cut_folder.is_dir():
            return None
        try:
            with postponed(), _checkpointer() as reader:
                parts = ocp.args.Composite(record=ocp.args.JsonRestore())
                record, arrays = checksums.verified(reader.restore(self._cut_folder, args=parts)["record"])
                if record["epoch"] != epoch:
                    return None
                parts = ocp.args.Composite(state=ocp.args.StandardRestore(_abstract(state)))
                restored = reader.restore(self._cut_folder, args=parts)["state"]
            checksums.verify(restored, arrays["state"])
        except Exception as error:  # Orbax's and TensorStore's are of every kind
            say(
                f"warning: {self._cut_folder}: damaged ({_short(error)}); epoch {epoch} starts from its beginning"
            )
            return None
        check()
        metrics = {k: np.asarray(v["values"], v["type"]) for k, v in record["metrics"].items()}
        return record["steps"], metrics, jax.tree.leaves(restored)

    @hosts.led
    def wait(self) -> None:
        """Until everything is on disk.

        Raises OSError where it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def finish_writing(self) -> None:
        """As `wait`, for a run that ends: no other process is told, no further signal cuts it off, and an error is only
        told of."""
        pending = self._pending
        if pending is not None:
            with postponed():
                error = pending.exception()
            if error is not None:
                say(f"warning: {error}")

    @hosts.led
    def close(self) -> None:
        """Wait, and let go of the folder."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            self._manager.close()


def _checkpointer() -> ocp.Checkpointer:
    options = ocp.CompositeOptions(multiprocessing_options=LEAD_ALONE)
    handler = ocp.CompositeCheckpointHandler(composite_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=LEAD_ALONE)


def _copy(x: Any) -> Any:
    return jnp.copy(x) if isinstance(x, jax.Array) else np.array(x)


def _abstract(tree: Any) -> Any:
    place = jax.sharding.SingleDeviceSharding(local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def _short(error: object) -> str:
    """An error in one line, of a length that can be read."""
    text = " ".join(str(error).split())
    return (text[:200] + " ...") if len(text) > 200 else text or type(error).__name__


def _loss(metrics: dict[str, Any]) -> float:
    """A validation loss that isn't finite counts as the worst."""
    loss = float(metrics.get(LOSS, math.inf))
    return loss if math.isfinite(loss) else math.inf
