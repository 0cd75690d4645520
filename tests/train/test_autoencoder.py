"""Training a monitor on drawn masks, and what it then makes of intact and damaged ones."""

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import qcjax
from qcjax import qc
from qcjax.config import AutoencoderConfig, MonitorConfig
from qcjax.data.mask_cohort import MaskCase, MaskCohort, prepare_masks
from qcjax.inference.monitor import WEIGHTS, Monitor, in_plane_box
from qcjax.runtime.arrays import read_arrays
from qcjax.runtime.devices import Devices
from qcjax.train.autoencoder import MonitorTraining
from qcjax.train.loop import Journal

LABELS = {"rv": 1, "myo": 2, "lv": 3}  # as ACDC's files have them
SPACING = (2.0, 2.0, 8.0)
SMALL = MonitorConfig(
    size=64,
    spacing_mm=2.0,
    autoencoder=AutoencoderConfig(
        width=8, latent=16, dropout=0.0, epochs=3, steps=12, batch=8, learning_rate=1e-2, early_epochs=1
    ),
)


def draw(rng: np.random.Generator) -> np.ndarray:
    """A ring with its pool, and a crescent beside it: (x, y, slices), numbered as LABELS."""
    x, y = np.meshgrid(np.arange(60.0), np.arange(56.0), indexing="ij")
    dx, dy = rng.uniform(-3, 3, 2)
    mask = np.zeros((60, 56, 4), np.uint8)
    for s, scale in enumerate((1.0, 0.95, 0.85, 0.7)):
        r = np.hypot(x - 34 - dx, y - 28 - dy)
        mask[np.hypot(x - 20 - dx, y - 28 - dy) < 11 * scale, s] = 1
        mask[r < 11 * scale, s] = 2
        mask[r < 7 * scale, s] = 3
    return mask


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[MaskCase]:
    folder, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    found = []
    for i in range(6):
        for phase in ("ED", "ES"):
            path = folder / f"p{i}_{phase}.nii.gz"
            nib.save(nib.Nifti1Image(draw(rng), np.diag((*SPACING, 1))), path)
            found.append(MaskCase(f"p{i}_{phase}", f"p{i}", path))
    return found


def cohort(cases: list[MaskCase]) -> MaskCohort:
    return prepare_masks(cases, {0: 0, 1: 1, 2: 2, 3: 3}, SMALL.spacing_mm, SMALL.size)


COMPILED: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # trainings of one kind share what they compile


def training(
    cases: list[MaskCase], folder: Path, epochs: int = 3, reading: str = "paper", count: int = 1, **more: Any
) -> MonitorTraining:
    autoencoder = replace(SMALL.autoencoder, epochs=epochs, **more)
    dice = "generalised" if reading == "original" else SMALL.dice
    config, devices = replace(SMALL, autoencoder=autoencoder, dice=dice), Devices(count)
    run = MonitorTraining(config, LABELS, cohort(cases[:8]), cohort(cases[8:]), folder, 0, reading, devices)  # type: ignore[arg-type]
    program = (*run.sizes.values(), autoencoder.augment, dice, reading, count)
    run._step, run._rebuild, run._take = COMPILED.setdefault(program, (run._step, run._rebuild, run._take))
    return run


@pytest.fixture(scope="module")
def monitor(cases: list[MaskCase], tmp_path_factory: pytest.TempPathFactory) -> Monitor:
    return training(cases, tmp_path_factory.mktemp("monitor"), epochs=20, steps=25).run()


def test_what_is_left_behind_loads_and_scores_alike(monitor: Monitor, cases: list[MaskCase]) -> None:
    mask = np.asarray(nib.load(cases[-1].path).dataobj)  # type: ignore[attr-defined]
    loaded = qcjax.Monitor.load(monitor.run, 1)
    ours, theirs = monitor.score(mask, SPACING), loaded.score(mask, SPACING)
    assert [s.key for s in loaded.structures] == ["rv", "myo", "lv"] and loaded.labels == LABELS
    np.testing.assert_array_equal(ours.reconstruction, theirs.reconstruction)
    np.testing.assert_array_equal(ours.pdc, theirs.pdc)
    assert ours.reconstruction.shape == mask.shape and ours.slice_pdc.shape == (4, 3)
    assert ours.suspicion == theirs.suspicion


