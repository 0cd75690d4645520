"""Refinement as the authors' code does it, on a tiny arm."""

from dataclasses import replace

import chex
import jax
import numpy as np
import pytest

from qcjax.qc import original as qc_original
from qcjax.refinement import refine_original as module
from qcjax.refinement.autoencoder import train_autoencoder
from qcjax.refinement.best_predictions import BestPredictions
from qcjax.refinement.refine_original import (
    OriginalPool,
    Records,
    case_batches,
    case_sizes,
    measure_and_keep,
    measure_rv,
    refine_original,
)
from qcjax.train.segmenter import original_start, train_segmenter
from tests.slow import slow

PHASES = np.array(["ED", "ES"] * 3)


def test_original_start_is_four_fifths():
    assert [original_start(n) for n in (250, 10, 3, 1)] == [200, 8, 2, 1]


def test_records_go_by_phase():
    rng = np.random.default_rng(0)
    records, apart = Records(PHASES), {p: qc_original.empty_record(3) for p in ("ED", "ES")}
    for _ in range(3):
        pdc, phd = rng.uniform(0.5, 1, 6), rng.uniform(1, 9, 6)
        keep = np.array([records.improves(case, pdc[case], phd[case]) for case in range(6)])
        records.update(pdc, phd)
        for p, first in (("ED", 0), ("ES", 1)):
            result = qc_original.update(apart[p], pdc[first::2], phd[first::2])
            apart[p] = result.record
            expected = result.take_dc | result.take_hd | result.take_ensemble
            np.testing.assert_array_equal(keep[first::2], expected)
    for p, first in (("ED", 0), ("ES", 1)):
        np.testing.assert_array_equal(records.ood()[first::2], qc_original.out_of_distribution(apart[p]))
        np.testing.assert_array_equal(records.select().first[first::2], qc_original.select(apart[p]).first)
        limits = qc_original.thresholds(apart[p])
        assert records.thresholds()[p] == {"low": limits.low, "up_voxels": limits.up}


def test_a_view_may_lack_a_phase():
    records = Records(np.array(["ED", "ED"]))
    records.update(np.array([0.9, 0.8]), np.array([2.0, 3.0]))
    assert set(records.thresholds()) == {"ED"} and records.ood().shape == (2,)


def test_best_predictions_are_kept_as_files(tmp_path):
    best = BestPredictions(tmp_path / "best")
    p = np.random.default_rng(0).uniform(size=(2, 4, 4, 4)).astype(np.float32)
    best.put(3, 0, p)
    best.put(3, 2, 1 - p)
    np.testing.assert_allclose(best.get(3, 0, 0), p, atol=1e-3)
    np.testing.assert_allclose(best.get(3, 0, 2), np.full_like(p, 0.5), atol=1e-3)
    path = tmp_path / "best" / "00003-0002.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match="00003-0002.safetensors: a damaged file"):
        best.get(3, 0, 2)
    best.clear()
    assert list((tmp_path / "best").iterdir()) == []


