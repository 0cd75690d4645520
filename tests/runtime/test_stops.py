"""Signals, exit codes, and what is told of a run that ends badly."""

import os
import resource
import signal
import subprocess
import sys
import threading

import pytest

from qcjax.runtime import stops
from qcjax.runtime.exits import exit_code
from qcjax.runtime.progress import bar
from qcjax.runtime.stops import Stopped, postponed, stoppable


def send(signum):
    return lambda: os.kill(os.getpid(), signum)


def fail(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        (lambda: None, 0, ""),
        (fail(ValueError("a.nii: found this, expected that")), 1, "error: a.nii: found this, expected that"),
        (fail(OSError(28, "No space left on device")), 1, "No space left on device"),
        (fail(MemoryError()), 1, "error: out of memory (MemoryError)"),
        (
            fail(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")),
            1,
            "allocating 9 bytes.)",
        ),
        (send(signal.SIGTERM), 75, "stopped by SIGTERM; started again with the same options, it goes on"),
        (send(signal.SIGUSR1), 75, "stopped by SIGUSR1"),
        (send(signal.SIGINT), 130, "stopped by SIGINT"),
    ],
)
def test_exit_codes_and_what_is_said(run, code, said, capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert exit_code(run) == code
    assert said in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before and stops.asked() is None


def test_what_nobody_expected_is_not_hidden():
    with pytest.raises(RuntimeError, match="a fault of ours"):
        exit_code(fail(RuntimeError("a fault of ours")))


def test_a_scheduler_with_a_code_of_its_own(monkeypatch, capsys):
    monkeypatch.setenv(stops.REQUEUE_VARIABLE, "99")
    assert exit_code(send(signal.SIGTERM)) == 99
    assert exit_code(send(signal.SIGINT)) == 130
    for text in ("0", "256", "requeue", "-1"):
        monkeypatch.setenv(stops.REQUEUE_VARIABLE, text)
        assert exit_code(lambda: pytest.fail("it runs")) == 1
        assert f"QCJAX_REQUEUE_EXIT_CODE: '{text}' found, expected an exit code" in capsys.readouterr().err


def test_a_stop_waits_for_what_must_not_be_cut(tmp_path):
    done = []
    with pytest.raises(Stopped), stoppable():
        with postponed():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # schedulers may send it twice
            done.append(stops.asked())
        stops.check()
    assert done == [signal.SIGTERM]


def test_a_second_ctrl_c_does_not_wait():
    with pytest.raises(Stopped), stoppable(), postponed():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it waited")


def test_a_stop_that_somebody_swallowed_takes_effect_after_the_next_unit(capsys):
    units = []
    with pytest.raises(Stopped), stoppable(), bar("cases", 3) as advance:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Stopped:
            units.append("swallowed")
        for i in range(3):
            units.append(str(i))
            advance()
    assert units == ["swallowed", "0"]


def test_another_thread_runs_without_signals():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(exit_code(lambda: None)))
    thread.start()
    thread.join()
    assert codes == [0]


HUNGRY = """
import sys
import resource
import numpy as np
from qcjax.runtime.exits import exit_code

def run():
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    np.ones(2**32, np.uint8)

sys.exit(exit_code(run))
"""


def test_a_memory_limit_gives_a_message():
    done = subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: out of memory (Unable to allocate 4.00 GiB")
    assert "Traceback" not in done.stderr and "use a smaller batch" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 2**31