def test_an_intact_mask_is_rebuilt_and_not_flagged(monitor: Monitor) -> None:
    score = monitor.score(draw(np.random.default_rng(100)), SPACING)
    assert score.pdc.min() > 0.5 and score.verdict == ""
    assert (score.phd_mm < 30).all() and score.suspicion < 4


def test_damage_raises_suspicion_and_flags(monitor: Monitor) -> None:
    intact = draw(np.random.default_rng(101))
    far = intact.copy()
    far[50:58, 2:8, 0] = 3
    no_pool = np.where(intact == 3, 0, intact).astype(np.uint8)
    before = monitor.score(intact, SPACING).suspicion
    assert monitor.score(far, SPACING).suspicion > 2 * before
    missing = monitor.score(no_pool, SPACING)
    assert missing.verdict == "erroneous" and missing.suspicion == np.inf
    assert [f.structure for f in missing.flags if f.kind == "erroneous"] == ["lv"]


def test_what_the_crop_cuts_off_counts_as_not_rebuilt(monitor: Monitor) -> None:
    wide = np.zeros((140, 56, 4), np.uint8)
    wide[40:100] = draw(np.random.default_rng(102))
    with_blob = wide.copy()
    with_blob[2:10, 20:28] = 3  # more than 64 mm from the middle: the autoencoder never sees it
    assert monitor.score(with_blob, SPACING).phd_mm[2] > 50 > monitor.score(wide, SPACING).phd_mm[2]


def test_centred_on_the_mask_a_heart_is_judged_alike_wherever_it_lies(monitor: Monitor) -> None:
    """Moved by 90 mm, out of the square in the image's middle."""
    centred = copy(monitor)
    centred.centre = "mask"
    wide = np.zeros((160, 100, 4), np.uint8)
    wide[50:110, 22:78] = draw(np.random.default_rng(102))
    moved = np.roll(wide, (45, -15), (0, 1))
    here, there = (centred.score(m, SPACING) for m in (wide, moved))
    np.testing.assert_allclose(there.pdc, here.pdc)
    np.testing.assert_allclose(there.phd_mm, here.phd_mm)
    np.testing.assert_array_equal(there.reconstruction, np.roll(here.reconstruction, (45, -15), (0, 1)))
    assert here.pdc.min() > 0.5 and monitor.score(moved, SPACING).pdc.min() < 0.3
    moved[2:10, 40:48] = 3  # far outside of the square: not rebuilt
    assert centred.score(moved, SPACING).phd_mm[2] > 50 > there.phd_mm[2]


def test_how_masks_are_centred_is_kept_with_the_monitor(cases: list[MaskCase], tmp_path: Path) -> None:
    run = training(cases, tmp_path, epochs=1, steps=1)
    run.config = replace(run.config, centre="mask")
    assert run.run().centre == qcjax.Monitor.load(tmp_path, 1).centre == "mask"


def test_batches_across_cases_give_what_single_ones_give(monitor: Monitor) -> None:
    masks = [draw(np.random.default_rng(i)) for i in range(3)]
    prepared = [monitor.prepare(m, SPACING) for m in masks]
    for one, together in zip(prepared, monitor.reconstruct(prepared), strict=True):
        np.testing.assert_array_equal(monitor.reconstruct([one])[0], together)


