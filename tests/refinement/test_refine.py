"""Detection and refinement as the paper has them: how a stage is wired, and whole runs on a tiny arm."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest

from qcjax import qc
from qcjax.data.batches import in_batches, side_by_side
from qcjax.refinement.refine import (
    Pool,
    RefinementStage,
    _nothing,
    measure_unlabelled,
    refine,
)
from qcjax.train.checkpoint import Candidate
from tests.train.arms import CONFIG

PHASES = np.array(["ED", "ES"] * 3)


@dataclass
class Kept:
    """Checkpoints whose validation losses are given: epoch -> loss."""

    stage: str
    losses: dict[int, float]
    read: list[int] = field(default_factory=list)

    def candidates(self):
        found = [Candidate(self.stage, epoch, loss) for epoch, loss in self.losses.items()]
        return sorted(found, key=lambda c: c.loss)[:2]

    def restore(self, epoch, state):
        self.read.append(epoch)
        return {"state": SimpleNamespace(from_model=lambda: f"model of {epoch}")}


@pytest.fixture
def given(make_arm):
    """(refined's losses, all options of refinement) -> a pool of given models; no network is compiled."""

    def given(later=None, **options):
        config = replace(CONFIG, refinement=replace(CONFIG.refinement, **options))
        networks = SimpleNamespace(
            config=config,
            title="nnunet",
            devices=SimpleNamespace(shard=lambda rows: rows),
            multiple=1,
            initial_rate=0.5,
            take=lambda slices, indices, weight: (indices, weight),
        )
        arm = replace(make_arm(), networks=networks)
        object.__setattr__(arm, "template", lambda: None)
        stages = [Kept("segmenter", {1: 0.3, 2: 0.2, 3: 0.25})]
        return Pool(arm, {}, stages if later is None else [*stages, Kept("refined", later)])

    return given


def test_after_refinement_the_candidates_are_its_own_models(given):
    def chosen(pool, *more):
        return [(c.stage, c.epoch) for c in pool.candidates(more)]

    supervised = [("segmenter", 2), ("segmenter", 3)]
    assert chosen(given()) == supervised
    assert chosen(given({})) == supervised  # they stand in until there is one
    assert chosen(given({1: 9.0})) == [("refined", 1)]
    assert chosen(given({1: 9.0, 2: 7.0, 3: 8.0})) == [("refined", 2), ("refined", 3)]
    assert chosen(given({1: 9.0, 2: 7.0}), Candidate("refined", 3, 8.0)) == [("refined", 2), ("refined", 3)]
    assert chosen(given({}), Candidate("refined", 1, 99.0)) == [("refined", 1)]


def test_refinement_starts_from_the_best_supervised_model(given):
    for later in (None, {}, {1: 0.1}):
        pool = given(later)
        stage = RefinementStage(pool, "refined", 2, True)
        assert stage.init() == "model of 2" and pool.stages[0].read == [2]


def batches(pool, epoch, learn_from_ood=True):
    """Of an epoch: slices learnt from with their truth, with R's version; alphas; learning rates."""
    stage = RefinementStage(pool, "refined" if learn_from_ood else "control", 9, learn_from_ood)
    labelled, ood, alphas, rates = set(), set(), set(), set()
    for (indices, weight), is_ood, alpha, _, _, rate in stage.batches(epoch):
        assert not (weight * is_ood).any()
        labelled |= set(indices[weight > 0].tolist())
        ood |= set(indices[is_ood > 0].tolist())
        alphas.add(float(alpha))
        rates.add(float(rate))
    return labelled, ood, alphas, rates


def test_what_an_epoch_learns_from_and_how_much(given, monkeypatch):
    monkeypatch.setattr(Pool, "detect", lambda *args: (np.isin(np.arange(6), [1, 4]), {}))
    pool = given(learning_rate_factor=0.3, steps=6)
    data, rate = pool.arm.data, float(np.float32(0.3 * 0.5))
    expected = set(data.unlabelled_indices[[2, 3, 8, 9]].tolist())  # each case has two slices
    for epoch, alpha in ((1, 1.0), (2, 0.5), (4, 0.25)):
        labelled, ood, alphas, rates = batches(pool, epoch)
        assert ood == expected and labelled == set(data.training_indices.tolist())
        assert alphas == {alpha} and rates == {rate}
    labelled, ood, alphas, rates = batches(pool, 1, learn_from_ood=False)
    assert labelled and not ood and alphas == {0.0} and rates == {rate}


def test_refinement_may_look_at_a_part_of_the_cases_alone(given, monkeypatch):
    """The others define no threshold, and are not learnt from however bad they are."""
    pool = given()
    pool.arm = replace(pool.arm, data=replace(pool.arm.data, refined_on=np.array([0, 2, 4])))
    pdc, phd = np.full((6, 3), 0.9), np.full((6, 3), 5.0)
    phd[[1, 4]] = np.nan  # no right ventricle
    phd[0] = 9.0
    pool.measures = {("segmenter", epoch): (pdc, phd) for epoch in (2, 3)}
    assert pool.detect(pool.candidates())[0].tolist() == [False, True, False, False, True, False]
    assert pool.to_refine_on(pool.candidates()).tolist() == [False] * 4 + [True, False]
    phd[3] = phd[5] = 5.5  # of all ED cases at most 5 to 9 mm, of all ES cases 5.5 mm
    phd[2] = 12.0
    found, limits = pool.detect(pool.candidates(), np.array([0, 2, 4]))
    assert found.tolist() == [False] * 4 + [True, False] and list(limits) == ["ED"]
    assert limits["ED"].up == pytest.approx(11.25 + 1.5 * 1.5)  # quartiles of 9 and 12 mm


def test_labelled_and_ood_slicesside_by_side():
    labelled, other = in_batches([4, 5, 6], 2), in_batches([8, 9], 1)
    indices, is_labelled, is_ood = side_by_side(labelled, other, 4)
    np.testing.assert_array_equal(indices, [[4, 5, 8, 0], [6, 0, 9, 0]])
    np.testing.assert_array_equal(is_labelled, [[1, 1, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(is_ood, [[0, 0, 1, 0], [0, 0, 1, 0]])
    _, _, is_ood = side_by_side(labelled, _nothing(2, 1), 4)
    assert not is_ood.any()


def test_the_pool_knows_its_candidates_and_measures_them_once(trained, monkeypatch):
    arm, autoencoder, supervised = trained()
    pool = Pool(arm, autoencoder, [supervised])
    candidates = pool.candidates()
    assert len(candidates) == 2 and candidates[0].loss <= candidates[1].loss
    pdc, phd = pool.measure(candidates[0])
    assert pdc.shape == phd.shape == (6, 3)
    direct = measure_unlabelled(arm, pool.load(candidates[0]), autoencoder)
    np.testing.assert_array_equal(direct[0], pdc)
    monkeypatch.setattr(Pool, "load", lambda self, candidate: pytest.fail("measured twice"))
    assert pool.measure(candidates[0])[0] is pdc


def fake_measures(pool, rv_pdc, rv_phd):
    for candidate, dc, hd in zip(pool.candidates(), rv_pdc, rv_phd, strict=True):
        pdc, phd = np.full((6, 3), 0.5), np.full((6, 3), 7.0)
        pdc[:, 2], phd[:, 2] = dc, hd
        pool.measures[(candidate.stage, candidate.epoch)] = pdc, phd


def test_decisions_are_those_of_qc_by_phase(trained):
    arm, autoencoder, supervised = trained()
    pool = Pool(arm, autoencoder, [supervised])
    pdc = np.array([[0.9, 0.8, 0.9, 0.8, 0.0, 0.8], [0.8, 0.9, 0.8, 0.9, 0.0, 0.7]])
    phd = np.array([[5.0, 6, 5, 6, np.nan, 5], [6, 5, 6, 5, np.nan, 5]])
    fake_measures(pool, pdc, phd)
    decision = pool.decide(pool.candidates())
    assert decision.ood.tolist() == [False, False, False, False, True, False]
    assert set(decision.thresholds) == {"ED", "ES"}
    ed = qc.thresholds(pdc[:, ::2], phd[:, ::2])
    assert decision.thresholds["ED"] == {"low": ed.low, "up_mm": ed.up}
    limits = qc.by_phase(qc.thresholds_by_phase(pdc, phd, PHASES), PHASES)
    expected = qc.select(pdc, phd, limits.up)
    np.testing.assert_array_equal(decision.selection.first, expected.first)
    np.testing.assert_array_equal(decision.selection.second, expected.second)


def ood_after(monkeypatch, *counts):
    """Detection that finds the given numbers of cases, one after the other, then the last number."""
    left = list(counts)

    def detect(self, *args):
        count = left.pop(0) if len(left) > 1 else left[0]
        return np.arange(6) < count, {}

    monkeypatch.setattr(Pool, "detect", detect)


def test_refinement_ends_where_nothing_is_ood(trained, monkeypatch):
    arm, autoencoder, supervised = trained()
    ood_after(monkeypatch, 2, 2, 1, 1, 0)  # before; epoch 1: train, validate; epoch 2: train, validate
    checkpoints = refine(Pool(arm, autoencoder, [supervised]), "refined", 5, True)
    lines = [r for r in arm.journal.read() if r["stage"] == "refined"]
    assert [(r["k"], r["ood"]) for r in lines] == [(1, 1), (2, 0)]
    assert lines[0]["ood_cases"] == ["300_SA_ED"]
    for r in lines:  # Eq. 2, with α = 1/k
        expected = r["train_supervised"] + r["train_semi_supervised"] / r["k"]
        assert r["train_loss"] == pytest.approx(expected, abs=1e-5)
    checkpoints.close()


def test_without_ood_cases_there_is_no_refinement(trained, monkeypatch):
    arm, autoencoder, supervised = trained()
    ood_after(monkeypatch, 0)
    pool = Pool(arm, autoencoder, [supervised])
    before = pool.candidates()
    refine(pool, "refined", 5, True).close()
    assert pool.candidates() == before
    assert not [r for r in arm.journal.read() if r["stage"] == "refined"]


def test_the_steps_learning_rate_counts(make_arm):
    arm = make_arm()
    networks, data = arm.networks, arm.data
    autoencoder = arm.devices.replicate(arm.state("autoencoder").variables)
    indices, weight = np.arange(7, dtype=np.int32), np.array([1, 1, 1, 1, 0, 0, 0], np.float32)
    before, after = jax.device_get(arm.state().params), []
    for rate in (0.0, 0.01, 0.02):
        batch = networks.take(data.slices, *arm.devices.shard((indices, weight)))
        rest = (np.float32(1), autoencoder, arm.step_key("refined", 1, 0), np.float32(rate))
        state, _ = networks.refinement_step(arm.state(), batch, arm.devices.shard(1 - weight), *rest)
        after.append(jax.device_get(state.params))
    still, once, twice = (jax.tree.map(lambda a, b: a - b, x, before) for x in after)
    assert not any(x.any() for x in jax.tree.leaves(still))
    chex.assert_trees_all_close(twice, jax.tree.map(lambda x: 2 * x, once), atol=1e-6)
    assert max(abs(x).max() for x in jax.tree.leaves(once)) > 1e-4


def test_the_control_learns_nothing_from_ood_cases(trained):
    arm, autoencoder, supervised = trained()
    pool = Pool(arm, autoencoder, [supervised])
    checkpoints = refine(pool, "control", 1, False)
    (line,) = [r for r in arm.journal.read() if r["stage"] == "control"]
    assert line["k"] == 1 and "ood" not in line
    assert line["train_loss"] == pytest.approx(line["train_supervised"], abs=1e-6)
    checkpoints.close()
