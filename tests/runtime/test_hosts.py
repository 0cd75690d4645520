"""Several processes that make one run: two with two emulated devices each, over gloo."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from qcjax.config import Hosts
from qcjax.runtime import hosts
from qcjax.runtime.devices import StopAllReduce
from qcjax.train.journal import Journal
from tests.processes import ROOT, both, cluster, free_port, start
from tests.seeds import seed
from tests.slow import slow

# All stages and a page from seven subjects. SGD: Adam's first steps are the gradients' signs, which for what batch norm
# cancels are those of rounding.
TINY = (
    *("--preset", "demo", "--size", "64", "--spacing-mm", "4", "--views", "SA", "--subjects", "4", "1", "2"),
    *("--seed", str(seed())),
    *("--supervised.width", "2", "--supervised.stages", "3", "--supervised.epochs", "2"),
    *("--supervised.steps", "3", "--supervised.batch", "6", "--supervised.m-best", "2"),
    *("--supervised.optimiser", "sgd", "--supervised.learning-rate", "0.01"),
    *("--autoencoder.width", "2", "--autoencoder.latent", "4", "--autoencoder.epochs", "2"),
    *("--autoencoder.steps", "3", "--autoencoder.batch", "6"),
    *("--refinement.epochs", "1", "--refinement.steps", "2"),
    *("--refinement.labelled", "2", "--refinement.unlabelled", "2"),
)
SMOOTH = ("-m", "tests.smooth_experiment")
# Sums of n numbers taken in another order differ by about √n roundings (2⁻²⁴ of them). The longest are over a batch's
# pixels, and what differs before a step differs after it: a segmenter's six and two of refinement.
ROUNDING = 8 * (6 * 64 * 64) ** 0.5 * 2**-24


def experiment(port, index, out, *more):
    return (*SMOOTH, *TINY, "--out", str(out), *cluster(port, index), *more)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("told")
    script = str(ROOT / "tests" / "two_processes.py")
    both(lambda port, i: (script, str(port), "2", str(i), str(folder)), folder)
    return [json.loads((folder / f"{i}.json").read_text()) for i in range(2)]


def test_what_the_lead_says_all_know(told):
    for i, found in enumerate(told):
        assert found["index"] == i
        assert found["lead"] == {"index": 0, "inner": 0} and found["same"] == 10
        assert found["large"] == 999 * 500
        assert found["error of the lead"] == "ValueError: lead: found nothing"


def test_work_is_shared_and_errors_are_everyones(told):
    assert [sorted(found["ran"]) for found in told] == [[0, 2, 4], [1, 3]]
    for found in told:
        assert found["share"] == [0, 1, 4, 9, 16] and found["nothing"] == []
        assert found["error of one"] == "ValueError: 1: found nothing"
        assert found["error of no known class"] == "RuntimeError: OfTwo: 1 and 2"
        assert found["value that can't be sent"].startswith(
            "TypeError: builtins.object found, expected plain"
        )
        assert found["tree"] == [5]


def test_the_devices_of_all_share_a_batch(told):
    for i, found in enumerate(told):
        assert found["devices"] == [4, 2]
        assert found["all rows"] == [0, 2, 4, 6, 8, 10, 12, 14] and found["sum"] == [28]
        assert found["alone"] == [1 + 2 * i] * 2  # a process by itself
        assert found["rows"] == [0, 0, 1, 1]


def test_a_stop_of_one_stops_all_at_the_same_step(told):
    for found in told:
        assert found["signal"] == signal.SIGTERM
        assert found["steps"] == 5  # one late: nobody waits for an answer
        assert found["went on"] and found["second signal"] == signal.SIGUSR1


def test_a_stop_does_not_wait_for_long_work_of_one_or_of_all(told):
    for found in told:
        long = found["long"]
        assert long["in a share"] == signal.SIGTERM and 0 < long["done of it"] < 50
        assert long["in the lead's work"] == signal.SIGUSR1 and "went on" not in long


def alone(out, devices, folder):
    """One process of its own, to its end."""
    arguments = (*SMOOTH, *TINY, "--devices", str(devices), "--out", str(out))
    process = start(arguments, folder / "alone.log", devices)
    assert process.wait(900) == 0, (folder / "alone.log").read_text()


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """Four devices in one process."""
    folder = tmp_path_factory.mktemp("one")
    alone(folder / "run", 4, folder)
    return folder / "run"


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, one_process):
    """Two with two devices each, to which the slices are streamed; on the four of the one they lie all the time."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(one_process / "data", folder / "run" / "data")
    texts = both(lambda port, i: experiment(port, i, folder / "run", "--stream", "always"), folder)
    said = re.sub(r"\[Gloo\].*\n", "", texts[1])
    assert "Done." in texts[0] and not said, said  # only the lead speaks
    return folder / "run"


def epochs(run):
    return {(r["stage"], r["epoch"]): r for r in Journal(run / "metrics.jsonl").read()}


