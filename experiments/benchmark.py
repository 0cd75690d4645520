"""How fast it is, beside the authors' PyTorch code: `python -m experiments.benchmark --help`."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import tyro

from benchmarks import cases, clones, machine, memory, networks, refinement, report
from benchmarks.inputs import NETWORKS, NETWORKS_3D, Sizes, sizes
from benchmarks.session import Ours, Theirs
from benchmarks.timing import Row
from benchmarks.workload import Workload
from qcjax.runtime import jax_setup
from qcjax.runtime.exits import exit_code
from qcjax.runtime.progress import say

Measurements = Mapping[str, Callable[[], Row]]


@dataclass(frozen=True)
class Options:
    """Measures training, inference, validation, QC and one refinement epoch; beside the PyTorch originals where their
    clones are given: taking turns in one run, with the same batches, precision and number of threads."""

    mnms2: Path | None = None
    """Clone of robustml-eurecom/MnMs2, the refinement paper's code."""
    quality_control: Path | None = None
    """Clone of robustml-eurecom/quality_control_CMR, the monitoring paper's code."""
    data: Path | None = None
    """Folder of an M&Ms-2 data set for the cohort; none: a synthetic one."""
    rows: tuple[str, ...] = ()
    """Only rows of these names, or with one of these texts in their name, such as "train step"; none: all."""
    out: Path | None = None
    """Folder of the results. Default: runs/benchmark-<time>."""
    quick: bool = False
    """Tiny inputs: shows that everything works; its figures mean nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = tyro.cli(Options, args=sys.argv[1:] if argv is None else list(argv))
    return exit_code(lambda: run(options))


def run(options: Options) -> None:
    """Raises ValueError for clones that can't be used, or rows that there are not."""
    found = clones.find(options.mnms2, options.quality_control)
    jax_setup.prepare()
    jax.config.update("jax_compilation_cache_dir", None)  # compilation is measured too
    folder = (options.out or Path("runs") / f"benchmark-{datetime.now():%Y%m%d-%H%M%S}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "machine": machine.describe(
            {} if found is None else {"MnMs2": found.refinement, "quality_control_CMR": found.monitoring}
        ),
        "quick": options.quick,
    }
    say(machine.in_words(results["machine"]))
    originals: Any | None = None
    if found is None:
        results["hint"] = clones.WHERE
        say(clones.WHERE)
    else:
        from benchmarks.originals import Originals

        originals = Originals(found)

    s = sizes(options.quick, found is not None)
    results["repeats"] = s.repeats
    started = time.monotonic()
    wanted = chosen(measurements(s, options.data, folder, found, originals), options.rows)
    rows: list[Row] = []
    for name, measure in wanted.items():
        say(f"[{(time.monotonic() - started) / 60:.1f} min] Measuring: {name}")
        rows.append(measure())
        report.write(folder, results, rows)  # so that a run cut short leaves what it has
    if any("tflop" in row.extra for row in rows):
        results["ceiling_tflop_s"] = dict(networks.matmul_ceiling(s, originals))
        results["shares"] = networks.shares(rows, results["ceiling_tflop_s"])
    results["minutes"] = (time.monotonic() - started) / 60
    report.write(folder, results, rows)
    say((folder / "benchmark.txt").read_text(encoding="utf-8"))
    say(f"Results are in {folder}, after {results['minutes']:.1f} min")


def chosen(measurements: Measurements, texts: Sequence[str]) -> Measurements:
    """The rows of these names, or with one of the texts in their name; all of them where there are no texts.

    Raises ValueError for a text that is in none.
    """
    wanted: set[str] = set()
    for text in texts:
        found = {text} if text in measurements else {name for name in measurements if text in name}
        if not found:
            names = ", ".join(f'"{name}"' for name in measurements)
            raise ValueError(f"--rows {text}: no such row, expected a part of one of {names}")
        wanted |= found
    return {name: measure for name, measure in measurements.items() if not texts or name in wanted}


def measurements(
    s: Sizes, data: Path | None, folder: Path, found: clones.Clones | None, originals: Any | None
) -> Measurements:
    """The rows of the table, by name, to be measured one after another."""

    @cache
    def cohort() -> tuple[Ours, Theirs | None]:
        say("Preparing the cohort, and training for a few steps")
        workload = Workload.open(s, data, folder)
        ours = Ours.open(workload, folder / "ours")
        return ours, None if originals is None else Theirs.open(originals, workload, ours, folder / "theirs")

    rows: dict[str, Callable[[], Row]] = {}
    for kind in ("train step", "inference"):
        for name in (*NETWORKS, *NETWORKS_3D):
            rows[f"{kind}, {name}"] = partial(networks.network_row, name, kind, s, originals)
    for name in (*NETWORKS, *NETWORKS_3D):
        rows[f"peak memory, train step, {name}"] = partial(memory.memory_row, name, s, found)
    return rows | {
        "loading and augmentation, per slice": lambda: cases.loading_row(*cohort()),
        "validation, per subject": lambda: cases.validation_row(*cohort()),
        "QC of one case, mask in, scores out": lambda: cases.qc_row(*cohort()),
        "Dice and HD of one case": lambda: cases.metrics_row(*cohort()),
        "writing a prediction back to its grid": lambda: cases.writing_row(*cohort(), folder),
        "one refinement epoch": lambda: refinement.epoch_row(*cohort(), folder),
    }


if __name__ == "__main__":
    sys.exit(main())
