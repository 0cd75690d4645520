"""Kills at random moments, over a tiny run of all stages: `python tests/random_kills.py --help`.

A run that is never disturbed, and runs that are killed (SIGKILL) or told to stop (SIGTERM) at moments drawn at random
and started again until they end. All must end with the same tables, submission and weights, bit for bit. Too long for
the test suite: seconds to a minute for each kill.

Every start is a process of its own, forked from one that has imported everything and has computed nothing.
"""

# ruff: noqa: E402
import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

sys.path[0] = str(Path(__file__).parents[1])  # not tests/, whose rooms have the names of the packages

from experiments import mnms2
from qcjax.refinement.refine import Pool
from qcjax.runtime import jax_setup

# a heart in 64 × 64 pixels, networks of a few hundred weights
OPTIONS = (
    *("--preset", "demo", "--size", "64", "--spacing-mm", "4", "--devices", "1", "--views", "SA"),
    *("--supervised.width", "2", "--supervised.stages", "3", "--supervised.epochs", "2"),
    *("--supervised.steps", "4", "--supervised.batch", "4", "--supervised.m-best", "2"),
    *("--autoencoder.width", "2", "--autoencoder.latent", "4", "--autoencoder.epochs", "2"),
    *("--autoencoder.steps", "4", "--autoencoder.batch", "4"),
    *("--refinement.epochs", "2", "--refinement.steps", "4"),
    *("--refinement.labelled", "2", "--refinement.unlabelled", "2"),
    *("--subjects", "4", "1", "2"),
)


def run(out: Path, cache: Path) -> int:
    """One start; the first two cases are out of distribution whatever these networks give, so that all stages run."""
    detect = Pool.detect
    Pool.detect = lambda *args: (np.arange(len(detect(*args)[0])) < 2, detect(*args)[1])  # type: ignore[method-assign]
    jax_setup.prepare = lambda *args: None  # type: ignore[assignment]  # small functions are kept as well, so that a start takes less
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return mnms2.main([*OPTIONS, "--out", str(out)])


def start(out: Path, cache: Path, log: Path) -> int:
    """The number of a process of its own."""
    number = os.fork()
    if number:
        return number
    os.setpgrp()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = 70
    try:
        code = run(out, cache)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(number: int, seconds: float) -> int | None:
    """The exit code (minus the signal, where that ended it), or None where it runs on."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.01)


def outcome(out: Path) -> dict[str, str]:
    """Hashes of all that a run leaves, without times; in a process of its own, since this one must not compute."""
    reading, writing = os.pipe()
    if not os.fork():
        try:
            os.write(writing, json.dumps(_outcome(out)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = json.loads(pipe.read())
    os.wait()
    return dict(found)


def _outcome(out: Path) -> dict[str, str]:
    def digest(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()[:16]

    results = json.loads((out / "results.json").read_text())
    kept = {k: v for k, v in results.items() if k not in ("seconds", "peak_memory")}
    journal = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    lines = sorted(
        json.dumps({k: v for k, v in r.items() if not k.endswith("seconds")}, sort_keys=True) for r in journal
    )
    found = {
        "results.json": digest(json.dumps(kept, sort_keys=True).encode()),
        "metrics.jsonl": digest("\n".join(lines).encode()),
    }
    for name in ("cases.csv", "submission.zip"):
        found[name] = digest((out / name).read_bytes())
    for path in sorted((out / "predictions").rglob("*.nii.gz")):
        found[str(path.relative_to(out))] = digest(path.read_bytes())
    with ocp.StandardCheckpointer() as reader:
        for stage in sorted((out / "checkpoints").iterdir()):
            latest = max(int(p.name) for p in stage.iterdir() if p.name.isdecimal())
            leaves = jax.tree.leaves(reader.restore(stage.resolve() / str(latest) / "state"))
            found[f"{stage.name} {latest}"] = digest(b"".join(bytes(memoryview(x).cast("B")) for x in leaves))
    return found


def main() -> int:
    """Returns 0 where all ends are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="start no run after so many, whatever the kills"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "random_kills")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in ("compiling", "undisturbed", "killed"):
        shutil.rmtree(options.folder / name, ignore_errors=True)

    rng = random.Random(options.seed)
    cache, log = options.folder / "cache", options.folder / "log"
    seconds = 0.0
    for name in ("compiling", "undisturbed"):
        started = time.monotonic()
        if wait(start(options.folder / name, cache, log), 1e9):
            print(log.read_text())
            return 1
        seconds = time.monotonic() - started
        print(f"{name}: {seconds:.1f} s", flush=True)
    expected = outcome(options.folder / "undisturbed")
    print(f"{len(expected)} things compared", flush=True)
    began = time.monotonic()
    kills, ends, different, wrong_codes = {"SIGKILL": 0, "SIGTERM": 0}, 0, 0, 0
    while sum(kills.values()) < options.kills and time.monotonic() - began < 60 * options.minutes:
        out = options.folder / "killed"
        code: int | None = -1
        while code != 0:
            process = start(out, cache, log)
            signum = rng.choice((signal.SIGKILL, signal.SIGTERM))
            code = wait(process, rng.uniform(0, seconds / 2))  # what goes on from a kill has less to do
            if code is None:
                os.kill(process, signum)
                code = wait(process, 1e9)
                kills[signum.name] += code != 0
                before_the_handler = code == -signal.SIGTERM and not log.read_text().strip()
                expected_codes = (0, 75) if signum == signal.SIGTERM else (0, -signal.SIGKILL)
                if code not in expected_codes and not before_the_handler:
                    wrong_codes += 1
                    print(f"exit code {code} after {signum.name}:\n{log.read_text()[-3000:]}", flush=True)
            elif code:
                print(f"exit code {code}:\n{log.read_text()[-3000:]}")
                return 1
        found = outcome(out)
        wrong = [k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)]
        different += bool(wrong)
        ends += 1
        print(
            f"end {ends} after {kills}: {'differs in ' + ', '.join(wrong) if wrong else 'the same'}",
            flush=True,
        )
        shutil.rmtree(out)
    print(
        f"{sum(kills.values())} kills {kills}, {wrong_codes} of them with a wrong exit code; {ends} ends, "
        f"{ends - different} of them the same as undisturbed"
    )
    return 1 if different or wrong_codes else 0


if __name__ == "__main__":
    sys.exit(main())
