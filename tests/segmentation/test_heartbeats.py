"""Held-out volumes, ejection fraction and mass beside the true ones, by hand and against other implementations."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from qcjax.segmentation.heartbeats import (
    MEASURES,
    agreement,
    agreements,
    heartbeat_findings,
    heartbeat_table,
    heartbeats,
    write_heartbeats,
)


def record(subject: str, phase: str, fold: int = 1, **volumes: tuple[float, float]) -> dict:
    structures = {k: {"volume_ml": found, "true_volume_ml": true} for k, (found, true) in volumes.items()}
    return {"subject": subject, "phase": phase, "fold": fold, "structures": structures}


def test_a_subjects_phases_become_volumes_fraction_and_mass() -> None:
    records = [
        record("a", "ED", 2, lv=(100, 120), myo=(80, 100), rv=(0, 150)),
        record("a", "ES", 2, lv=(40, 48), myo=(85, 100), rv=(60, 75)),
        record("b", "ED", lv=(90, 90), myo=(70, 70), rv=(80, 80)),  # without ES
        record("c", "LGE", lv=(90, 90), myo=(70, 70), rv=(80, 80)),
    ]
    lv, rv = heartbeats(records)
    assert (lv["subject"], lv["structure"], lv["fold"]) == ("a", "lv", 2)
    assert (lv["edv_ml"], lv["esv_ml"], lv["ejection_fraction"], lv["mass_g"]) == (100, 40, 60, 84)
    assert (lv["true_edv_ml"], lv["true_ejection_fraction"], lv["true_mass_g"]) == (120, 60, 105)
    assert math.isnan(rv["edv_ml"]) and math.isnan(rv["ejection_fraction"]) and math.isnan(rv["mass_g"])
    assert (rv["esv_ml"], rv["true_edv_ml"], rv["true_ejection_fraction"]) == (60, 150, 50)
    found = agreements([lv, rv])
    assert list(found["lv"]) == list(MEASURES) and list(found["rv"]) == ["esv_ml"]
    assert found["lv"]["mass_g"]["bias"] == -21


def test_bias_limits_and_correlation_are_the_textbooks() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(120, 30, 40)
    found = 0.9 * true + rng.normal(5, 6, 40)
    cell = agreement([*found, math.nan], [*true, 50.0], [i % 4 for i in range(41)])
    difference = found - true
    assert (cell["n"], cell["n_missing"]) == (40, 1)
    assert cell["bias"] == pytest.approx(difference.mean(), abs=1e-5)
    assert cell["high"] == pytest.approx(difference.mean() + 1.96 * difference.std(ddof=1), abs=1e-4)
    assert cell["correlation"] == pytest.approx(stats.pearsonr(found, true).statistic, abs=1e-5)
    assert cell["mean_absolute"] == pytest.approx(np.abs(difference).mean(), abs=1e-5)


def test_the_interval_of_other_folds_covers_what_it_promises() -> None:
    """For normal differences t's interval is exact: 0.95 of 4,000; it doesn't know its own fold's shift."""
    rng = np.random.default_rng(1)
    true = rng.normal(60, 10, 4000)
    folds = np.repeat(np.arange(4), 1000)
    assert agreement(true + rng.normal(3, 4, 4000), true, folds)["covered"] == pytest.approx(0.95, abs=0.012)
    shifted = agreement(true + np.where(folds == 0, 50, 0) + rng.normal(0, 1, 4000), true, folds)
    assert shifted["covered"] == pytest.approx(0.75, abs=0.01)
    # by hand: the other fold's differences 0, 1, 2 have mean 1 and sd 1; t of two degrees is 4.303
    by_hand = agreement([0, 1, 2, 5.9, 6.1], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1])
    assert by_hand["half_width"] == pytest.approx(4.3027 * math.sqrt(4 / 3), abs=1e-3)
    assert by_hand["covered"] == 0.5 and by_hand["correlation"] is None


def test_too_few_say_so() -> None:
    assert agreement([math.nan], [1.0], [0])["n"] == 0
    cell = agreement([3.0, 4.0], [1.0, 1.0], [0, 1])
    assert (cell["bias"], cell["covered"], cell["correlation"]) == (2.5, None, None)
    assert heartbeats([]) == [] and agreements([]) == {} and heartbeat_table({}) is None


def test_training_reports_them(model_folder: Path) -> None:
    with (model_folder / "training" / "volumes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["subject"], r["structure"]) for r in rows] == [
        (f"patient00{i}", key) for i in range(1, 5) for key in ("lv", "rv")
    ]
    assert all(float(r["true_edv_ml"]) > float(r["true_esv_ml"]) > 0 for r in rows)
    found = json.loads((model_folder / "model.json").read_text())["heartbeats"]
    page, card = ((model_folder / name).read_text() for name in ("report.html", "README.md"))
    for text in (page, card):
        assert "subjects with ED and ES, and limits of agreement" in text
    for sentence in heartbeat_findings(found):
        assert sentence in page


def test_what_is_not_there_is_an_empty_cell(tmp_path: Path) -> None:
    rows = heartbeats([record("a", "ED", lv=(0, 120)), record("a", "ES", lv=(40, 48))])
    write_heartbeats(tmp_path / "volumes.csv", rows)
    with (tmp_path / "volumes.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["edv_ml"], row["true_edv_ml"], row["ejection_fraction"], row["true_mass_g"]) == (
        "",
        "120",
        "",
        "",
    )
