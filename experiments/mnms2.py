"""The refinement paper (Galati & Zuluaga, STACOM 2021) on M&Ms-2: `python -m experiments.mnms2 --help`."""

import sys
from collections.abc import Sequence
from functools import partial

from experiments.command import parse, results_folder, start
from experiments.presets import PRESETS
from qcjax.config import Mnms2Config
from qcjax.data.datasets import mnms2
from qcjax.data.subject import Subject
from qcjax.refinement.autoencoder import train_autoencoder
from qcjax.refinement.page import write_report
from qcjax.refinement.run import RefinementRun
from qcjax.refinement.stage_result import StageResult
from qcjax.refinement.treatment import baselines
from qcjax.runtime import hosts
from qcjax.runtime.progress import say
from qcjax.train.arm import Arm
from qcjax.train.segmenter import train_segmenter


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; returns the exit code."""
    config = parse(
        sys.argv[1:] if argv is None else list(argv), Mnms2Config, PRESETS, "python -m experiments.mnms2"
    )
    return start(config, run_experiment)


def run_experiment(config: Mnms2Config) -> None:
    """Every segmenter on every view, then the report.

    Raises ValueError or OSError for input that can't be used, FloatingPointError where training diverges.
    """
    run = RefinementRun(config, results_folder(config.out, "mnms2"))
    subjects = run.subjects()
    say(mnms2.describe(subjects))

    for view in run.views(subjects):
        data = run.prepare(subjects, view)
        for name in config.segmenter:
            run_arm(run, Arm(run.networks(name), data, run.folder, run.journal), subjects)

    run.write_results(subjects)
    page = hosts.lead(lambda: write_report(run.folder))
    say(f"Done. Open {page}")


def run_arm(run: RefinementRun, arm: Arm, subjects: Sequence[Subject]) -> None:
    """One segmenter on one view: the stages of the ablation."""
    # Supervised learning (section 2.2): R learns ground-truth masks; of M, the m_best models are kept.
    autoencoder = train_autoencoder(arm)
    supervised = train_segmenter(arm)

    # The single best; what is to be had without QC, where asked for (ours); QC-based selection among the m_best
    # (section 2.3).
    pool = run.pool(arm, autoencoder, supervised)
    run.stage(arm, "segmenter", subjects, autoencoder, lambda: StageResult.without_qc(pool))
    for name, treatment in baselines(run.config.inference).items():
        run.stage(arm, name, subjects, autoencoder, partial(StageResult.without_qc, pool, treatment))
    run.stage(arm, "selection", subjects, autoencoder, lambda: StageResult.of(pool))

    # Semi-supervised refinement on the OoD cases, then selection; and the same steps without those cases.
    refined = run.refine(arm, autoencoder, supervised, "refined")
    run.stage(arm, "refined", subjects, autoencoder, lambda: StageResult.of(refined))
    control = run.refine(arm, autoencoder, supervised, "control")
    run.stage(arm, "control", subjects, autoencoder, lambda: StageResult.of(control))

    # Per case the refined mask or that without QC, where asked for (ours): by predicted quality, by chance, by truth.
    run.gates(arm)


if __name__ == "__main__":
    sys.exit(main())
