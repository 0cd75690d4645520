"""What each of several processes does in `test_hosts.py`: `python two_processes.py PORT COUNT INDEX FOLDER`."""

import json
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np

from qcjax.config.hosts import Hosts
from qcjax.runtime import hosts, stops
from qcjax.runtime.devices import REPLICATED, SHARDED, Devices
from qcjax.runtime.stops import Stopped
from qcjax.train.steps import CutShort, run_steps


def raising(what: object) -> object:
    raise ValueError(f"{what}: found nothing")


class OfTwo(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def of_two(_: object) -> object:
    raise OfTwo(1, 2)


def message(function: object) -> str:
    try:
        function()  # type: ignore[operator]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def told(folder: Path) -> dict[str, object]:
    """What the lead says, and what each does for all."""
    index, ran = hosts.index(), []
    large = np.arange(1000, dtype=np.int64)  # longer than a message
    found: dict[str, object] = {
        "index": index,
        "lead": hosts.lead(lambda: {"index": index, "inner": hosts.lead(lambda: index)}),
        "same": hosts.same(10 + index),
        "large": int(hosts.same(large * (1 - index)).sum()),
        "share": hosts.share(lambda x: (ran.append(x), x * x)[1], range(5)),
        "ran": ran,
        "nothing": hosts.share(raising, ()),
        "rows": hosts.gather_rows(np.full((2, 1), index)).ravel().tolist(),
        "error of the lead": message(lambda: hosts.lead(lambda: raising("lead"))),
        "error of one": message(lambda: hosts.share(lambda x: raising(x) if x == 1 else x, range(4))),
        "error of no known class": message(lambda: hosts.share(of_two, range(2))),
        "value that can't be sent": message(lambda: hosts.same(object())),
        "tree": [int(x) for x in hosts.same_tree({"a": jax.numpy.int32(index), "b": (index + 5,)})["b"]],
        "one file": hosts.lead(lambda: (folder / "once").touch(exist_ok=False)),
    }
    devices, alone = Devices(), Devices().alone()
    x = np.arange(8.0, dtype=np.float32)
    double = devices.compile(lambda w, x: w * x, (REPLICATED, SHARDED))
    found |= {
        "devices": [devices.count, alone.count],
        "all rows": devices.gather(double(devices.replicate(np.float32(2)), devices.shard(x))).tolist(),
        "sum": devices.unreplicate(summed(devices)(devices.shard(x))).tolist(),
        "alone": alone.gather(summed(alone)(alone.shard(x[:2] + index))).tolist(),
    }
    return found


def summed(devices: Devices) -> object:
    return devices.compile(lambda x: jax.lax.psum(x.sum(keepdims=True), devices.axis_name), (SHARDED,))


def stopped() -> dict[str, object]:
    """The second process is told to stop, in training and then outside of it: both stop at the same place."""
    found: dict[str, object] = {}
    devices = Devices()
    step = devices.compile(lambda s, x: (s + 1, {"loss": x.mean()}), (REPLICATED, SHARDED))

    def batches() -> object:
        for i in range(10):
            if i == 4 and hosts.index() == 1:
                signal.raise_signal(signal.SIGTERM)
            yield (devices.shard(np.ones(4, np.float32)),)

    with stops.stoppable():
        try:
            run_steps(step, devices.replicate(np.zeros(1, np.float32)), batches())
        except CutShort as stop:
            found["steps"], found["signal"] = stop.steps, stop.signum
    with stops.stoppable():
        stops.check()
        if hosts.index() == 1:
            signal.raise_signal(signal.SIGUSR1)
        stops.check()  # not yet: the other one doesn't know
        found["went on"] = hosts.same(True)  # the lead was not asked
        try:
            hosts.share(str, range(2))
        except Stopped as stop:
            found["second signal"] = stop.signum
    return found


def stopped_in_long_work() -> dict[str, object]:
    """The second process is told to stop while both work on their shares; then the lead, in work of its own."""
    found: dict[str, object] = {}
    done: list[int] = []

    def item(i: int) -> None:
        done.append(i)
        if i == 1:
            signal.raise_signal(signal.SIGTERM)
        time.sleep(0.05)

    with stops.stoppable():
        try:
            hosts.share(item, range(200), threads=1)
        except Stopped as stop:
            found["in a share"], found["done of it"] = stop.signum, len(done)

    def long() -> None:
        for _ in range(3):
            stops.check()
            signal.raise_signal(signal.SIGUSR1)
        found["went on"] = True

    with stops.stoppable():
        try:
            hosts.lead(long)
        except Stopped as stop:
            found["in the lead's work"] = stop.signum
    return found


if __name__ == "__main__":
    port, count, index = (int(x) for x in sys.argv[1:4])
    hosts.MESSAGE = 1024
    hosts.start(True, Hosts(f"127.0.0.1:{port}", count, index))
    folder = Path(sys.argv[4])
    found = told(folder) | stopped() | {"long": stopped_in_long_work()}
    (folder / f"{index}.json").write_text(json.dumps(found))
