"""What scoring a mask is made of, measured part by part, in a process of its own: `scaling` starts it.

The masks are a phantom's. The reconstructions are these masks moved by a pixel, for those of an untrained network would
be noise, which takes longer to measure than any mask.
"""

import json
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `qcjax score` sets it, before NumPy loads

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nibabel
import numpy as np

from experiments.benchmarks.inputs import threads
from qcjax import runtime
from qcjax.data.mask_cohort import MaskCase
from qcjax.data.masks import find_masks
from qcjax.data.phantom import make_subject
from qcjax.labels import CARDIAC
from qcjax.models import MaskAutoencoder
from qcjax.monitor import BATCH, Monitor, Prepared, build_autoencoder
from qcjax.score_stream import GROUP, Case, Stream
from qcjax.score_table import ScoreJournal, summarise, write_table
from qcjax.train.parallel import Devices
from qcjax.train.state import adam, create

SPACING_MM, MONITOR_MM = (1.4, 1.4, 10.0), 1.25  # so that masks are resampled, as most are
HOST_PARTS = ("reading", "preparing", "measuring", "writing")  # in threads; the others one after the other


@dataclass(frozen=True)
class PartSizes:
    """Of the masks, of R, and how often."""

    size: int = 256
    slices: int = 10
    subjects: int = 4  # different ones, of two masks each
    copies: int = 4  # of each mask
    width: int = 32  # of R
    rounds: int = 5
    merged: int = 2000  # lines


def measure(s: PartSizes, folder: Path) -> dict[str, Any]:
    """Seconds per mask of each part, in each round; bytes per mask; what threads gain; R's operations per mask."""
    files = write_masks(s, folder / "masks")
    network = autoencoder(s)
    monitor = untrained_monitor(s, network)
    stream = Stream(monitor, folder / "out", monitor.labels, 50.0, 0.5)
    rounds: dict[str, list[float]] = {
        name: [] for name in (*HOST_PARTS, "device", "journal", "merging", "threads")
    }
    serial: list[float] = []
    journal = ScoreJournal(folder / "scores.jsonl")
    one_round(stream, files, journal)  # compiles, and fills caches
    for _ in range(s.rounds):
        found = one_round(stream, files, journal)
        serial.append(sum(found[name] for name in HOST_PARTS))
        found["merging"] = merge(journal, s.merged, folder)
        found["threads"] = in_threads(stream, files)
        for name, seconds in found.items():
            rounds[name].append(seconds)
    gain = [alone / together for alone, together in zip(serial, rounds.pop("threads"), strict=True)]
    written = sum(path.stat().st_size for path in (folder / "out").rglob("*.nii.gz"))
    return {
        "seconds": rounds,
        "gain_of_threads": gain,
        "threads": threads(),
        "bytes_read": sum(file.path.stat().st_size for file in files) / len(files),
        "bytes_written": written / len(files),
        "device": jax.devices()[0].platform,
        "flop": flop_of_slice(network, s.size) * s.slices,
        "batches": s.slices / BATCH,
    }


def write_masks(s: PartSizes, folder: Path) -> list[MaskCase]:
    """Short-axis masks (size, size, slices) of synthetic subjects, both phases, and copies of them."""
    folder.mkdir(parents=True)
    for code in range(1, s.subjects + 1):
        for (view, phase), image in make_subject(code, "train", 0, s.size / 256).images.items():
            if view == "SA":
                labels = centred(image.label, (s.size, s.size, s.slices))
                first = folder / f"p{code}_{phase}_0.nii.gz"
                nibabel.save(nibabel.Nifti1Image(labels, np.diag([*SPACING_MM, 1.0])), first)
                for copy in range(1, s.copies):
                    shutil.copy(first, folder / f"p{code}_{phase}_{copy}.nii.gz")
    return find_masks(folder)


