"""What many devices and many processes cost and give: `python -m experiments.benchmarks.scaling --help`.

Devices are emulated ones of this machine's processor, which share its cores: that shows what the machinery costs, and
that the numbers are those of one device, and says nothing of speed-up.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments.benchmarks import machine
from experiments.benchmarks.inputs import threads
from experiments.benchmarks.scaling_steps import MACHINERY, PLAIN, STRONG, WEAK, StepSizes
from experiments.benchmarks.scoring_estimate import (
    CORES,
    MASKS,
    SUBJECTS,
    alone_at_a_time,
    device_seconds,
    estimate,
)
from experiments.benchmarks.scoring_parts import PartSizes
from qcjax import runtime
from qcjax.train.progress import say
from qcjax.wording import count_of

ROOT = Path(__file__).resolve().parents[2]
MOST_OVERHEAD_S = 1e-3
MOST_DIFFERENCE = 1e-4  # of losses
PLACES = ((1, 1), (1, 4), (8, 1), (8, 4))  # machines, shares on each
FLAG = "--xla_force_host_platform_device_count"
Lines = list[tuple[str, ...]]


@dataclass(frozen=True)
class ScalingSizes:
    """Of all that is measured."""

    counts: tuple[int, ...] = (1, 2, 4, 8)  # of devices
    rounds: int = 7
    steps: StepSizes = StepSizes()
    parts: PartSizes = PartSizes()


QUICK = ScalingSizes(
    counts=(1, 2),
    rounds=2,
    steps=StepSizes(size=16, width=2, stages=2, strong_batch=4, steps=1, loss_steps=2, trivial_steps=3),
    parts=PartSizes(size=64, slices=4, subjects=1, copies=1, width=2, rounds=2, merged=10),
)


@dataclass(frozen=True)
class Options:
    """Measures what many devices cost in each training step, whether their loss is that of one, and what scoring a mask
    takes, part by part; estimates from that how long a large cohort takes on one machine and on eight."""

    out: Path | None = None
    """File of the results, FILE.json; none: only the tables are printed."""
    quick: bool = False
    """Tiny sizes: shows that everything works; its figures mean nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns 1 where losses differ from one device's, else 0."""
    options = tyro.cli(Options, args=sys.argv[1:] if argv is None else list(argv))
    runtime.prepare()  # on a GPU, leave memory to the measuring process
    results: dict[str, Any] = {"machine": machine.describe({}), "quick": options.quick}
    results |= measure(QUICK if options.quick else ScalingSizes())
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    say(plain(results))
    return 0 if all(row["same"] for row in (*results["weak"], *results["strong"])) else 1


def measure(s: ScalingSizes) -> dict[str, Any]:
    """All results, as they are written."""
    names = (PLAIN, MACHINERY, WEAK, STRONG)
    seconds: dict[tuple[str, int], list[float]] = {(name, n): [] for name in names for n in s.counts}
    with ExitStack() as stack:
        children = {n: stack.enter_context(child(n, s.steps)) for n in s.counts}
        for turn in range(1 + s.rounds):  # the first warms up
            for name in names:
                for n, process in children.items():
                    elapsed = float(ask(process, name))
                    if turn:
                        seconds[name, n].append(elapsed)
        found = {n: process.found for n, process in children.items()}
    parts = run_parts(s.parts)
    device, source = device_seconds(parts)
    return {
        "note": f"emulated on {threads()} cores: shows overhead and correctness, not speed-up",
        "overhead": [overhead(n, seconds[PLAIN, n], seconds[MACHINERY, n]) for n in s.counts],
        "weak": [scaled(n, found[n][WEAK], seconds[WEAK, n]) for n in s.counts],
        "strong": [scaled(n, found[n][STRONG], seconds[STRONG, n]) for n in s.counts],
        "scoring_parts": parts,
        "scoring": {
            "masks": SUBJECTS * MASKS,
            "cores_per_machine": CORES,
            "device_seconds": device,
            "device_seconds_are": source,
            "serial_fraction_of_threads": alone_at_a_time(parts),
            "estimates": [asdict(estimate(parts, *place)) for place in PLACES],
        },
    }


def overhead(n: int, alone: Sequence[float], machinery: Sequence[float]) -> dict[str, Any]:
    """Of n devices against a plain jit on one: seconds per step, and their difference in each round."""
    extra = [b - a for a, b in zip(alone, machinery, strict=True)]
    return {
        "devices": n,
        "plain_s": spread(alone),
        "machinery_s": spread(machinery),
        "overhead_s": spread(extra),
        "within_limit": statistics.median(extra) <= MOST_OVERHEAD_S,
    }