def same_run(a, b):
    """Losses, norms of gradients and validation measures to rounding, and the tables."""
    theirs, ours = epochs(a), epochs(b)
    assert theirs.keys() == ours.keys() and len(ours) >= 5
    for key, record in ours.items():
        for name, value in record.items():
            if isinstance(value, float) and "seconds" not in name:
                assert value == pytest.approx(theirs[key][name], rel=ROUNDING, abs=ROUNDING), (key, name)
    rows = [list(csv.DictReader((run / "cases.csv").read_text().splitlines())) for run in (a, b)]
    assert len(rows[0]) == len(rows[1]) == 6 * 4  # cases x stages
    for x, y in zip(*rows, strict=True):
        assert x["candidate"] == y["candidate"] and x["subject"] == y["subject"]
        assert float(x["dc_rv"]) == pytest.approx(float(y["dc_rv"]), abs=5e-3)


@slow
def test_two_processes_are_one_run(one_process, two_processes):
    same_run(one_process, two_processes)
    assert (two_processes / "report.html").exists() and (two_processes / "submission.zip").exists()
    assert not list(two_processes.rglob("*.partial"))


@slow
def test_going_on_with_another_number_of_devices(two_processes, one_process, tmp_path):
    """What two processes have begun, one device ends, from their checkpoints."""
    out = tmp_path / "run"
    shutil.copytree(two_processes, out)
    for name in ("stages", "report.html", "results.json"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for stage in ("refined", "control"):
        shutil.rmtree(out / "checkpoints" / f"{stage}-nnunet-SA")
    kept = [r for r in Journal(out / "metrics.jsonl").read() if r["stage"] not in ("refined", "control")]
    (out / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    alone(out, 1, tmp_path)
    same_run(one_process, out)


DYING = """
import os, signal, sys
from qcjax.config import Hosts
from qcjax.runtime import hosts

port, index, victim = (int(x) for x in sys.argv[1:])
hosts.start(True, Hosts(f"127.0.0.1:{port}", 2, index))
hosts.same(index)
if index == victim:
    os.kill(os.getpid(), signal.SIGKILL)
hosts.share(str, range(4))
"""


@slow
@pytest.mark.parametrize(("victim", "seconds"), [(0, 60), (1, 180)])
def test_a_killed_process_ends_the_others(tmp_path, victim, seconds):
    """None waits for ever: at once where the lead dies, after JAX's 100 s of silence where another does."""
    port, log = free_port(), tmp_path / "log"
    processes = [start(("-c", DYING, str(port), str(i), str(victim)), log) for i in range(2)]
    try:
        assert processes[victim].wait(120) == -signal.SIGKILL
        assert processes[1 - victim].wait(seconds) == -signal.SIGABRT
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_sigterm_is_ours_after_the_processes_have_met(tmp_path):
    """JAX's own service for it would swallow it."""
    script = (
        "import os, signal, time\n"
        "from qcjax.config import Hosts\n"
        "from qcjax.runtime import hosts\n"
        "from qcjax.runtime.exits import exit_code\n"
        "def run():\n"
        f"    hosts.start(True, Hosts('127.0.0.1:{free_port()}', 1, 0))\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "raise SystemExit(exit_code(run))\n"
    )
    assert start(("-c", script), tmp_path / "log").wait(120) == 75, (tmp_path / "log").read_text()


def test_one_process_is_all_of_it():
    assert (hosts.count(), hosts.index(), hosts.leads()) == (1, 0, True)
    assert hosts.lead(lambda: 1) == hosts.same(1) == 1
    assert hosts.share(lambda x: x + 1, [1, 2, 3], threads=1) == [2, 3, 4]
    assert hosts.gather_rows(np.ones((2, 3))).shape == (2, 3)
    assert StopAllReduce().reduce(None) is None and StopAllReduce().reduce(15) == 15


@pytest.mark.parametrize(
    ("distributed", "given", "words"),
    [
        (False, Hosts(count=2), "--hosts.count found without --distributed"),
        (True, Hosts(count=2), "--hosts.count found alone"),
        (True, Hosts("here:1", 2, 2), "--hosts.index: 2 found, expected 0 to 1"),
    ],
)
def test_who_the_others_are_must_be_said(distributed, given, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        hosts.start(distributed, given)


def test_without_a_cluster_they_must_be_named(tmp_path):
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "OMPI", "JOB_", "KUBE", "JAX_C"))
    }
    command = "from qcjax.config import Hosts; from qcjax.runtime import hosts; hosts.start(True, Hosts())"
    found = subprocess.run(
        [sys.executable, "-c", command],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1 and "ValueError: --distributed: no cluster found" in found.stderr


class Store(dict):
    """A coordinator's key-value store, of one process."""

    key_value_set_bytes = dict.__setitem__

    def blocking_key_value_get_bytes(self, key, milliseconds):
        return self[key]

    def wait_at_barrier(self, name, milliseconds):
        assert any(key.startswith("qcjax/") for key in self)

    def key_value_delete(self, key):
        for name in [name for name in self if name == key or name.startswith(f"{key}/")]:
            del self[name]


@pytest.mark.parametrize("length", [0, 1, 1024, 1025, 10_000])
def test_messages_go_in_parts_and_are_not_left_behind(monkeypatch, length):
    store = Store()
    monkeypatch.setattr(hosts, "MESSAGE", 1024)
    monkeypatch.setattr(hosts, "_coordinator", lambda: store)
    data = bytes(i % 251 for i in range(length))
    hosts._put(store, "here/0", data)
    assert hosts._get(store, "here/0") == data
    assert max(len(value) for value in store.values()) <= 1024 + 4
    assert hosts._broadcast(data) == data and hosts._exchange(data) == [data]
    assert all(key.startswith("here/") for key in store)
