"""`metrics.jsonl`: what was measured in each epoch of each stage."""

import json
from pathlib import Path

from qcjax.runtime import hosts
from qcjax.runtime.files import write_whole
from qcjax.train.stage import Record


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
