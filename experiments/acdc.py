"""The monitoring paper (Galati & Zuluaga, FIMH 2021) on ACDC: `python -m experiments.acdc --help`."""

import sys
from collections.abc import Sequence

from experiments.command import parse, results_folder, start
from experiments.presets import ACDC_PRESETS
from qcjax.config import AcdcConfig
from qcjax.data.datasets import acdc
from qcjax.monitoring.page import write_monitoring_report
from qcjax.monitoring.run import MonitoringRun
from qcjax.runtime import hosts
from qcjax.runtime.progress import say


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; returns the exit code."""
    options = sys.argv[1:] if argv is None else list(argv)
    config = parse(options, AcdcConfig, ACDC_PRESETS, "python -m experiments.acdc")
    return start(config, run_experiment)


def run_experiment(config: AcdcConfig) -> None:
    """Train the monitor, judge the masks of several methods, compare with the truth, report.

    Raises ValueError or OSError for input that can't be used, FloatingPointError where training diverges, ImportError
    where --rca is asked for without SimpleITK.
    """
    run = MonitoringRun(config, results_folder(config.out, "acdc"))
    subjects = run.subjects()
    say(acdc.describe(subjects))
    split = acdc.split(subjects, config.seed)
    if split.note:
        say(split.note)
    run.check(split)

    # An autoencoder learns plausible masks from ground truth alone (section 2.1).
    monitor = run.monitor(split)

    # It judges the masks of several methods by how well it rebuilds them (section 2.2); so do RCA, the agreement of the
    # methods, and rules of anatomy.
    masks = run.masks(split)
    rows = run.judge(monitor, split, masks)
    rca_seconds = run.rca(split, masks, rows)

    # What is certainly wrong must be found: damaged ground truth.
    damage = run.damage(monitor, split)

    run.write_results(monitor, split, rows, damage, rca_seconds)
    page = hosts.lead(lambda: write_monitoring_report(run.folder))
    say(f"Done. Open {page}")


if __name__ == "__main__":
    sys.exit(main())
