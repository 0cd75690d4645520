"""A process that is forked: before JAX has started it computes, afterwards it says what to do, and hangs never."""

import subprocess
import sys

import pytest

AROUND = """
import os, sys, warnings
warnings.simplefilter("ignore")  # Python and JAX warn of the fork itself
import numpy as np
from qcjax.runtime.devices import SHARDED, Devices

def forked(*functions):
    sys.stdout.flush()
    child = os.fork()
    if not child:
        for function in functions:
            try:
                print(function())
            except RuntimeError as error:
                print(error)
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""

BEFORE = """
def work():
    devices = Devices(1)
    return devices.compile(lambda x: x + 1, (SHARDED,))(devices.shard(np.ones(1)))[0]

forked(work)
print(work())
"""

AFTER = """
from pathlib import Path
import jax
from qcjax.inference.monitor import Monitor, build_autoencoder

sizes = {"width": 1, "latent": 1, "dropout": 0.0, "initialisation": "paper"}
network = build_autoencoder(1, sizes)
shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 64, 64, 2)))
variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
about = {"structures": ["lv"], "labels": {"lv": 1}, "size": 64, "spacing_mm": 1.5, "preset": "paper"}
devices = Devices(1)
monitor = Monitor(Path("monitor"), about | {"autoencoder": sizes}, network, variables, devices)

def judge():
    mask = np.zeros((64, 64, 2), np.uint8)
    mask[20:40, 20:40] = 1
    return len(monitor.score(mask, (1.5, 1.5, 8.0)).pdc)

print(judge())
forked(judge, lambda: Devices(1), lambda: devices.replicate(np.ones(1)), lambda: devices.shard(np.ones(1)))
print(judge())
"""


def said(script: str) -> list[str]:
    """The lines of a process that has three minutes; a child that hung would take it with it."""
    done = subprocess.run(
        [sys.executable, "-c", AROUND + script], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_forked_before_jax_has_started_both_compute() -> None:
    assert said(BEFORE) == ["2.0", "2.0"]


@pytest.mark.parametrize("use", range(4), ids=["Monitor.score", "Devices", "replicate", "shard"])
def test_forked_afterwards_every_use_says_spawn(use: int, lines: list[str]) -> None:
    assert "after JAX had started there" in lines[1 + use] and '"spawn"' in lines[1 + use]


def test_the_process_itself_goes_on(lines: list[str]) -> None:
    assert lines[0] == lines[-1] == "1" and len(lines) == 6


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return said(AFTER)
