"""Refinement as the authors' public code does it: the preset `original`.

Epochs of supervised training alternate with one pass over each out-of-distribution (OoD) case. Both halves of an
epoch are validated, tried on D_te, and enter the best list; what is OoD is decided over all evaluations so far.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from qcjax import qc
from qcjax.data.batch_sizes import batch_sizes, in_sizes
from qcjax.data.batches import Batch, in_batches, padded
from qcjax.data.subject import PHASES
from qcjax.labels import RV
from qcjax.qc import original as qc_original
from qcjax.qc.components import keep_largest
from qcjax.refinement.best_predictions import BestPredictions
from qcjax.refinement.measuring import Keep, measure_cases
from qcjax.refinement.refine import CandidatePool, Decision, describe_ood
from qcjax.refinement.treatment import common_treatment
from qcjax.runtime import hosts
from qcjax.train.arm import Arm
from qcjax.train.checkpoint import Candidate, Checkpoints
from qcjax.train.loop import fit
from qcjax.train.segmenter import original_start, validate_segmenter
from qcjax.train.stage import LOSS, Record, Stage
from qcjax.train.state import TrainState
from qcjax.typing import Bool, Float, Int, Integer, Variables

BLEND_EPOCHS = 250  # the code's number of epochs, whatever the run's
MAX_SIZES = 3  # of batches of single cases; each compiles the step anew, and more would save little padding


@dataclass
class OriginalPool(CandidatePool):
    """The candidates of one refinement, or those of supervised training before it."""

    def candidates(self) -> list[Candidate]:
        """The m_best of supervised training, or those of the continued best list that entered during refinement.

        Where none entered, the code has nothing left to select from; the supervised candidates stand in.
        """
        supervised, *refined = self.stages
        if not refined:
            return supervised.candidates()
        found = [candidate for candidate, entered in self._best_list() if entered]
        return found or supervised.candidates()

    def _best_list(self) -> list[tuple[Candidate, bool]]:
        """The best list, and whether each entered during refinement: supervised epochs up to the one that refinement
        starts from, that one once more where it is better than the worst (the code validates it again), refined models.
        """
        supervised, *refined = self.stages
        start = original_start(self.arm.networks.config.supervised.epochs)
        identity = self.arm.identity("segmenter")
        lines = [r for r in self.arm.journal.read() if all(r.get(k) == v for k, v in identity.items())]
        before = [Candidate(supervised.stage, r["epoch"], r[LOSS]) for r in lines if r["epoch"] <= start]
        listed = self._best([(c, False) for c in before])
        again = next(c for c in before if c.epoch == start)
        if len(listed) < self.m_best or again.loss < listed[-1][0].loss:
            listed.append((again, True))
        return self._best([*listed, *((c, True) for stage in refined for c in stage.candidates())])

    def _best(self, found: list[tuple[Candidate, bool]]) -> list[tuple[Candidate, bool]]:
        """The m_best, lowest loss first; of equals the later entry."""
        return sorted(found, key=lambda entry: (entry[0].loss, not entry[1], -entry[0].epoch))[: self.m_best]

    def decide(self, candidates: list[Candidate]) -> Decision:
        """A running record over the candidates, one after another, best first."""
        records = self._records(candidates, np.arange(len(self.arm.data.unlabelled.cases)))
        return Decision(records.select(), records.ood(), records.thresholds())

    def to_refine_on(self, candidates: list[Candidate]) -> Bool[np.ndarray, " n"]:
        """The OoD cases among those that refinement looks at, by a running record of their own, (n,) of D_te."""
        return _of_all(self.arm, self._records(candidates, self.arm.data.refined_on).ood())

    def _records(self, candidates: list[Candidate], cases: np.ndarray) -> "Records":
        for c in candidates:
            key = (c.stage, c.epoch)
            if key not in self.measures:
                self.measures[key] = measure_rv(self.arm, self.load(c), self.autoencoder)
        records = Records(self.arm.data.unlabelled.phases[cases])
        for c in candidates:
            records.update(*(x[cases] for x in self.measures[(c.stage, c.epoch)]))
        return records


def _of_all(arm: Arm, found: np.ndarray) -> np.ndarray:
    """A finding for each case of D_te, (n,) bool: False for those that refinement doesn't look at."""
    result = np.zeros(len(arm.data.unlabelled.cases), bool)
    result[arm.data.refined_on] = found
    return result