def test_empty_slices_are_all_rebuilt_alike_whatever_lies_beside_them(monitor: Monitor) -> None:
    mask = draw(np.random.default_rng(105))
    gaps = np.zeros((60, 56, 11), np.uint8)
    gaps[..., [1, 4, 5, 9]] = mask
    empty, full, spread = (monitor.prepare(m, SPACING) for m in (np.zeros_like(gaps), mask, gaps))
    nothing, dense, sparse = monitor.reconstruct([empty, full, spread])
    np.testing.assert_array_equal(sparse[[1, 4, 5, 9]], dense)
    np.testing.assert_array_equal(sparse[[0, 2, 3, 6, 7, 8, 10]], nothing[:7])
    assert (nothing == nothing[0]).all() and monitor.reconstruct([]) == []


def test_masks_of_one_image_go_together(monitor: Monitor) -> None:
    masks = [draw(np.random.default_rng(i)) for i in range(3)]
    for mask, together in zip(masks, monitor.score_all(masks, SPACING), strict=True):
        alone = monitor.score(mask, SPACING)
        np.testing.assert_array_equal(together.reconstruction, alone.reconstruction)
        np.testing.assert_array_equal(together.measured, alone.measured)
        assert together.suspicion == alone.suspicion and together.unit == "mm"


def test_only_what_is_empty_in_both_is_cut_away() -> None:
    rng = np.random.default_rng(0)
    for at in ((0, 0), (5, 9), (11, 13)):
        mask, rebuilt = np.zeros((2, 3, 12, 14), np.uint8)
        mask[1, at[0], at[1]] = 1  # one pixel: a box of one row would have no surface across it
        rebuilt[2, 6:9, 4:6] = rng.integers(1, 4, (3, 2))
        for other in (mask, rebuilt):
            a, b = in_plane_box(mask, other)
            assert a.shape == b.shape and (a.sum(), b.sum()) == (mask.sum(), other.sum())
            before = qc.pseudo_measures(mask, other, (8.0, 2.0, 2.0))
            np.testing.assert_array_equal(qc.pseudo_measures(a, b, (8.0, 2.0, 2.0)), before)


def test_the_worst_slice_is_where_the_damage_is(monitor: Monitor) -> None:
    mask = draw(np.random.default_rng(103))
    mask[2:14, 2:14, 2] = 1
    mask[14:30, :, 2] = 0
    assert monitor.score(mask, SPACING).worst_slice[0] == 2


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
    assert whole.description["reference"] == resumed.description["reference"]


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


def test_original_measures_in_voxels_of_the_masks_own_grid(cases: list[MaskCase], tmp_path: Path) -> None:
    monitor = training(cases, tmp_path, 2, reading="original").run()
    mask = draw(np.random.default_rng(104))
    near, far = monitor.score(mask, SPACING), monitor.score(mask, (2.0, 2.0, 16.0))
    np.testing.assert_array_equal(near.phd_mm, far.phd_mm)
    assert near.unit == "voxels"
    wide = np.zeros((60, 160, 4), np.uint8)
    wide[:, :56], wide[20:30, 150:158] = mask, 1
    reasons = [flag.reason for flag in monitor.score(wide, SPACING).flags]
    assert any("voxels is above 50 voxels" in reason for reason in reasons), reasons


@pytest.mark.parametrize(
    "mask",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.float32), np.full((4, 4, 2), 9, np.uint8)],
    ids=["2-D", "float", "unknown label"],
)
def test_a_mask_of_another_kind_is_refused(monitor: Monitor, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="found, expected"):
        monitor.score(mask, SPACING)


def test_spacing_has_to_be_positive(monitor: Monitor) -> None:
    with pytest.raises(ValueError, match="expected three positive lengths"):
        monitor.score(np.zeros((4, 4, 2), np.uint8), (1.0, 0.0, 8.0))


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


def test_an_empty_mask_is_erroneous_throughout(monitor: Monitor) -> None:
    score = monitor.score(np.zeros((60, 56, 3), np.uint8), SPACING)
    assert score.verdict == "erroneous" and len(score.flags) == 3 and not score.pdc.any()
    assert (score.worst_slice[score.phd_mm != score.phd_mm] <= 2).all()
