"""Detection of out-of-distribution (OoD) cases and semi-supervised refinement (refinement paper, sections 2.2, 2.3)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from qcjax import qc
from qcjax.data.batches import Plan, cycled, side_by_side
from qcjax.labels import CARDIAC, RV
from qcjax.qc.components import keep_largest
from qcjax.refinement.measuring import measure_cases
from qcjax.refinement.treatment import common_treatment
from qcjax.runtime.messages import sendable
from qcjax.train.arm import Arm
from qcjax.train.checkpoint import Candidate, Checkpoints
from qcjax.train.loop import fit
from qcjax.train.segmenter import validate_segmenter
from qcjax.train.stage import LOSS, Record, Stage
from qcjax.train.state import TrainState
from qcjax.typing import Bool, Float, Integer, Variables

RV_INDEX = CARDIAC.index(RV)


@sendable
class Decision(NamedTuple):
    """What QC decides over some candidates for the n cases of D_te."""

    selection: qc.Selection
    ood: np.ndarray  # (n,)
    thresholds: dict[str, dict[str, float]]  # phase -> low (pDC), and up with its unit (pHD)


@dataclass
class CandidatePool:
    """The candidates of some stages of an arm, and what is known of them on D_te."""

    arm: Arm
    autoencoder: Variables
    stages: list[Checkpoints]
    measures: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def m_best(self) -> int:
        """How many candidates there are at the most."""
        return self.arm.networks.config.supervised.m_best

    def load(self, candidate: Candidate) -> Variables:
        """Its weights, on the devices."""
        checkpoints = next(c for c in self.stages if c.stage == candidate.stage)
        return self.arm.load(checkpoints, candidate)


@dataclass
class Pool(CandidatePool):
    """The m_best of supervised training, or of the stage that follows it: each has a contest of its own.

    What learns from cases unlike D_val's loses thousandths of loss there, and could hardly win against what doesn't.
    """

    def candidates(self, more: tuple[Candidate, ...] = ()) -> list[Candidate]:
        """The m_best by validation loss of the later stage's models, and `more` among them if they are that good.

        Until there is one, those of supervised training.
        """
        supervised, *later = self.stages
        found = {(c.stage, c.epoch): c for stage in later for c in stage.candidates()}
        found |= {(c.stage, c.epoch): c for c in more}
        own = sorted(found.values(), key=lambda c: (c.loss, -c.epoch))[: self.m_best]
        return own or supervised.candidates()

    def measure(
        self, candidate: Candidate, variables: Variables | None = None
    ) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
        """pDC and pHD in mm of every case of D_te and structure, (n, 3) each; computed once per candidate."""
        key = (candidate.stage, candidate.epoch)
        if key not in self.measures:
            self.measures[key] = measure_unlabelled(
                self.arm, variables or self.load(candidate), self.autoencoder
            )
        return self.measures[key]

    def rv_measures(
        self, candidates: list[Candidate]
    ) -> tuple[Float[np.ndarray, "m n"], Float[np.ndarray, "m n"]]:
        """pDC and pHD in mm of the RV, (m, n) each."""
        pdc, phd = zip(*(self.measure(c) for c in candidates), strict=True)
        return np.stack(pdc)[..., RV_INDEX], np.stack(phd)[..., RV_INDEX]

    def detect(
        self, candidates: list[Candidate], cases: Integer[np.ndarray, " m"] | None = None
    ) -> tuple[Bool[np.ndarray, " n"], dict[str, qc.Thresholds]]:
        """Which cases of D_te are OoD, (n,), and the thresholds of each phase; only some `cases` are looked at."""
        pdc, phd = self.rv_measures(candidates)
        phases = self.arm.data.unlabelled.phases
        cases = np.arange(len(phases)) if cases is None else cases
        pdc, phd, phases = pdc[:, cases], phd[:, cases], phases[cases]
        limits = qc.thresholds_by_phase(pdc, phd, phases)
        found = np.zeros(len(self.arm.data.unlabelled.cases), bool)
        found[cases] = qc.out_of_distribution(pdc, phd, qc.by_phase(limits, phases))
        return found, limits

    def to_refine_on(self, candidates: list[Candidate]) -> Bool[np.ndarray, " n"]:
        """The OoD cases among those that refinement looks at, (n,) of D_te."""
        return self.detect(candidates, self.arm.data.refined_on)[0]

    def decide(self, candidates: list[Candidate]) -> Decision:
        """QC-based selection (section 2.3) and OoD detection over given candidates."""
        ood, limits = self.detect(candidates)
        up = qc.by_phase(limits, self.arm.data.unlabelled.phases).up
        thresholds = {phase: {"low": float(t.low), "up_mm": float(t.up)} for phase, t in limits.items()}
        return Decision(qc.select(*self.rv_measures(candidates), up), ood, thresholds)


def measure_unlabelled(
    arm: Arm, variables: Variables, autoencoder: Variables
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """pDC and pHD in mm of a segmenter on every case of D_te: (n, 3) each, on the prepared grid."""
    geometries = arm.data.unlabelled.geometries
    single = common_treatment(arm.networks.config.inference).largest

    def measure(case: int, mask: np.ndarray, rebuilt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return qc.pseudo_measures(keep_largest(mask, single), rebuilt, geometries[case].spacing_mm)

    return measure_cases(arm, variables, autoencoder, measure)


class RefinementStage(Stage):
    """Refinement of the best supervised model ("refined"), or the same steps without the OoD cases ("control").

    Epoch k of "refined" learns from labelled slices and from those of the cases that are OoD after k − 1, with α = 1/k
    (Eq. 2), until no case is OoD. "control" has α = 0 and no OoD slices, which is what more supervised training alone
    would have done.
    """

    def __init__(self, pool: Pool, stage: str, epochs: int, learn_from_ood: bool) -> None:
        arm = pool.arm
        self.pool, self.arm, self.stage, self.learn_from_ood = pool, arm, stage, learn_from_ood
        self.identity, self.epochs = arm.identity(stage), epochs
        self.config = arm.networks.config.refinement
        self.rate = np.float32(self.config.learning_rate_factor * arm.networks.initial_rate)
        self.start = pool.stages[0].candidates()[0]
        self.taken = _nothing(0, 0)  # which slices each step of the running epoch takes

    def init(self) -> TrainState:
        state: TrainState = self.pool.stages[0].restore(self.start.epoch, state=self.arm.template())["state"]
        return state.from_model()

    def source(self, epoch: int) -> Any:
        return self.arm.data.slices

    def step(self, epoch: int) -> Callable[..., Any]:
        return self.arm.networks.refinement_step

    def batches(self, epoch: int) -> Iterable[tuple[Any, ...]]:
        config, arm = self.config, self.arm
        labelled = arm.plan(config.steps, config.labelled, epoch)
        steps, unlabelled = len(labelled.indices), arm.data.unlabelled
        if self.learn_from_ood:
            ood = np.flatnonzero(self.pool.to_refine_on(self.pool.candidates()))
            slices = arm.data.unlabelled_indices[unlabelled.slices_of(ood)]
            other = cycled(slices, config.unlabelled, steps, arm.seed, epoch)
        else:
            other = _nothing(steps, config.unlabelled)
        joint = side_by_side(labelled, other, arm.networks.multiple)
        self.taken = Plan(joint[0], joint[1] + joint[2])
        return self._made(epoch, joint)

    def _made(
        self, epoch: int, joint: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> Iterator[tuple[Any, ...]]:
        arm, alpha = self.arm, np.float32(1 / epoch if self.learn_from_ood else 0)
        for i, rows in enumerate(zip(*joint, strict=True)):
            indices, is_labelled, is_ood = arm.devices.shard(rows)
            batch = arm.networks.take(arm.data.slices, indices, is_labelled)
            key = arm.step_key(self.stage, epoch, i)
            yield batch, is_ood, alpha, self.pool.autoencoder, key, self.rate

    def validate(self, state: TrainState, epoch: int) -> Record:
        record = {"k": epoch} | validate_segmenter(self.arm, state)
        if self.learn_from_ood:
            candidate = Candidate(self.stage, epoch, record[LOSS])
            candidates = self.pool.candidates((candidate,))
            if candidate in candidates:
                self.pool.measure(candidate, state.model)
            record |= describe_ood(self.arm, self.pool.to_refine_on(candidates))
        return record

    def names(self, epoch: int, step: int) -> Sequence[str]:
        return self.arm.data.names(self.taken, step)

    def finished(self, record: Record) -> bool:
        return self.learn_from_ood and record["ood"] == 0


def refine(pool: Pool, stage: str, epochs: int, learn_from_ood: bool) -> Checkpoints:
    """Run a `RefinementStage`, or go on; its models become the pool's candidates. Returns the stage's checkpoints."""
    arm = pool.arm
    checkpoints = arm.checkpoints(stage, pool.m_best)
    if learn_from_ood and checkpoints.latest() is None and not pool.to_refine_on(pool.candidates()).any():
        epochs = 0
    refinement = RefinementStage(pool, stage, epochs, learn_from_ood)
    pool.stages.append(checkpoints)
    fit(refinement, arm.journal, checkpoints, arm.devices)
    return checkpoints


def describe_ood(arm: Arm, ood: Bool[np.ndarray, " n"]) -> Record:
    """How many cases are out of distribution, and their names, as the journal keeps it; `ood` is (n,) bool."""
    names = [case.name for case, is_ood in zip(arm.data.unlabelled.cases, ood, strict=True) if is_ood]
    return {"ood": len(names), "ood_cases": names}


def _nothing(steps: int, batch: int) -> Plan:
    return Plan(np.zeros((steps, batch), np.int32), np.zeros((steps, batch), np.float32))
