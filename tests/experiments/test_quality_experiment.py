"""The study of predicted quality from given records: what it reads, what it leaves, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.quality import Options, read_held_out, run
from qcjax.quality.study import SIGNS
from qcjax.runtime.records import write_record

KEYS = ("lv", "rv")


def signals(quality: np.ndarray, rng: np.random.Generator) -> dict[str, list[float]]:
    named = [n for n in SIGNS if n != "suspicion"]
    return {n: (SIGNS[n] * quality + rng.normal(0, 0.2, len(KEYS))).tolist() for n in named}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with records of 24 subjects in two folds, and a site's of 14."""
    folder, rng = tmp_path / "model", np.random.default_rng(0)
    (folder / "training").mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"labels": {"lv": 1, "rv": 2}}))
    cases = []
    for fold in (1, 2):
        records = []
        for i in range(24):
            quality = rng.normal(2.5, 0.5, len(KEYS))
            dice = 1 / (1 + np.exp(-quality))
            of = {
                k: {"dice": float(d), "hd_mm": float(30 * (1 - d))} for k, d in zip(KEYS, dice, strict=True)
            }
            found = {"subject": f"{fold}{i // 2}", "structures": of, "signals": signals(quality, rng)}
            records.append(found | {"suspicion": float(rng.uniform())})
            listed = [[of[k][m] for k in KEYS] for m in ("dice", "hd_mm")]
            cases.append(
                {"subject": i // 2, "signals": found["signals"], "dice": listed[0], "hd_mm": listed[1]}
            )
        write_record(folder / "training" / f"held_out_{fold}.json", records)
    (folder / "calibration.json").write_text(json.dumps({"segmented": {"checked": [], "cases": cases[:24]}}))
    return folder


def test_the_tables_have_every_signal_and_the_site(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.quality.FOLDS", 2)
    monkeypatch.setattr("experiments.quality.DRAWS", 2)
    monkeypatch.setattr("qcjax.quality.study.RESAMPLES", 50)
    run(Options(model, tmp_path / "out", site=model))
    text = (tmp_path / "out" / "tables.md").read_text()
    for name in (*SIGNS, "ridge, segmented", "ridge, mask", "ridge, pdc + confidence"):
        assert f"| {name} |" in text
    assert "At the site calibrated on 9 of 12 subjects, mean of 2 draws, segmented" in text
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["masks"] == 48
    assert found["ranking"]["ridge, segmented"]["excess"] < found["ranking"]["suspicion"]["excess"]
    assert {row["structure"] for row in found["groups"]["middle third"]} == set(KEYS)
    assert sum(found["groups"][t][0]["n"] for t in list(found["groups"])) == 48


def test_a_folder_without_records_is_refused(model: Path, tmp_path: Path) -> None:
    for path in (model / "training").iterdir():
        path.unlink()
    with pytest.raises(
        ValueError, match="found no held_out_[*].json; expected those that qcjax train leaves"
    ):
        read_held_out(model, None)