class Records:
    """The code's running records, one per phase, over n cases."""

    def __init__(self, phases: np.ndarray) -> None:
        self.cases = {phase: np.flatnonzero(phases == phase) for phase in PHASES}
        self.records = {phase: qc_original.empty_record(len(cases)) for phase, cases in self.cases.items()}
        self.phases, self.n = phases, len(phases)

    def improves(self, case: int, pdc: float, phd: float) -> bool:
        """Whether `update` will have a case's prediction kept, whatever the other cases' measures."""
        phase = str(self.phases[case])
        place = int(np.searchsorted(self.cases[phase], case))
        return qc_original.improves(self.records[phase], place, pdc, phd)

    def update(self, pdc: Float[np.ndarray, " n"], phd: Float[np.ndarray, " n"]) -> None:
        """One more evaluation, (n,) each."""
        for phase, cases in self.cases.items():
            if len(cases):
                self.records[phase] = qc_original.update(self.records[phase], pdc[cases], phd[cases]).record

    def ood(self) -> Bool[np.ndarray, " n"]:
        """Which cases are OoD, (n,)."""
        found = np.zeros(self.n, bool)
        for phase, cases in self.cases.items():
            if len(cases):
                found[cases] = qc_original.out_of_distribution(self.records[phase])
        return found

    def select(self) -> qc.Selection:
        """The evaluations whose predictions are averaged, for every case."""
        first, second = np.zeros(self.n, int), np.zeros(self.n, int)
        for phase, cases in self.cases.items():
            selection = qc_original.select(self.records[phase])
            first[cases], second[cases] = selection.first, selection.second
        return qc.Selection(first, second)

    def thresholds(self) -> dict[str, dict[str, float]]:
        """The limits of each phase that has cases: of pDC `low`, of pHD `up_voxels`, in voxels."""
        limits = {p: qc_original.thresholds(self.records[p]) for p, cases in self.cases.items() if len(cases)}
        return {p: {"low": float(t.low), "up_voxels": float(t.up)} for p, t in limits.items()}


