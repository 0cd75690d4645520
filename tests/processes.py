"""Two processes with emulated devices, which make one run over gloo."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start(arguments, log, devices=2):
    """A process of its own, with emulated devices."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    other = " ".join(f for f in flags if "device_count" not in f)
    environment = dict(os.environ)
    environment |= {
        "XLA_FLAGS": f"{other} --xla_force_host_platform_device_count={devices}".strip(),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, *arguments]
    with log.open("wb") as file:  # the process has its own
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def both(make, folder):
    """Two processes to their end; their logs."""
    port, logs = free_port(), [folder / f"{i}.log" for i in range(2)]
    processes = [start(make(port, i), logs[i]) for i in range(2)]
    try:
        codes = [process.wait(600) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    texts = [log.read_text() for log in logs]
    assert codes == [0, 0], texts
    return texts


def cluster(port, index):
    """Options that make a process one of two."""
    name = ("--hosts.coordinator", f"127.0.0.1:{port}", "--hosts.count", "2", "--hosts.index", str(index))
    return ("--distributed", *name)
