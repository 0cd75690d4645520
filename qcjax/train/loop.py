"""The only mutable loop: epochs, logs, checkpoints, and going on after a stop."""

import json
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qcjax.runtime import hosts
from qcjax.runtime.devices import Devices
from qcjax.runtime.files import write_whole
from qcjax.runtime.progress import bar, done_at, say
from qcjax.runtime.stops import Stopped, postponed
from qcjax.train.checkpoint import Checkpoints, Cut
from qcjax.train.checksums import DamagedCheckpoint
from qcjax.train.state import TrainState
from qcjax.train.steps import CutShort, NotFinite, epoch_of_steps, run_steps

__all__ = ["Journal", "Record", "fit", "run_steps", "stream"]

Record = dict[str, Any]


class Journal:
    """`metrics.jsonl`: a line per stage and epoch, kept in step with the checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @hosts.led
    def read(self) -> list[Record]:
        """All complete lines; one that a kill cut short doesn't count."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_bytes().splitlines():
            try:
                record = json.loads(line.decode("utf-8"))
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get("epoch"), int):
                records.append(record)
        return records

    @hosts.led
    def append(self, record: Record) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def gap(self, identity: Record, epoch: int) -> int | None:
        """The first epoch before `epoch` of which a stage has no line, as after damage; None: all are there."""
        there = {r["epoch"] for r in self.read() if _of(r, identity)}
        return next((e for e in range(1, epoch) if e not in there), None)

    @hosts.led
    def rewind(self, identity: Record, epoch: int, last: Record | None) -> None:
        """Drop a stage's lines after `epoch`; add that epoch's own, `last`, if a kill came before it was written."""
        records = [r for r in self.read() if not _of(r, identity) or r["epoch"] <= epoch]
        if last is not None and not any(_of(r, identity) and r["epoch"] == epoch for r in records):
            records.append(last)
        write_whole(self.path, "".join(json.dumps(r) + "\n" for r in records))


def _of(record: Record, identity: Record) -> bool:
    return all(record.get(k) == v for k, v in identity.items())


def stream(key: jax.Array, *names: str | int) -> jax.Array:
    """The key of a named stream, and of a numbered place in it."""
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(name.encode()) if isinstance(name, str) else name)
    return key


def fit(
    identity: Record,
    epochs: int,
    state: TrainState,
    train: Callable[[TrainState, int], tuple[TrainState, Record]],
    validate: Callable[[TrainState, int], Record],
    checkpoints: Checkpoints,
    journal: Journal,
    devices: Devices,
    finished: Callable[[Record], bool] = lambda record: False,
    cases: Callable[[int, int], Sequence[str]] | None = None,
    on_resume: Callable[[int], None] = lambda epoch: None,
) -> TrainState:
    """Train to the last epoch, or until `finished`; goes on from the latest checkpoint if there is one.

    Args:
      identity: names the stage in the journal, e.g. {"stage": "segmenter", "segmenter": "nnunet", "view": "SA"}.
      state: where training starts, on one device.
      train: (state on the devices, epoch) -> (state, metrics).
      validate: (state on the devices, epoch) -> metrics, `validation_loss` among them.
      cases: (epoch, step counted from 0) -> the names of the cases in that batch, to be named where it goes wrong.
      on_resume: called with the epoch that training goes on after (0: from the start), once checkpoints and journal
        agree on it.

    Returns the state after the last epoch, on the devices.

    Raises:
      FloatingPointError: a training loss or gradient that is not finite.
      Stopped: a signal asked for it; what was done of the epoch has been saved.
      ValueError: a checkpoint of another configuration.
      OSError: a checkpoint could not be written.
    """
    title = " ".join(str(v) for v in identity.values())
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), state)
    latest, restored = _restored(identity, checkpoints, journal, template)
    on_resume(latest)
    last = checkpoints.metrics(latest) if latest else None
    if restored is not None:
        state = restored
        say(f"{title}: epoch {latest} of {epochs} is done")
    if last is not None and finished(last):
        return devices.replicate(state)
    cut = checkpoints.cut(latest + 1, template) if latest < epochs else None
    if cut is not None:
        state = cut.state
        say(f"{title}: {cut.steps} steps of epoch {latest + 1} are done")
    state = devices.replicate(hosts.same_tree(state))
    try:
        with bar(title, epochs - latest, closing_line=False) as advance:
            for epoch in range(latest + 1, epochs + 1):
                started = time.monotonic()
                with epoch_of_steps(cut.metrics if cut is not None and epoch == cut.epoch else None) as steps:
                    try:
                        state, metrics = train(state, epoch)
                        trained = time.monotonic() - started
                        validated = hosts.same(validate(state, epoch))  # it decides what follows
                    except CutShort as stop:
                        if steps.passes == 1 and stop.steps:
                            _save_cut(checkpoints, devices, Cut(epoch, stop.steps, stop.metrics, stop.state))
                        raise _stopped(stop, title, epoch, checkpoints) from None
                    except Stopped as stop:
                        if steps.passes == 1 and steps.metrics is not None:
                            count = len(next(iter(steps.metrics.values())))
                            _save_cut(checkpoints, devices, Cut(epoch, count, steps.metrics, steps.state))
                        raise _stopped(stop, title, epoch, checkpoints) from None
                    except NotFinite as error:
                        raise FloatingPointError(
                            _not_finite(title, epoch, error, cases, checkpoints.latest())
                        ) from None
                if not np.isfinite(metrics["train_loss"]):
                    raise FloatingPointError(
                        f"{title}: the training loss of epoch {epoch} is {metrics['train_loss']}, expected a finite "
                        f"number; the last good checkpoint is that of epoch {checkpoints.latest() or 0}"
                    )
                record = identity | {"epoch": epoch} | metrics | validated | {"train_seconds": trained}
                before = time.monotonic()
                checkpoints.save(
                    epoch, record | {"seconds": before - started}, state=devices.unreplicate(state)
                )
                now = time.monotonic()
                record |= {"save_seconds": now - before, "seconds": now - started}
                journal.append(record)
                say(f"{title}: {_line(record, epochs)}")
                if epoch == latest + 1 and epoch < epochs:
                    say(f"{title}: {done_at((epochs - epoch) * record['seconds'])}")
                advance()
                if finished(record):
                    break
    except BaseException:
        checkpoints.finish_writing()  # whatever ends the run, the epoch that is being written is not lost
        raise
    checkpoints.wait()
    return state