def test_what_an_evaluation_improves_is_kept(make_arm, tmp_path):
    arm = make_arm(original=True)
    predictor, data = arm.networks.predictor, arm.data
    variables = arm.devices.replicate(arm.state("segmenter").variables)
    autoencoder = arm.devices.replicate(arm.state("autoencoder").variables)
    records, best = Records(PHASES), BestPredictions(tmp_path / "best")
    found = measure_and_keep(arm, variables, autoencoder, records, best, 0)
    np.testing.assert_array_equal(found, measure_rv(arm, variables, autoencoder))
    assert all((r.dc_from == 0).all() and (r.hd_from == 0).all() for r in records.records.values())
    stack = predictor.probabilities(variables, data.slices, data.unlabelled_indices)
    for case, part in enumerate(data.unlabelled.split(stack)):
        np.testing.assert_allclose(best.get(case, 0, 0), part, atol=1e-3)
    # where an earlier evaluation was better in every case but one, that one's alone is kept
    before = Records(PHASES)
    before.update(np.where(np.arange(6) == 3, 0, 1.5), np.where(np.arange(6) == 3, 99, -1.0))
    measure_and_keep(arm, variables, autoencoder, before, best, 1)
    assert [path.name for path in best.folder.glob("*-0001.safetensors")] == ["00003-0001.safetensors"]
    # of a part of the cases, what refinement looks at alone is measured and kept
    part = replace(arm, data=replace(data, refined_on=np.array([1, 4, 5])))
    records, best = Records(PHASES[[1, 4, 5]]), BestPredictions(tmp_path / "part")
    of_part = measure_and_keep(part, variables, autoencoder, records, best, 0)
    np.testing.assert_array_equal(of_part, np.array(found)[:, [1, 4, 5]])
    assert [path.name[:5] for path in sorted(best.folder.iterdir())] == ["00001", "00004", "00005"]
    parts = list(data.unlabelled.split(stack))
    for case in (1, 4, 5):
        np.testing.assert_allclose(best.get(case, 0, 0), parts[case], atol=1e-3)


def test_a_case_goes_in_the_smallest_batch_that_holds_it(make_arm):
    arm = make_arm(original=True)
    assert case_sizes(arm) == (2,)  # every case has two slices
    for sizes, places in (((2,), [0, 1]), ((3, 4), [0, 1, 0])):
        ((found, slices, batch),) = case_batches(arm, 4, sizes)
        assert found.tolist() == places
        assert slices.tolist() == arm.data.unlabelled_indices[8:10].tolist()
        assert batch.weight.tolist() == [1, 1, 0][: len(places)]
        np.testing.assert_array_equal(batch.image[:2, ..., 0], arm.data.unlabelled.slices.image[8:10])


