"""Preprocessing, metrics and decisions against the authors' PyTorch code."""

from pathlib import Path

import numpy as np
import pytest

from qcjax.data.preprocess import plan, prepare_image, prepare_labels, restore_labels
from qcjax.data.subject import Volume
from qcjax.metrics.surface import case_metrics
from qcjax.qc import original as qc_original
from tests.parity import formulas as f
from tests.parity.golden import load


def _volume(name: str, array: np.ndarray) -> Volume:
    spacing = f.VOLUMES[name][1]
    return Volume(array, spacing, np.diag([*spacing, 1.0]), Path(name))


@pytest.mark.parametrize("name", f.VOLUMES)
def test_preprocessing_and_its_way_back(name: str) -> None:
    golden = load("preprocessing")
    image, label = (_volume(name, array) for array in f.volume(name))
    _, _, _, size, target_spacing = f.VOLUMES[name]
    geometry = plan(image, target_spacing, size)
    prepared = prepare_image(image, geometry, "original")
    assert f.deviation(f.sampled(prepared, f.OUTPUT_SAMPLES), golden[f"{name}/image"]) < 1e-5
    labels = prepare_labels(label, geometry, "original")
    np.testing.assert_array_equal(labels, golden[f"{name}/labels"])
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    if f"{name}/restored" not in golden:  # the authors' way back mixes up the axes of oblong pixels
        assert len(set(f.VOLUMES[name][1][:2])) == 2
        return
    restored = restore_labels(f.predictions(f"prediction {name}", labels), geometry, "original")
    np.testing.assert_array_equal(restored, golden[f"{name}/restored"])


@pytest.mark.parametrize("name", f.METRIC_CASES)
def test_dice_and_hausdorff_distance(name: str) -> None:
    """Where neither map has the structure, medpy 0.4 gave Dice 0, which we follow, and 0.5 gives NaN."""
    golden = load("metrics")
    found = case_metrics(*f.metric_case(name), spacing_mm=(1.0, 1.0, 1.0), empty="original")
    structures = ("lv", "myo", "rv")
    expected_dice = np.nan_to_num(golden[f"{name}/dc"], nan=0.0)
    np.testing.assert_allclose([found[f"dc_{s}"] for s in structures], expected_dice, rtol=0, atol=1e-5)
    found_hd = [found[f"hd_{s}_voxels"] for s in structures]
    np.testing.assert_allclose(found_hd, golden[f"{name}/hd"], rtol=0, atol=1e-5)
    assert (name == "absent from both") == bool(np.isnan(golden[f"{name}/dc"]).any())


@pytest.mark.parametrize("phase", ["ED", "ES"])
@pytest.mark.parametrize("name", f.HISTORIES)
def test_thresholds_anomalies_and_selection(name: str, phase: str) -> None:
    golden, key = load("decisions"), f"{name}/{phase}"
    pdc, phd = f.history(name, phase)
    record = qc_original.empty_record(pdc.shape[1])
    for evaluation in range(len(pdc)):
        record = qc_original.update(record, pdc[evaluation], phd[evaluation]).record
        np.testing.assert_array_equal(qc_original.thresholds(record), golden[f"{key}/thresholds"][evaluation])
        np.testing.assert_array_equal(
            qc_original.out_of_distribution(record), golden[f"{key}/ood"][evaluation]
        )
        kept = np.stack([record.dc_from, record.hd_from, record.ensemble_from], -1)
        np.testing.assert_array_equal(kept, golden[f"{key}/kept"][evaluation])
        selection = qc_original.select(record)
        chosen = (selection.first + selection.second) / 2
        np.testing.assert_array_equal(chosen, golden[f"{key}/chosen"][evaluation])


def test_histories_hold_what_they_are_for() -> None:
    """Ties, infinities, out-of-distribution cases, and both ways of choosing occur."""
    golden = load("decisions")
    assert any(golden[f"{name}/{phase}/ood"].any() for name in f.HISTORIES for phase in ("ED", "ES"))
    assert not np.isfinite(golden["many undefined/ED/thresholds"]).all()
    kept = np.concatenate([golden[f"{name}/ED/kept"].reshape(-1, 3) for name in f.HISTORIES])
    assert (kept[:, 2] < 0).any()
    assert (kept[:, 2] >= 0).any()
    assert (kept[:, 0] != kept[:, 1]).any()
    pdc, _ = f.history("plain", "ED")
    assert any(len(set(case)) < len(case) for case in pdc.T)
