"""The uncertainty paper (Arega et al., UNSURE 2021) on EMIDEC: `python -m experiments.emidec --help`."""

import sys
from collections.abc import Sequence
from typing import Any

from experiments.command import parse, results_folder, start
from experiments.presets import EMIDEC_PRESETS
from qcjax.config import EmidecConfig
from qcjax.data.datasets import emidec
from qcjax.runtime import hosts
from qcjax.runtime.progress import say
from qcjax.uncertainty.page import write_uncertainty_report
from qcjax.uncertainty.run import UncertaintyRun


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; returns the exit code."""
    options = sys.argv[1:] if argv is None else list(argv)
    config = parse(options, EmidecConfig, EMIDEC_PRESETS, "python -m experiments.emidec")
    return start(config, run_experiment)


def run_experiment(config: EmidecConfig) -> None:
    """Cross-validate every arm, measure accuracy, calibration and uncertainty, report.

    Raises ValueError or OSError for input that can't be used, FloatingPointError where training diverges.
    """
    run = UncertaintyRun(config, results_folder(config.out, "emidec"))
    subjects = run.subjects()
    say(emidec.describe(subjects))
    folds = emidec.folds(subjects, config.folds, config.seed)
    run.prepare(folds)

    records: dict[str, list[dict[str, Any]]] = {arm: [] for arm in config.arms}
    for fold in range(config.folds):
        # What to hold uncertainty against: quality control by an autoencoder of the same masks.
        monitor = run.monitor(folds, fold)
        for arm in config.arms:
            # Dropout samples while training, their variance in the loss (section 2.2), and their measures afterwards.
            variables = run.train(arm, fold)
            records[arm] += run.judge(arm, fold, variables, monitor)

    run.write_results(records)
    page = hosts.lead(lambda: write_uncertainty_report(run.folder))
    say(f"Done. Open {page}")


if __name__ == "__main__":
    sys.exit(main())
