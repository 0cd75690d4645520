"""The row of one epoch of refinement: train, validate, detect, refine, validate, detect."""

import shutil
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.session import Ours, Theirs
from experiments.benchmarks.timing import OURS, THEIRS, Measured, Row
from experiments.benchmarks.workload import VIEW
from qcjax.data.batches import in_batches
from qcjax.data.subject import PHASES
from qcjax.train.loop import run_steps
from qcjax.train.refinement_original import BestPredictions, Records, measure_rv
from qcjax.train.stages import Arm, validate_segmenter
from qcjax.train.state import TrainState, from_variables

EPOCH, EPOCHS = 200, 250  # the epoch from which the notebook refines, and the last
OOD_SUBJECTS = (
    1  # with both phases OoD on both sides, so that the amount of work doesn't depend on the weights
)


def epoch_row(ours: Ours, theirs: Theirs | None, folder: Path) -> Row:
    """The whole epoch, both sides from the same weights, on the same cohort, with the same OoD cases."""
    values: dict[str, list[float]] = {name: [] for name in (OURS, THEIRS)[: 1 if theirs is None else 2]}
    for turn in range(1 + ours.repeats):
        seconds = {OURS: our_epoch(ours, folder / "ours")}
        if theirs is not None:
            seconds[THEIRS] = their_epoch(theirs)
        if turn:
            for name, value in seconds.items():
                values[name].append(value)
    data = ours.arm.data
    work = (
        f"{len(data.training.owner)} labelled slices, {len(data.validation.cases)} validation and "
        f"{len(data.unlabelled.cases)} unlabelled cases, 2 of them taken as OoD"
    )
    measured = {name: Measured(tuple(v)) for name, v in values.items()}
    return Row("one refinement epoch", work, "s", measured, 2.0)


def ood_subject(ours: Ours) -> str:
    """The unlabelled subject with the smallest stacks: their code can't learn from one that exceeds a batch."""
    cohort = ours.arm.data.unlabelled
    slices: dict[str, int] = {}
    for case, count in zip(cohort.cases, np.diff(cohort.first).tolist(), strict=True):
        slices[case.subject] = max(count, slices.get(case.subject, 0))
    return min(slices, key=lambda code: slices[code])


def our_epoch(ours: Ours, folder: Path) -> float:
    """Seconds of one epoch of preset `original`."""
    arm = ours.arm
    networks, cohort = arm.networks, arm.data.unlabelled
    shutil.rmtree(folder, ignore_errors=True)
    best = BestPredictions(folder / "best")
    checkpoints = Arm(networks, arm.data, folder, arm.journal).checkpoints("refined", m_best=5)
    state = from_variables(arm.devices.replicate(ours.segmenter), networks.tx)
    autoencoder = arm.devices.replicate(ours.autoencoder)
    records = Records(cohort.phases)
    rate = np.float32(networks.rate(EPOCH - 1))
    first = ood_subject(ours)
    ood = [
        i for phase in PHASES for i, c in enumerate(cohort.cases) if (c.subject, c.phase) == (first, phase)
    ]

    def labelled() -> Iterator[tuple[Any, ...]]:
        for i, (indices, weight) in enumerate(
            zip(*arm.plan(None, networks.config.supervised.batch, 1), strict=True)
        ):
            yield networks.take(arm.data.slices, indices, weight), arm.step_key("refined", 1, i), rate

    def unlabelled() -> Iterator[tuple[Any, ...]]:
        selection, size = records.select(), networks.config.supervised.batch
        for case in ood:
            target = best.get(case, int(selection.first[case]), int(selection.second[case]))
            where = arm.data.unlabelled_indices[cohort.rows(case)].astype(np.int32)
            for i, (places, weight) in enumerate(zip(*in_batches(np.arange(len(where)), size), strict=True)):
                batch = networks.take(arm.data.slices, where[places], weight)
                key = arm.step_key("refined", 2, 1000 * case + i)
                yield batch, target[places], np.float32(EPOCH / EPOCHS), autoencoder, key, rate

    def evaluate(state: TrainState, number: int) -> None:
        record = validate_segmenter(arm, state)
        for case in np.flatnonzero(records.update(*measure_rv(arm, state.variables, autoencoder))):
            where = arm.data.unlabelled_indices[cohort.rows(int(case))]
            stack = networks.predictor.probabilities(state.variables, arm.data.slices, where)
            best.put(int(case), number, stack)
        records.ood()
        checkpoints.save(number + 1, record, state=jax.device_get(state))

    started = time.perf_counter()
    state, _ = run_steps(networks.supervised_step, state, labelled())
    evaluate(state, 0)
    state, _ = run_steps(networks.original_refinement_step, state, unlabelled())
    evaluate(state, 1)
    checkpoints.wait()
    jax.block_until_ready(state)
    elapsed = time.perf_counter() - started
    checkpoints.close()
    return elapsed


def their_epoch(theirs: Theirs) -> float:
    """Seconds of `semisupervised_refinement` over one epoch, from the end of its first validation."""
    u = theirs.originals.utils
    marks: list[float] = []
    u.epoch_end = lambda *_: marks.append(
        time.perf_counter()
    )  # it prints; here it tells when the epoch begins
    first = f"{ood_subject(theirs.ours)}_{VIEW}"

    validator = u.Validator(5)
    validator.get_anomalies = partial(_same_cases, first)

    with theirs.at_home(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # their quartiles of infinite distances
        u.semisupervised_refinement(
            theirs.segmenter(),
            theirs.autoencoder,
            range(EPOCH + 1, EPOCH + 2),
            theirs.slices(),
            theirs.patients("validation"),
            theirs.patients("unlabelled"),
            validator,
            u.Checkpointer("checkpoints"),
        )
    theirs.originals.wait()
    return time.perf_counter() - marks[0]


def _same_cases(patient: str, domain: str) -> dict[str, list[str]]:
    """In place of their detection; at module level, because their checkpoints pickle it."""
    return {phase: [patient] for phase in PHASES}