def centred(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The middle of an array, cropped or padded with zeros to a shape."""
    for axis, n in enumerate(shape):
        extra = n - labels.shape[axis]
        before, after = max(extra, 0) // 2, max(extra, 0) - max(extra, 0) // 2
        pad = [(before, after) if i == axis else (0, 0) for i in range(labels.ndim)]
        first = max(-extra, 0) // 2
        labels = np.pad(np.take(labels, range(first, first + min(n, labels.shape[axis])), axis), pad)
    return labels


def autoencoder(s: PartSizes) -> MaskAutoencoder:
    """R, for three structures."""
    sizes = {"width": s.width, "latent": 100, "dropout": 0.5, "initialisation": "he_normal"}
    return build_autoencoder(len(CARDIAC), sizes)


def untrained_monitor(s: PartSizes, network: MaskAutoencoder) -> Monitor:
    """A monitor whose R has its first weights."""
    sample = jnp.zeros((1, s.size, s.size, network.classes))
    variables = create(network, adam(), jax.random.key(0), sample).variables
    description = {
        "structures": [structure.key for structure in CARDIAC],
        "labels": {structure.key: structure.id for structure in CARDIAC},
        "size": s.size,
        "spacing_mm": MONITOR_MM,
        "preset": "paper",
    }
    return Monitor(Path(), description, network, variables, Devices(1))


def one_round(stream: Stream, files: Sequence[MaskCase], journal: ScoreJournal) -> dict[str, float]:
    """Every mask through every part, one after the other: seconds per mask."""
    spent = dict.fromkeys((*HOST_PARTS, "device", "journal"), 0.0)
    with clocked(stream.monitor, "prepare") as preparing, clocked(stream.monitor, "assess") as measuring:
        cases = []
        for file in files:
            with clock(spent, "reading"):
                cases.append(stream.read(file))
        for first in range(0, len(cases), GROUP):
            with clock(spent, "device"):
                stream.monitor.reconstruct([prepared_of(case) for case in cases[first : first + GROUP]])
        for case in cases:
            moved = moved_by_a_pixel(case)
            with clock(spent, "writing"):
                line = stream.finish(case, moved, 0.0)
            if line["status"] == "error":
                raise RuntimeError(f"{case.file.path}: {line['error']}")
            with clock(spent, "journal"):
                journal.append(line)
    spent |= {"preparing": sum(preparing), "measuring": sum(measuring)}
    spent["reading"] -= spent["preparing"]
    spent["writing"] -= spent["measuring"]
    return {name: seconds / len(files) for name, seconds in spent.items()}


def in_threads(stream: Stream, files: Sequence[MaskCase]) -> float:
    """The host's parts in as many threads as there are processors: seconds per mask."""

    def one(file: MaskCase) -> None:
        case = stream.read(file)
        stream.finish(case, moved_by_a_pixel(case), 0.0)

    with ThreadPoolExecutor(threads()) as pool:
        started = time.perf_counter()
        list(pool.map(one, files))
        return (time.perf_counter() - started) / len(files)


def merge(journal: ScoreJournal, n: int, folder: Path) -> float:
    """Reading a share's journal, copying it and writing the table: seconds per mask."""
    lines = list(journal.lines(journal.entries.values()))
    share, whole = folder / "share.jsonl", folder / "whole.jsonl"
    for path in (share, whole):
        path.unlink(missing_ok=True)
    ScoreJournal(share).append(
        *(line | {"path": f"{line['path']}{i}"} for i, line in enumerate((lines * n)[:n]))
    )
    keys = [structure.key for structure in CARDIAC]
    started = time.perf_counter()
    theirs, ours = ScoreJournal(share, theirs=True), ScoreJournal(whole)
    ours.append(*theirs.lines(theirs.entries.values()))
    entries = sorted(ours.entries.values(), key=lambda entry: (entry.name, entry.path))
    write_table(folder / "scores.csv", ours.lines(entries), keys)
    summarise(entries, ours.lines(entries), keys)
    return (time.perf_counter() - started) / n


def flop_of_slice(network: MaskAutoencoder, size: int) -> float:
    """Floating-point operations of R on one slice."""
    shape = jax.ShapeDtypeStruct((1, size, size, network.classes), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), shape)
    cost: Any = jax.jit(network.apply).lower(variables, shape).cost_analysis()
    return float(cost["flops"])


def prepared_of(case: Case) -> Prepared:
    """RuntimeError for a mask that couldn't be read."""
    if case.prepared is None:
        raise RuntimeError(f"{case.file.path}: {case.line}")
    return case.prepared


def moved_by_a_pixel(case: Case) -> np.ndarray:
    """(slices, size, size), as R gives."""
    return np.roll(prepared_of(case).stack, 1, 2)


@contextmanager
def clock(spent: dict[str, float], name: str) -> Iterator[None]:
    """Adds the seconds within it."""
    started = time.perf_counter()
    yield
    spent[name] += time.perf_counter() - started


@contextmanager
def clocked(owner: Any, name: str) -> Iterator[list[float]]:
    """Notes the seconds of every call of a method."""
    method: Callable[..., Any] = getattr(owner, name)
    found: list[float] = []

    def timed(*args: Any) -> Any:
        started = time.perf_counter()
        result = method(*args)
        found.append(time.perf_counter() - started)
        return result

    setattr(owner, name, timed)
    try:
        yield found
    finally:
        delattr(owner, name)


def main(job: dict[str, Any]) -> None:
    """In the process of its own: measure, print."""
    runtime.prepare()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(PartSizes(**job), Path(folder))))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
