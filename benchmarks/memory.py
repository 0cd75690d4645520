"""Peak memory of a training step, each side in a process of its own, as it is when it starts for the first time."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.clones import Clones
from benchmarks.inputs import Sizes, network_input, shape_of, targets
from benchmarks.timing import OURS, THEIRS, Measured, Row
from qcjax.runtime.memory import host_peak_bytes

ROOT = Path(__file__).resolve().parents[2]
STEPS = 2  # the optimiser has its own arrays from the first on
MIB = 2**20


def memory_row(name: str, s: Sizes, clones: Clones | None) -> Row:
    """Peak resident memory of a process that makes a few training steps, on a GPU its peak memory there, in MiB."""
    measured = {OURS: Measured((_in_process(OURS, name, s, clones),))}
    if clones is not None:
        measured[THEIRS] = Measured((_in_process(THEIRS, name, s, clones),))
    batch, *space = shape_of(name, s)
    work = f"batch {batch} of {'×'.join(str(n) for n in space)}, the whole process"
    return Row(f"peak memory, train step, {name}", work, "MiB", measured, 1.0)


def _in_process(side: str, name: str, s: Sizes, clones: Clones | None) -> float:
    job = {"side": side, "name": name, "sizes": asdict(s)}
    if clones is not None:
        job["clones"] = [str(clones.refinement), str(clones.monitoring)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    with TemporaryDirectory() as nothing_compiled:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", json.dumps(job)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "JAX_COMPILATION_CACHE_DIR": nothing_compiled},
        )
    if done.returncode:
        raise RuntimeError(
            f"peak memory of {side}, {name}: exit code {done.returncode}\n{done.stderr[-2000:]}"
        )
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mib"])


def main(job: dict[str, Any]) -> None:
    """In the process of its own: make the steps, print the peak."""
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in job["sizes"].items()}
    s = Sizes(**given)
    peak = _ours(job["name"], s) if job["side"] == OURS else _theirs(job, s)
    print(json.dumps({"peak_mib": peak}))


def _ours(name: str, s: Sizes) -> float:
    import jax

    from benchmarks.networks import our_step
    from qcjax.runtime import jax_setup

    jax_setup.prepare()
    contestant = our_step(name, s)
    for _ in range(STEPS):
        contestant.run()
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / MIB if "peak_bytes_in_use" in stats else host_peak_bytes() / MIB


def _theirs(job: dict[str, Any], s: Sizes) -> float:
    import torch

    from benchmarks.originals import Originals

    originals = Originals(Clones(*(Path(c) for c in job["clones"])))
    name = job["name"]
    model = originals.network(name)
    x = originals.tensor(network_input(name, s))
    scales = [originals.tensor(t) for t in targets(name, s)]
    step = originals.train_step(model, model, x, scales)
    for _ in range(STEPS):
        step()
    return (
        torch.cuda.max_memory_allocated() / MIB
        if originals.device.type == "cuda"
        else host_peak_bytes() / MIB
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