@pytest.mark.parametrize("name", ["nnunet", pytest.param("acdc_unet", marks=slow)])
def test_padding_of_a_case_does_not_change_what_is_learnt(make_arm, name):
    arm = make_arm(name=name, original=True)
    autoencoder = arm.devices.replicate(arm.state("autoencoder").variables)
    target = np.random.default_rng(0).dirichlet(np.ones(4), (2, 64, 64)).astype(np.float32)
    found = []
    for size in (2, 4):
        ((places, _, batch),) = case_batches(arm, 1, (size,))
        rest = (target[places], np.float32(0.8), autoencoder, arm.step_key("refined", 2, 0), np.float32(0.01))
        state, metrics = arm.networks.original_refinement_step(arm.state("segmenter"), batch, *rest)
        found.append(jax.device_get((metrics, state.batch_stats, state.params)))
    (small, small_stats, small_params), (whole, whole_stats, whole_params) = found
    chex.assert_trees_all_close(small, whole, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(small_stats, whole_stats, rtol=1e-5, atol=1e-6)
    assert small["grad_norm"] > 1e-3
    if name == "nnunet":  # Adam makes whole steps of gradients that are nothing but rounding
        chex.assert_trees_all_close(small_params, whole_params, atol=1e-6)


def ood_records(monkeypatch, *counts):
    left = list(counts)

    def ood(self):
        return np.arange(6) < (left.pop(0) if len(left) > 1 else left[0])

    monkeypatch.setattr(Records, "ood", ood)


def test_original_refinement_alternates(trained, monkeypatch):
    arm, autoencoder, supervised = trained(original=True)
    pool = OriginalPool(arm, autoencoder, [supervised])
    ood_records(monkeypatch, 2, 2, 1, 1, 1, 1, 0)
    rates, blends = [], []
    for name, where in (("supervised_step", 3), ("original_refinement_step", 6)):
        step = getattr(arm.networks, name)

        def recorded(*args, step=step, where=where):
            rates.append(round(float(args[where]), 6))
            if where == 6:
                blends.append(round(float(args[3]), 4))
            return step(*args)

        monkeypatch.setitem(arm.networks.__dict__, name, recorded)
    refine_original(pool, "refined", 3, True)
    lines = [r for r in arm.journal.read() if r["stage"] == "refined"]
    assert [(r["epoch"], r["k"]) for r in lines[:4]] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert [r["ood"] for r in lines][:2] == [2, 1]
    # the counter stands at the start's, then at 0, and moves once per pass: labelled (2 steps), 2 cases, labelled, 1
    start = original_start(3)
    poly = [round(0.01 * (1 - c / 1000) ** 0.9, 6) for c in (start - 1, 0, 1, 2, 3)]
    assert rates[:2] == [poly[0]] * 2 and rates[2] == poly[1] and rates[3] == poly[2]
    assert rates[4:6] == [poly[3]] * 2 and rates[6] == poly[4]
    # epoch k is the code's epoch 200 + k − 1, of 250
    assert blends[:3] == [round(start / 250, 4)] * 2 + [round((start + 1) / 250, 4)]
    assert {len(r["pdc_rv"]) for r in lines} == {6}
    assert pool.candidates() and pool.candidates()[0].stage in ("refined", "segmenter")
    assert list((arm.folder / "best_predictions").rglob("*.safetensors")) == []
    pool.stages[1].close()


def test_original_decisions_are_a_running_record(trained):
    arm, autoencoder, supervised = trained(original=True)
    pool = OriginalPool(arm, autoencoder, [supervised])
    candidates = pool.candidates()
    decision = pool.decide(candidates)
    records = Records(arm.data.unlabelled.phases)
    for c in candidates:
        records.update(*measure_rv(arm, pool.load(c), autoencoder))
    np.testing.assert_array_equal(decision.ood, records.ood())
    np.testing.assert_array_equal(decision.selection.first, records.select().first)
    assert set(decision.thresholds["ED"]) == {"low", "up_voxels"}


@slow
def test_refinement_in_small_batches_is_that_in_whole_ones(make_arm, monkeypatch):
    monkeypatch.setattr(Records, "ood", lambda self: np.arange(6) < 2)
    lines = []
    for folder, sizes in (("small", (2,)), ("whole", (4,))):
        monkeypatch.setattr(module, "case_sizes", lambda arm, sizes=sizes: sizes)
        arm = make_arm(folder, original=True)
        pool = OriginalPool(arm, train_autoencoder(arm), [train_segmenter(arm)])
        refine_original(pool, "refined", 1, True)
        lines.append([r for r in arm.journal.read() if r["stage"] == "refined"])
        for checkpoints in pool.stages:
            checkpoints.close()
    small, whole = lines
    assert len(small) == len(whole) == 2
    for a, b in zip(small, whole, strict=True):
        for name in ("train_loss", "validation_loss", "train_grad_norm", "pdc_rv", "phd_rv_voxels"):
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-6), name


def test_original_refinement_goes_on_after_a_stop(make_arm, monkeypatch):
    ood = np.arange(6) < 2
    monkeypatch.setattr(Records, "ood", lambda self: ood)

    def run(arm, stop=None):
        autoencoder, supervised = train_autoencoder(arm), train_segmenter(arm)
        pool = OriginalPool(arm, autoencoder, [supervised])
        step, calls = arm.networks.original_refinement_step, []

        def stopping(*args):
            calls.append(None)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return step(*args)

        with monkeypatch.context() as patch:
            patch.setitem(arm.networks.__dict__, "original_refinement_step", stopping)
            try:
                refine_original(pool, "refined", 2, True)
                return [(c, pool.measures) for c in pool.candidates()]
            finally:
                for checkpoints in pool.stages:
                    checkpoints.close()

    whole, cut = make_arm("whole", original=True), make_arm("cut", original=True)
    expected = run(whole)
    for stop in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(cut, stop)
    assert run(cut) == expected
    pairs = zip(whole.journal.read(), cut.journal.read(), strict=True)
    for a, b in pairs:
        assert {k: v for k, v in a.items() if "seconds" not in k} == {
            k: v for k, v in b.items() if "seconds" not in k
        }
