"""The row of one epoch of refinement: train, validate, detect, refine, validate, detect."""

import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.session import Ours, Theirs
from benchmarks.timing import OURS, THEIRS, Measured, Row
from benchmarks.workload import VIEW
from qcjax.data.subject import PHASES
from qcjax.refinement.best_predictions import BestPredictions
from qcjax.refinement.refine_original import Records, case_batches, case_sizes, measure_and_keep
from qcjax.train.arm import Arm
from qcjax.train.segmenter import validate_segmenter
from qcjax.train.state import TrainState, from_variables
from qcjax.train.steps import run_steps

EPOCH, EPOCHS = 200, 250  # the epoch from which the notebook refines, and the last
PARTS = ("train", "validate", "detect", "refine")


class Clock:
    """Seconds of an epoch, as a whole and by part."""

    def __init__(self) -> None:
        self.total = 0.0
        self.parts = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs within it counts for a part."""
        started = time.perf_counter()
        yield
        self.parts[name] += time.perf_counter() - started


def epoch_row(ours: Ours, theirs: Theirs | None, folder: Path) -> Row:
    """The whole epoch, both sides from the same weights, on the same cohort, with the same OoD cases."""
    clocks: dict[str, list[Clock]] = {name: [] for name in (OURS, THEIRS)[: 1 if theirs is None else 2]}
    for turn in range(1 + ours.repeats):
        run = {OURS: our_epoch(ours, folder / "ours")}
        if theirs is not None:
            run[THEIRS] = their_epoch(theirs)
        if turn:
            for name, clock in run.items():
                clocks[name].append(clock)
    data = ours.arm.data
    work = (
        f"{len(data.training.owner)} labelled slices, {len(data.validation.cases)} validation and "
        f"{len(data.unlabelled.cases)} unlabelled cases, 2 of them taken as OoD"
    )
    measured = {name: Measured(tuple(clock.total for clock in found)) for name, found in clocks.items()}
    parts = {
        name: {part: statistics.median(clock.parts[part] for clock in found) for part in PARTS}
        for name, found in clocks.items()
    }
    extra = {f"{name}: {part}, s": value for name, of in parts.items() for part, value in of.items()}
    note = "; ".join(f"{name} spends {_in_words(of)}" for name, of in parts.items())
    return Row("one refinement epoch", work, "s", measured, 2.0, f"{note}.", extra)


def _in_words(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.3g} s to {part}" for part, value in parts.items())


def ood_subject(ours: Ours) -> str:
    """The unlabelled subject with the smallest stacks: their code can't learn from one that exceeds a batch.

    Both of its phases are taken as OoD on both sides, so that the amount of work doesn't depend on the weights.
    """
    cohort = ours.arm.data.unlabelled
    slices: dict[str, int] = {}
    for case, count in zip(cohort.cases, np.diff(cohort.first).tolist(), strict=True):
        slices[case.subject] = max(count, slices.get(case.subject, 0))
    return min(slices, key=lambda code: slices[code])


def our_epoch(ours: Ours, folder: Path) -> Clock:
    """One epoch of preset `original`."""
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
    clock = Clock()

    def labelled() -> Iterator[tuple[Any, ...]]:
        plan = arm.plan(None, networks.config.supervised.batch, 1)
        for i, (indices, weight) in enumerate(zip(*plan, strict=True)):
            yield networks.take(arm.data.slices, indices, weight), arm.step_key("refined", 1, i), rate

    def unlabelled() -> Iterator[tuple[Any, ...]]:
        selection, sizes = records.select(), case_sizes(arm)
        for case in ood:
            target = best.get(case, int(selection.first[case]), int(selection.second[case]))
            for i, (places, _, batch) in enumerate(case_batches(arm, case, sizes)):
                key = arm.step_key("refined", 2, 1000 * case + i)
                yield batch, target[places], np.float32(EPOCH / EPOCHS), autoencoder, key, rate

    def evaluate(state: TrainState, number: int) -> None:
        with clock.part("validate"):
            record = validate_segmenter(arm, state)
        with clock.part("detect"):
            measure_and_keep(arm, state.variables, autoencoder, records, best, number)
            records.ood()
        with clock.part("validate"):  # theirs saves its best models in there
            checkpoints.save(number + 1, record, state=state)

    started = time.perf_counter()
    with clock.part("train"):
        state = run_steps(networks.supervised_step, state, labelled()).state
    evaluate(state, 0)
    with clock.part("refine"):
        state = run_steps(networks.original_refinement_step, state, unlabelled()).state
    evaluate(state, 1)
    checkpoints.wait()
    jax.block_until_ready(state)
    clock.total = time.perf_counter() - started
    checkpoints.close()
    return clock


def their_epoch(theirs: Theirs) -> Clock:
    """`semisupervised_refinement` over one epoch, from the end of its first validation."""
    u = theirs.originals.utils
    clock, marks = Clock(), list[float]()

    def begin(*_: Any) -> None:  # in place of what prints an epoch's results; first before the epoch
        if not marks:
            clock.parts = dict.fromkeys(PARTS, 0.0)
        marks.append(time.perf_counter())

    def optimised(loader: Any, model: Any, ae: Any = None, *args: Any, **kwargs: Any) -> str:
        return "train" if ae is None else "refine"

    def evaluated(validator: Any, domain: str, *args: Any, **kwargs: Any) -> str:
        return "validate" if domain == "val" else "detect"

    validator = u.Validator(5)
    validator.get_anomalies = partial(_same_cases, f"{ood_subject(theirs.ours)}_{VIEW}")
    with (
        theirs.at_home(),
        warnings.catch_warnings(),
        _instead(u, "epoch_end", begin),
        _instead(u, "optimize_segmentation", _clocked(clock, optimised, u.optimize_segmentation)),
        _instead(  # of the class: their checkpoints pickle the validator
            u.Validator, "domain_evaluation", _clocked(clock, evaluated, u.Validator.domain_evaluation)
        ),
    ):
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
        clock.total = time.perf_counter() - marks[0]
    return clock


def _clocked(clock: Clock, part_of: Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose calls count for the part that their arguments tell."""

    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with clock.part(part_of(*args, **kwargs)):
            return function(*args, **kwargs)

    return timed


@contextmanager
def _instead(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within it, an attribute is another one."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _same_cases(patient: str, domain: str) -> dict[str, list[str]]:
    """In place of their detection; at module level, because their checkpoints pickle it."""
    return {phase: [patient] for phase in PHASES}
