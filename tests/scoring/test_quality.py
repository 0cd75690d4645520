"""Masks from elsewhere with a given quality model: the columns, what is decided, and what the command refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from qcjax import cli
from qcjax.inference.signals import signals_of
from qcjax.quality.model import PREDICTED, Expectation, KnownCase, QualityModel
from tests.fake_monitor import KEYS, SPACING_MM, FakeMonitor, draw_mask, rows_of, save_four, score


@pytest.fixture(scope="module")
def quality(tmp_path_factory: pytest.TempPathFactory) -> QualityModel:
    """Learnt from drawn masks, of which the monitor keeps as much of the RV as their Dice is."""
    monitor = FakeMonitor(tmp_path_factory.mktemp("monitor"))
    rng = np.random.default_rng(0)
    cases = []
    for i, at in enumerate(rng.integers(14, 27, 30).tolist()):
        mask = draw_mask(at)
        signals = signals_of(mask, SPACING_MM, monitor.score_all([mask], SPACING_MM)[0])
        kept = min(1.0, (30 - at) / 12)
        dice = [0.95 - rng.uniform(0, 0.02), 0.9 - rng.uniform(0, 0.02), kept - rng.uniform(0.02, 0.05)]
        listed = {name: [None if np.isnan(v) else float(v) for v in x] for name, x in signals.items()}
        cases.append(KnownCase(f"s{i}", listed, dice, [5.0, 5.0, 40 * (1 - dice[2])]))
    found = QualityModel.fit(cases, KEYS)
    assert found is not None
    return found


def test_predictions_follow_what_the_monitor_keeps(quality: QualityModel, tmp_path: Path) -> None:
    monitor, masks = FakeMonitor(tmp_path / "monitor"), save_four(tmp_path / "masks")
    scores = score(monitor, masks, tmp_path / "out", expectation=Expectation(quality))
    rows = rows_of(tmp_path / "out")
    sound, doubted = rows["p1_ED", "rv"], rows["a/p2_ED", "rv"]
    assert float(sound["predicted_dice"]) > 0.85 and float(doubted["predicted_dice"]) < 0.7
    for row in (sound, doubted):
        assert float(row["predicted_dice_low"]) < float(row["predicted_dice"])
        assert float(row["predicted_hd_high_mm"]) > float(row["predicted_hd_mm"])
    assert rows["p1_ED", "lv"]["decision"] == "accept" and doubted["decision"] == "reject"
    empty = rows["p4_ED", "lv"]
    assert empty["predicted_dice"] == "" and empty["decision"] == "reject"
    assert sum(scores.summary["decisions"].values()) == scores.summary["scored"]
    # the same without a quality model: other scores, and none of these columns
    with pytest.raises(ValueError, match="holds scores with quality_sha256"):
        score(monitor, masks, tmp_path / "out")
    score(monitor, masks, tmp_path / "plain")
    assert {r[c] for r in rows_of(tmp_path / "plain").values() for c in PREDICTED} == {""}


def refused(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["score", "--masks", "masks", "--out", "out", *arguments])
    return int(str(end.value.code))


def test_the_command_wants_a_monitor_or_a_model_that_knows_quality(
    quality: QualityModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused() == 1
    assert "neither --monitor and --model found, expected one of them" in capsys.readouterr().err
    assert refused("--monitor", "a", "--model", "b") == 1
    assert "both --monitor and --model found, expected one of them" in capsys.readouterr().err
    monkeypatch.setattr("qcjax.inference.monitor.Monitor.load", lambda *args: FakeMonitor(tmp_path / "m"))
    assert refused("--model", "m") == 1
    assert "m: found no quality.json; expected a model of at least 9 subjects" in capsys.readouterr().err
    quality.save(tmp_path / "m")
    assert refused("--model", "m", "--coverage", "1.5") == 1
    assert "--coverage: 1.5 found, expected a probability between 0 and 1" in capsys.readouterr().err
    save_four(tmp_path / "masks")
    assert refused("--model", "m", "--accept", "0.7", "--pictures", "0") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"]["accept"] == 0.7