def _restored(
    identity: Record, checkpoints: Checkpoints, journal: Journal, template: Any
) -> tuple[int, TrainState | None]:
    """The latest epoch that is whole, on disk and in the journal, which is rewound to it; 0 if there is none."""
    while True:
        latest = checkpoints.latest() or 0
        gap = journal.gap(identity, latest)
        if gap is not None:
            checkpoints.forget_after(gap - 1, f"epoch {gap} is missing from {journal.path.name}")
            continue
        try:
            state = checkpoints.restore(latest, state=template)["state"] if latest else None
        except DamagedCheckpoint as error:
            say(f"warning: {error}")
            continue
        journal.rewind(identity, latest, checkpoints.metrics(latest) if latest else None)
        return latest, state


def _save_cut(checkpoints: Checkpoints, devices: Devices, cut: Cut) -> None:
    with postponed():
        checkpoints.save_cut(cut._replace(state=devices.unreplicate(cut.state)))


def _stopped(stop: Stopped, title: str, epoch: int, checkpoints: Checkpoints) -> Stopped:
    """The same stop, once all is on disk, with the place where it happened."""
    with postponed():
        checkpoints.wait()
    return Stopped(stop.signum, f"in epoch {epoch} of {title}")


def _not_finite(
    title: str,
    epoch: int,
    error: NotFinite,
    cases: Callable[[int, int], Sequence[str]] | None,
    latest: int | None,
) -> str:
    values = ", ".join(f"{name} {value}" for name, value in error.values.items())
    of = f" (cases {', '.join(cases(epoch, error.step))})" if cases is not None else ""
    good = f"that of epoch {latest}" if latest else "none yet"
    return (
        f"{title}: epoch {epoch}, batch {error.step + 1}{of}: {values} found, expected finite numbers; the last good "
        f"checkpoint is {good}. --on-nonfinite skip leaves such batches out"
    )


def _line(record: Record, epochs: int) -> str:
    parts = [f"epoch {record['epoch']}/{epochs}", f"loss {record['train_loss']:.4f}"]
    parts.append(f"validation {record['validation_loss']:.4f}")
    if "validation_dice_rv" in record:
        parts.append(f"RV Dice {record['validation_dice_rv']:.3f}")
    if "ood" in record:
        parts.append(f"OoD cases {record['ood']}")
    if record.get("skipped_batches"):
        parts.append(f"batches left out {record['skipped_batches']}")
    parts.append(f"saving {record['save_seconds']:.2f} s")
    return ", ".join(parts) + f", {record['seconds']:.1f} s"
