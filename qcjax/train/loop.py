"""The only mutable loop: epochs, logs, checkpoints, and going on after a stop."""

import time
import zlib
from typing import Any

import jax
import numpy as np

from qcjax.data.placement import ahead
from qcjax.runtime import hosts, stops
from qcjax.runtime.devices import Devices
from qcjax.runtime.progress import bar, done_at, say
from qcjax.runtime.stops import Stopped, postponed
from qcjax.train.checkpoint import Checkpoints, Cut
from qcjax.train.checksums import DamagedCheckpoint
from qcjax.train.journal import Journal
from qcjax.train.stage import Record, Stage
from qcjax.train.steps import CutShort, Metrics, NotFinite, Taken, run_steps
from qcjax.typing import PRNGKey


def stream(key: PRNGKey, *names: str | int) -> PRNGKey:
    """The key of a named stream, and of a numbered place in it."""
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(name.encode()) if isinstance(name, str) else name)
    return key


def fit(stage: Stage, journal: Journal, checkpoints: Checkpoints, devices: Devices) -> Any:
    """Train to the last epoch, or until the stage is finished; goes on from the latest checkpoint if there is one.

    Returns the state after the last epoch, on the devices.

    Raises:
      FloatingPointError: a training loss or gradient that is not finite.
      Stopped: a signal asked for it; what was done of the epoch has been saved.
      ValueError: a checkpoint of another configuration.
      OSError: a checkpoint could not be written.
    """
    title, epochs = _title(stage), stage.epochs
    state = stage.init()
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), state)
    latest, restored = _restored(stage.identity, checkpoints, journal, template)
    stage.resume(latest)
    last = checkpoints.metrics(latest) if latest else None
    if restored is not None:
        state = restored
        say(f"{title}: epoch {latest} of {epochs} is done")
    if last is not None and stage.finished(last):
        return devices.replicate(state)
    cut = checkpoints.cut(latest + 1, template) if latest < epochs else None
    if cut is not None:
        state = cut.state
        say(f"{title}: {cut.steps} steps of epoch {latest + 1} are done")
    state = devices.replicate(hosts.same_tree(state))
    begun = None if cut is None else cut.metrics
    try:
        with bar(title, epochs - latest, closing_line=False) as advance:
            for epoch in range(latest + 1, epochs + 1):
                state, record = _epoch(stage, epoch, state, begun, checkpoints, devices)
                begun = None
                journal.append(record)
                say(f"{title}: {_line(record, epochs)}")
                if epoch == latest + 1 and epoch < epochs:
                    say(f"{title}: {done_at((epochs - epoch) * record['seconds'])}")
                advance()
                if stage.finished(record):
                    break
    except BaseException:
        checkpoints.finish_writing()  # whatever ends the run, the epoch that is being written is not lost
        raise
    checkpoints.wait()
    return state


def _epoch(
    stage: Stage,
    epoch: int,
    state: Any,
    begun: Metrics | None,
    checkpoints: Checkpoints,
    devices: Devices,
) -> tuple[Any, Record]:
    """One epoch: steps, validation, checkpoint; the state after it, and its line for the journal."""
    started = time.monotonic()
    taken: Taken | None = None
    try:
        batches = stage.batches(epoch)
        with postponed(), ahead(stage.source(epoch), batches) as made:  # what is done must not be lost
            taken = run_steps(stage.step(epoch), state, made, begun)
        stops.check()
        trained = time.monotonic() - started
        validated = hosts.same(stage.validate(taken.state, epoch))  # it decides what follows
    except CutShort as stop:
        if stop.steps:
            _save_cut(checkpoints, devices, Cut(epoch, stop.steps, stop.metrics, stop.state))
        raise _stopped(stop, stage, epoch, checkpoints) from None
    except Stopped as stop:
        if taken is not None:
            _save_cut(checkpoints, devices, Cut(epoch, taken.steps, taken.metrics, taken.state))
        raise _stopped(stop, stage, epoch, checkpoints) from None
    except NotFinite as error:
        raise FloatingPointError(_not_finite(stage, epoch, error, checkpoints.latest())) from None
    if not np.isfinite(taken.means["train_loss"]):
        raise FloatingPointError(
            f"{_title(stage)}: the training loss of epoch {epoch} is {taken.means['train_loss']}, expected a finite "
            f"number; the last good checkpoint is that of epoch {checkpoints.latest() or 0}"
        )
    record = stage.identity | {"epoch": epoch} | taken.means | validated | {"train_seconds": trained}
    before = time.monotonic()
    checkpoints.save(epoch, record | {"seconds": before - started}, state=devices.unreplicate(taken.state))
    now = time.monotonic()
    return taken.state, record | {"save_seconds": now - before, "seconds": now - started}


def _title(stage: Stage) -> str:
    return " ".join(str(v) for v in stage.identity.values())


def _restored(identity: Record, checkpoints: Checkpoints, journal: Journal, template: Any) -> tuple[int, Any]:
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


def _stopped(stop: Stopped, stage: Stage, epoch: int, checkpoints: Checkpoints) -> Stopped:
    """The same stop, once all is on disk, with the place where it happened."""
    with postponed():
        checkpoints.wait()
    return Stopped(stop.signum, f"in epoch {epoch} of {_title(stage)}")


def _not_finite(stage: Stage, epoch: int, error: NotFinite, latest: int | None) -> str:
    values = ", ".join(f"{name} {value}" for name, value in error.values.items())
    names = stage.names(epoch, error.step)
    of = f" (cases {', '.join(names)})" if names else ""
    good = f"that of epoch {latest}" if latest else "none yet"
    return (
        f"{_title(stage)}: epoch {epoch}, batch {error.step + 1}{of}: {values} found, expected finite numbers; the "
        f"last good checkpoint is {good}. --on-nonfinite skip leaves such batches out"
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