def measure_rv(
    arm: Arm,
    variables: Variables,
    autoencoder: Variables,
    keep: Keep = lambda case, measures: None,
    cases: Integer[np.ndarray, " m"] | None = None,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """pDC and pHD in voxels of the RV in every case of D_te, or in some, (n,) each; see `measure_cases`."""

    single = common_treatment(arm.networks.config.inference).largest

    def measure(case: int, mask: np.ndarray, rebuilt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return qc_original.pseudo_measures(keep_largest(mask, single), rebuilt, (RV,))

    pdc, phd = measure_cases(arm, variables, autoencoder, measure, keep, cases)
    return pdc[:, 0], phd[:, 0]


def measure_and_keep(
    arm: Arm,
    variables: Variables,
    autoencoder: Variables,
    records: Records,
    best: BestPredictions,
    evaluation: int,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """`measure_rv` of what refinement looks at, as one more evaluation: `records` know of it, and `best` has the
    predictions that they point to."""
    cases = arm.data.refined_on

    def keep(case: int, measures: tuple[np.ndarray, np.ndarray]) -> Callable[[np.ndarray], None] | None:
        pdc, phd = (float(x[0]) for x in measures)
        improves = records.improves(int(np.searchsorted(cases, case)), pdc, phd)
        return partial(best.put, case, evaluation) if improves else None

    pdc, phd = measure_rv(arm, variables, autoencoder, keep, cases)
    records.update(pdc, phd)
    return pdc, phd


def case_sizes(arm: Arm) -> tuple[int, ...]:
    """The sizes of the batches in which cases of D_te are learnt from, one case at a time."""
    lengths = np.diff(arm.data.unlabelled.first)[arm.data.refined_on]
    return batch_sizes(lengths, arm.networks.config.supervised.batch, MAX_SIZES)


def case_batches(
    arm: Arm, case: int, sizes: tuple[int, ...]
) -> Iterator[tuple[Int[np.ndarray, " b"], Int[np.ndarray, " slices"], Batch]]:
    """A case of D_te, batch by batch: places in its stack (b,), padding included; its slices; both on the devices."""
    networks, devices = arm.networks, arm.devices
    rows = arm.data.unlabelled_indices[arm.data.unlabelled.rows(case)]
    for plan in in_sizes(len(rows), sizes):
        (places,), (weight,) = padded(plan, networks.multiple)
        where = rows[places].astype(np.int32)
        batch = networks.take(arm.data.slices, *devices.shard((where, weight)))
        yield places, where[weight > 0], batch


class OriginalStage(Stage):
    """Refinement from supervised training's epoch 200 (of 250) on, with its optimiser state.

    Of "refined" epoch k has two halves, which are epochs here, 2k − 1: a pass over the labelled slices, 2k: one pass
    over each OoD case with a pseudo ground truth between R's output and the best prediction so far. It ends where no
    case is OoD. "control" (`learn_from_ood` False) has the first halves alone.
    """

    def __init__(
        self, pool: OriginalPool, stage: str, epochs: int, learn_from_ood: bool, checkpoints: Checkpoints
    ) -> None:
        arm = pool.arm
        self.pool, self.arm, self.stage, self.learn_from_ood = pool, arm, stage, learn_from_ood
        self.checkpoints = checkpoints
        self.identity, self.epochs = arm.identity(stage), 2 * epochs if learn_from_ood else epochs
        self.start = original_start(arm.networks.config.supervised.epochs)
        kept = arm.folder / "best_predictions" / stage / arm.networks.name / arm.data.view
        self.best = BestPredictions(kept)
        self.cases = arm.data.refined_on
        self.records = Records(arm.data.unlabelled.phases[self.cases])
        self.sizes = case_sizes(arm)
        self.adjustments = 0  # of the learning rate, so far
        self.evaluations = 0  # on D_te
        self.taken: list[np.ndarray] = []  # the slices of each step of the running epoch

    def init(self) -> TrainState:
        state: TrainState = self.pool.stages[0].restore(self.start, state=self.arm.template())["state"]
        return state.from_model()

    def resume(self, epoch: int) -> None:
        """Know what is known after an epoch, from the journal's lines."""
        for line in self.arm.journal.read():
            if line["epoch"] <= epoch and all(line.get(k) == v for k, v in self.identity.items()):
                self.adjustments = line["adjustments"]
                if self.learn_from_ood:
                    self.records.update(np.array(line["pdc_rv"]), np.array(line["phd_rv_voxels"]))
                    self.evaluations += 1

    def k(self, epoch: int) -> int:
        """Which epoch of refinement an epoch here is part of."""
        return (epoch + 1) // 2 if self.learn_from_ood else epoch

    def on_ood(self, epoch: int) -> bool:
        """Whether it is a pass over the OoD cases."""
        return self.learn_from_ood and epoch % 2 == 0

    def rate(self) -> np.float32:
        """The learning rate after so many adjustments; nnunet's counter restarts at 0."""
        networks, done = self.arm.networks, self.adjustments
        if networks.name == "acdc_unet":
            return np.float32(networks.rate(self.start + done))
        return np.float32(networks.rate(self.start - 1 if done == 0 else done - 1))

    def step(self, epoch: int) -> Callable[..., Any]:
        networks = self.arm.networks
        return networks.original_refinement_step if self.on_ood(epoch) else networks.supervised_step

    def source(self, epoch: int) -> Any:
        # what `_unlabelled` does about damage is for the main thread
        return None if self.on_ood(epoch) else self.arm.data.slices

    def batches(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        self.taken.clear()
        return self._unlabelled(epoch) if self.on_ood(epoch) else self._labelled(epoch)

    def _labelled(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        arm, networks = self.arm, self.arm.networks
        batch_size = networks.config.supervised.batch
        plan = arm.plan(networks.config.refinement.steps, batch_size, self.start + self.k(epoch))
        for i, (indices, weight) in enumerate(zip(*plan, strict=True)):
            batch = networks.take(arm.data.slices, *arm.devices.shard((indices, weight)))
            self.taken.append(indices[weight > 0])
            yield batch, arm.step_key(self.stage, epoch, i), self.rate()
        self.adjustments += 1

    def _unlabelled(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        arm, best = self.arm, self.best
        ood, selection = hosts.same((self.records.ood(), self.records.select()))
        phases = self.records.phases
        order = [place for phase in PHASES for place in np.flatnonzero(ood & (phases == phase)).tolist()]
        blend = np.float32((self.start + self.k(epoch) - 1) / BLEND_EPOCHS)
        for number, place in enumerate(order):
            case = int(self.cases[place])
            try:
                kept = int(selection.first[place]), int(selection.second[place])
                target = hosts.lead(partial(best.get, case, *kept))
            except (OSError, ValueError) as error:
                self.checkpoints.forget_after(0, f"{best.folder} is damaged")
                raise ValueError(f"{best.folder}: {error}; started again, refinement is done anew") from None
            for i, (places, where, batch) in enumerate(case_batches(arm, case, self.sizes)):
                key = arm.step_key(self.stage, epoch, 1000 * number + i)
                self.taken.append(where)
                pseudo = arm.devices.shard(target[places])
                yield batch, pseudo, blend, self.pool.autoencoder, key, self.rate()
            self.adjustments += 1

    def validate(self, state: TrainState, epoch: int) -> Record:
        record = {"k": self.k(epoch), "adjustments": self.adjustments} | validate_segmenter(self.arm, state)
        if self.learn_from_ood:
            pdc, phd = measure_and_keep(
                self.arm, state.model, self.pool.autoencoder, self.records, self.best, self.evaluations
            )
            self.evaluations += 1
            record |= {"pdc_rv": pdc.tolist(), "phd_rv_voxels": phd.tolist()}
            record |= describe_ood(self.arm, _of_all(self.arm, self.records.ood()))
        return record

    def names(self, epoch: int, step: int) -> Sequence[str]:
        taken = self.taken[step]
        return self.arm.data.names(in_batches(taken, len(taken)), 0)

    def finished(self, record: Record) -> bool:
        return self.learn_from_ood and record["ood"] == 0


def refine_original(pool: OriginalPool, stage: str, epochs: int, learn_from_ood: bool) -> None:
    """Run an `OriginalStage`, or go on; its models enter the pool's best list."""
    arm = pool.arm
    checkpoints = arm.checkpoints(stage, pool.m_best)
    pool.stages.append(checkpoints)
    refinement = OriginalStage(pool, stage, epochs, learn_from_ood, checkpoints)
    fit(refinement, arm.journal, checkpoints, arm.devices)
    refinement.best.clear()
