"""The only mutable loop: epochs, logs, checkpoints, and going on after a stop."""

import json
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qcjax.files import write_whole
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.parallel import Devices
from qcjax.train.progress import bar, done_at, say
from qcjax.train.state import TrainState

Record = dict[str, Any]


class Journal:
    """`metrics.jsonl`: a line per stage and epoch, kept in step with the checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """All complete lines; one that a kill cut short doesn't count."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def append(self, record: Record) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def rewind(self, identity: Record, epoch: int, last: Record | None) -> None:
        """Drop a stage's lines after `epoch`; add that epoch's own, `last`, if a kill came before it was written."""
        mine = lambda r: all(r.get(k) == v for k, v in identity.items())  # noqa: E731
        records = [r for r in self.read() if not mine(r) or r["epoch"] <= epoch]
        if last is not None and not any(mine(r) and r["epoch"] == epoch for r in records):
            records.append(last)
        write_whole(self.path, "".join(json.dumps(r) + "\n" for r in records))


def stream(key: jax.Array, *names: str | int) -> jax.Array:
    """The key of a named stream, and of a numbered place in it."""
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(name.encode()) if isinstance(name, str) else name)
    return key


def run_steps(
    step: Callable[..., Any], state: TrainState, batches: Iterable[tuple[Any, ...]]
) -> tuple[Any, Record]:
    """Donated steps one after another; metrics are fetched one step late, so that the device never waits.

    Returns the state and the mean of each metric.
    """
    history: list[Any] = []
    for arguments in batches:
        state, metrics = step(state, *arguments)
        if history:
            jax.block_until_ready(history[-1])
        history.append(metrics)
    fetched = jax.device_get(history)
    return state, {f"train_{name}": float(np.mean([m[name] for m in fetched])) for name in fetched[0]}


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
) -> TrainState:
    """Train to the last epoch, or until `finished`; goes on from the latest checkpoint if there is one.

    Args:
      identity: names the stage in the journal, e.g. {"stage": "segmenter", "segmenter": "nnunet", "view": "SA"}.
      state: where training starts, on one device.
      train: (state on the devices, epoch) -> (state, metrics).
      validate: (state on the devices, epoch) -> metrics, `validation_loss` among them.

    Returns the state after the last epoch, on the devices.
    Raises FloatingPointError where the training loss is no longer finite.
    """
    title = " ".join(str(v) for v in identity.values())
    latest = checkpoints.latest() or 0
    last = checkpoints.metrics(latest) if latest else None
    journal.rewind(identity, latest, last)
    if latest:
        state = checkpoints.restore(latest, state=state)["state"]
        say(f"{title}: epoch {latest} of {epochs} is done")
    state = devices.replicate(state)
    if last is not None and finished(last):
        return state
    with bar(title, epochs - latest, closing_line=False) as advance:
        for epoch in range(latest + 1, epochs + 1):
            started = time.monotonic()
            state, metrics = train(state, epoch)
            trained = time.monotonic() - started
            if not np.isfinite(metrics["train_loss"]):
                raise FloatingPointError(
                    f"{title}: the training loss of epoch {epoch} is {metrics['train_loss']}, expected a finite "
                    f"number; the last good checkpoint is that of epoch {checkpoints.latest() or 0}"
                )
            record = identity | {"epoch": epoch} | metrics | validate(state, epoch)
            record |= {"train_seconds": trained, "seconds": time.monotonic() - started}
            checkpoints.save(epoch, record, state=_on_host(devices.unreplicate(state)))
            journal.append(record)
            say(f"{title}: {_line(record, epochs)}")
            if epoch == latest + 1 and epoch < epochs:
                say(f"{title}: {done_at((epochs - epoch) * record['seconds'])}")
            advance()
            if finished(record):
                break
    checkpoints.wait()
    return state


def _on_host(tree: Any) -> Any:
    """A copy that the next, donated step can't touch while it is being written."""
    return jax.tree.map(lambda x: np.array(x, copy=True), tree)


def _line(record: Record, epochs: int) -> str:
    parts = [f"epoch {record['epoch']}/{epochs}", f"loss {record['train_loss']:.4f}"]
    parts.append(f"validation {record['validation_loss']:.4f}")
    if "validation_dice_rv" in record:
        parts.append(f"RV Dice {record['validation_dice_rv']:.3f}")
    if "ood" in record:
        parts.append(f"OoD cases {record['ood']}")
    return ", ".join(parts) + f", {record['seconds']:.1f} s"
