"""How long a large cohort takes to be scored, from the measured parts of one mask: `qcjax score` on GPU machines."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.benchmarks.scoring_parts import HOST_PARTS

SUBJECTS, MASKS = 100_000, 2  # masks of each subject
CORES = 16  # of a machine, which has one GPU
GPU_FLOP_S = (
    5e12  # assumed: a third of the float32 peak of the GPUs of 2017, less than a tenth of those of 2023
)
BATCH_S = 1e-3  # assumed: for each batch's way to the GPU and back


@dataclass(frozen=True)
class Estimate:
    """Of the whole cohort on some machines, with some shares on each."""

    machines: int
    shares: int  # processes on each machine
    masks_per_second: float  # of all machines
    hours: float
    bound_by: str
    mib_per_second: float  # of files, read and written by one machine


def device_seconds(parts: Mapping[str, Any]) -> tuple[float, str]:
    """Of a mask, and where that is from: measured on a GPU, or assumed."""
    if parts["device"] != "cpu":
        return statistics.median(parts["seconds"]["device"]), f"measured on {parts['device']}"
    seconds = parts["flop"] / GPU_FLOP_S + parts["batches"] * BATCH_S
    assumed = f"{parts['flop'] / 1e9:.3g} GFLOP per mask at {GPU_FLOP_S / 1e12:g} TFLOP/s"
    return seconds, f"assumed: {assumed} and {1e3 * BATCH_S:g} ms per batch"


def alone_at_a_time(parts: Mapping[str, Any]) -> float:
    """The fraction of the host's work that threads of a process do one after the other: Amdahl's law, solved for it.

    From what threads gained where this was measured; 0 on a single processor, where nothing can be seen of it.
    """
    n, gain = parts["threads"], statistics.median(parts["gain_of_threads"])
    if n == 1:
        return 0.0
    return min(1.0, max(0.0, (n / gain - 1) / (n - 1)))


def estimate(parts: Mapping[str, Any], machines: int, shares: int) -> Estimate:
    """The slowest of what a mask passes through sets the pace; machines have nothing in common but the files."""
    median = {name: statistics.median(seconds) for name, seconds in parts["seconds"].items()}
    host = sum(median[name] for name in HOST_PARTS)
    device, _ = device_seconds(parts)
    serial, cores = alone_at_a_time(parts), CORES / shares
    rates = {
        "cores": CORES / host,
        "the interpreter's lock": shares / host / (serial + (1 - serial) / cores),
        "GPU": 1 / device,
        "main threads": shares / (device + median["journal"]),
    }
    if rates["the interpreter's lock"] >= 0.95 * rates["cores"]:
        rates.pop("the interpreter's lock")  # it costs next to nothing
    bound_by = min(rates, key=lambda name: rates[name])
    rate = rates[bound_by]
    n = SUBJECTS * MASKS
    seconds = n / (machines * rate) + n * median["merging"] * (machines * shares > 1)
    files = (parts["bytes_read"] + parts["bytes_written"]) / 2**20
    return Estimate(machines, shares, n / seconds, seconds / 3600, bound_by, rate * files)