def scaled(n: int, found: Mapping[str, float], seconds: Sequence[float]) -> dict[str, Any]:
    """Of n devices: seconds per step, and whether the loss is that of one device on the same batch."""
    difference = abs(found["loss"] - found["loss_of_one_device"])
    same = difference <= MOST_DIFFERENCE  # false for NaN
    return {"devices": n, "step_s": spread(seconds), **found, "difference": difference, "same": same}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


@dataclass(frozen=True)
class Child:
    """A process with some devices, all compiled."""

    process: subprocess.Popen[str]
    found: dict[str, dict[str, float]]


@contextmanager
def child(count: int, s: StepSizes) -> Iterator[Child]:
    """Start it, wait until it is ready, and end it."""
    job = json.dumps({"count": count, "sizes": asdict(s)})
    say(f"Compiling for {count_of(count, 'emulated device')}")
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.benchmarks.scaling_steps", job],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(count),
    )
    try:
        yield Child(process, json.loads(answer(process)))
    finally:
        process.kill()
        process.communicate()


def ask(child: Child, name: str) -> str:
    """A child's answer to a line."""
    assert child.process.stdin is not None
    child.process.stdin.write(name + "\n")
    child.process.stdin.flush()
    return answer(child.process)


def answer(process: subprocess.Popen[str]) -> str:
    """RuntimeError where it has ended instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(
            f"the measuring process has ended with code {process.wait()}; see its message above"
        )
    return line


def run_parts(s: PartSizes) -> dict[str, Any]:
    """What scoring a mask is made of."""
    say("Measuring the parts of scoring a mask")
    command = [sys.executable, "-m", "experiments.benchmarks.scoring_parts", json.dumps(asdict(s))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(None), check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def environment(count: int | None) -> dict[str, str]:
    """For a process with so many emulated CPU devices; None: with the devices that there are."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(FLAG)]
    changed = {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if count is not None:
        flags.append(f"{FLAG}={count}")
        changed["JAX_PLATFORMS"] = "cpu"
    return os.environ | changed | {"XLA_FLAGS": " ".join(flags)}


def plain(results: Mapping[str, Any]) -> str:
    """Tables for a terminal."""
    cost: Lines = [("devices", "plain jit", "machinery", "overhead per step", "at most 1 ms")]
    for row in results["overhead"]:
        values = (in_ms(row[name]) for name in ("plain_s", "machinery_s", "overhead_s"))
        cost.append((str(row["devices"]), *values, "yes" if row["within_limit"] else "no"))
    steps: Lines = [("scaling", "devices", "batch", "step", "loss", "of one device", "the same")]
    for name in ("weak", "strong"):
        for row in results[name]:
            losses = (f"{row[key]:.6f}" for key in ("loss", "loss_of_one_device"))
            same = "yes" if row["same"] else f"no: {row['difference']:.1e}"
            steps.append((name, str(row["devices"]), str(row["batch"]), in_ms(row["step_s"]), *losses, same))
    parts: Lines = [("part of scoring a mask", "time")]
    for name, seconds in results["scoring_parts"]["seconds"].items():
        parts.append((name, in_ms(spread(seconds))))
    scoring = results["scoring"]
    cohort: Lines = [
        ("machines", "shares on each", "masks/s", "hours", "bound by", "files, MiB/s per machine")
    ]
    for row in scoring["estimates"]:
        figures = (f"{row['masks_per_second']:.0f}", f"{row['hours']:.2g}", row["bound_by"])
        cohort.append((str(row["machines"]), str(row["shares"]), *figures, f"{row['mib_per_second']:.1f}"))
    gain = statistics.median(results["scoring_parts"]["gain_of_threads"])
    about = (
        f"Estimate for {scoring['masks']:,} masks on machines of {CORES} cores and one GPU each. "
        f"Device part of a mask: {1e3 * scoring['device_seconds']:.2f} ms, {scoring['device_seconds_are']}. "
        f"{results['scoring_parts']['threads']} threads did {gain:.2f} times the work of one here; more are by "
        f"Amdahl's law ({scoring['serial_fraction_of_threads']:.0%} one at a time)."
    )
    quick = ["Quick: tiny sizes. It shows that everything works; its figures mean nothing."]
    remarks = [machine.in_words(results["machine"]) + ".", *quick * results["quick"]]
    note = results["note"][0].upper() + results["note"][1:] + ". Median (lowest to highest)."
    return "\n\n".join([*map(aligned, (cost, steps)), note, *map(aligned, (parts, cohort)), about, *remarks])


def in_ms(values: Mapping[str, float]) -> str:
    """E.g. ``0.31 ms (0.30 to 0.35)``."""
    middle, low, high = (f"{1e3 * values[key]:.3g}" for key in ("median", "low", "high"))
    return f"{middle} ms ({low} to {high})"


def aligned(lines: Lines) -> str:
    """In columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
