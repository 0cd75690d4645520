"""Training a monitor on drawn masks: what it leaves behind, stops, devices, the order of subjects."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import qcjax
from qcjax.data.mask_cohort import MaskCase
from qcjax.inference.monitor import WEIGHTS, Monitor
from qcjax.runtime.arrays import read_arrays
from qcjax.train.journal import Journal
from tests.drawn_monitor import LABELS, SPACING_MM, draw, save_cases, training


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[MaskCase]:
    return save_cases(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def monitor(cases: list[MaskCase], tmp_path_factory: pytest.TempPathFactory) -> Monitor:
    """Of five epochs; how well it rebuilds, nobody asks."""
    return training(cases, tmp_path_factory.mktemp("monitor"), epochs=5).run()


def test_training_lowers_both_losses(monitor: Monitor) -> None:
    """With seeds 0 to 9 by 0.34 to 0.51."""
    first, *_, last = Journal(monitor.run / "metrics.jsonl").read()
    for name in ("train_loss", "validation_loss"):
        assert last[name] < first[name] - 0.2


def test_what_is_left_behind_loads_and_scores_alike(monitor: Monitor, cases: list[MaskCase]) -> None:
    mask = np.asarray(nib.load(cases[-1].path).dataobj)  # type: ignore[attr-defined]
    loaded = qcjax.Monitor.load(monitor.run, 1)
    ours, theirs = monitor.score(mask, SPACING_MM), loaded.score(mask, SPACING_MM)
    assert [s.key for s in loaded.structures] == ["rv", "myo", "lv"] and loaded.labels == LABELS
    np.testing.assert_array_equal(ours.reconstruction, theirs.reconstruction)
    np.testing.assert_array_equal(ours.pdc, theirs.pdc)
    assert ours.reconstruction.shape == mask.shape and ours.slice_pdc.shape == (4, 3)
    np.testing.assert_equal(
        ours.suspicion, theirs.suspicion
    )  # NaN, where no validation mask was rebuilt whole


def test_how_masks_are_centred_is_kept_with_the_monitor(cases: list[MaskCase], tmp_path: Path) -> None:
    run = training(cases, tmp_path, epochs=1, steps=1)
    run.config = replace(run.config, centre="mask")
    assert run.run().centre == qcjax.Monitor.load(tmp_path, 1).centre == "mask"


def test_batches_across_cases_give_what_single_ones_give(monitor: Monitor) -> None:
    masks = [draw(np.random.default_rng(i)) for i in range(3)]
    prepared = [monitor.prepare(m, SPACING_MM) for m in masks]
    for one, together in zip(prepared, monitor.reconstruct(prepared), strict=True):
        np.testing.assert_array_equal(monitor.reconstruct([one])[0], together)


def test_empty_slices_are_all_rebuilt_alike_whatever_lies_beside_them(monitor: Monitor) -> None:
    mask = draw(np.random.default_rng(105))
    gaps = np.zeros((60, 56, 11), np.uint8)
    gaps[..., [1, 4, 5, 9]] = mask
    empty, full, spread = (monitor.prepare(m, SPACING_MM) for m in (np.zeros_like(gaps), mask, gaps))
    nothing, dense, sparse = monitor.reconstruct([empty, full, spread])
    np.testing.assert_array_equal(sparse[[1, 4, 5, 9]], dense)
    np.testing.assert_array_equal(sparse[[0, 2, 3, 6, 7, 8, 10]], nothing[:7])
    assert (nothing == nothing[0]).all() and monitor.reconstruct([]) == []


@pytest.mark.parametrize("reading", ["paper", "original"])
def test_a_training_cut_short_goes_on_to_the_same_weights(
    cases: list[MaskCase], tmp_path: Path, reading: str
) -> None:
    whole = training(cases, tmp_path / "whole", 3, reading).run()
    training(cases, tmp_path / "parts", 2, reading).run()
    resumed = training(cases, tmp_path / "parts", 3, reading).run()
    a, b = (read_arrays(m.run / WEIGHTS) for m in (whole, resumed))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert whole.description.get("reference") == resumed.description.get("reference")


def test_eight_devices_train_what_one_does(cases: list[MaskCase], tmp_path: Path) -> None:
    more = {"steps": 4, "augment": True, "dropout": 0.2, "learning_rate": 1e-3}
    runs = [training(cases, tmp_path / f"{n}", 2, count=n, **more).run() for n in (1, 8)]
    one, eight = (Journal(run.run / "metrics.jsonl").read() for run in runs)
    assert len(one) == len(eight) == 2
    for a, b in zip(one, eight, strict=True):
        for name in ("train_loss", "validation_loss"):
            assert b[name] == pytest.approx(a[name], abs=1e-4), name
        # decisions of a network that has hardly learnt: moving each parameter by one rounding moves them by 5e-4,
        # and by 6e-3 after 24 steps
        assert b["validation_dice_myo"] == pytest.approx(a["validation_dice_myo"], abs=5e-3)


def test_original_takes_subject_by_subject_in_an_order_drawn_once(
    cases: list[MaskCase], tmp_path: Path
) -> None:
    run = training(cases, tmp_path, reading="original")
    plan = run.plan(epoch=5)
    assert sorted(plan.indices.tolist()) == [
        list(range(i, i + 8)) for i in (0, 8, 16, 24)
    ]  # ED, ES of a subject
    assert plan.weight.all()
    np.testing.assert_array_equal(run.plan(epoch=6).indices, plan.indices)
    orders = set()
    for run.seed in range(9):
        orders.add(tuple(run.plan(epoch=1).indices[:, 0]))
    assert len(orders) > 3


def test_a_folder_without_a_monitor_or_with_a_broken_one_is_named(monitor: Monitor, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        Monitor.load(tmp_path)
    description = json.loads((monitor.run / "monitor.json").read_text())
    description["autoencoder"]["width"] = 16
    (tmp_path / "monitor.json").write_text(json.dumps(description))
    weights = (monitor.run / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(weights)
    with pytest.raises(ValueError, match="doesn't fit the sizes"):
        Monitor.load(tmp_path)
    (tmp_path / "monitor.json").write_bytes((monitor.run / "monitor.json").read_bytes())
    (tmp_path / WEIGHTS).write_bytes(weights[:-4] + bytes(4))
    with pytest.raises(ValueError, match=rf"{WEIGHTS}: a damaged file: checksum .* found, expected"):
        Monitor.load(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "weights.npz")
    with pytest.raises(ValueError, match="of an earlier version found, expected .*: train the monitor again"):
        Monitor.load(tmp_path)
    (tmp_path / "monitor.json").write_text("{")
    (tmp_path / WEIGHTS).write_bytes(weights)
    with pytest.raises(ValueError, match=str(tmp_path)):
        Monitor.load(tmp_path)
