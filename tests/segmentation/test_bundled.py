"""The model that comes with qcjax: whole, small, of no one's name, and made by the command in its card."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import qcjax
from qcjax import cli
from qcjax.labels import ACDC_LABELS
from qcjax.metrics.overlap import dice
from qcjax.phantom.acdc import AcdcPhantomConfig
from qcjax.segmentation.model import BUNDLED
from tests.slow import slow

LARGEST = 10_000_000  # bytes in all


def test_it_is_small_licensed_and_names_nobody() -> None:
    files = [path for path in BUNDLED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST
    assert "CC BY-NC-SA 4.0" in (BUNDLED / "LICENSE").read_text()
    for path in files:
        assert not re.search(rb"patient ?\d", path.read_bytes()), path


def test_its_card_says_what_its_description_says() -> None:
    found = json.loads((BUNDLED / "model.json").read_text())
    card = (BUNDLED / "README.md").read_text()
    for key in found["labels"]:
        assert f"{found['cross_validated'][key]['dice']['mean']:.3f}" in card
    assert found["licence"] in card


def test_it_segments_a_phantom_by_its_own_grid_and_label_values() -> None:
    model = qcjax.load(devices=1)
    subject = next(AcdcPhantomConfig(n_train=1, n_test=0).subjects())
    item = subject.images["SA", "ED"]
    result = model.segment(item.image, item.spacing_mm)
    assert result.labels.shape == item.image.shape
    ids = np.vectorize(ACDC_LABELS.get)(result.labels).astype(np.uint8)
    assert dice(ids, item.label)[0] > 0.5  # it has never seen a phantom
    for measures in result.measures.values():
        predicted = measures.predicted
        assert 0 < predicted.dice_low < predicted.dice < 1
        assert 0 < predicted.hd_mm < predicted.hd_high_mm < 100


@slow
def test_the_command_in_its_card_trains_such_a_model(phantoms: Path, tmp_path: Path) -> None:
    card = (BUNDLED / "README.md").read_text()
    line = next(line for line in card.splitlines() if line.startswith("qcjax train "))
    arguments = [
        {"DATA": str(phantoms), "MODEL": str(tmp_path / "model")}.get(a, a) for a in shlex.split(line)
    ]
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments[1:], "--epochs", "1", "--monitor-epochs", "1", "--devices", "1"])
    assert end.value.code == 0
    ours, theirs = (json.loads((f / "model.json").read_text()) for f in (BUNDLED, tmp_path / "model"))
    assert ours["network"] == theirs["network"]
    assert qcjax.load(tmp_path / "model", 1).labels == ours["labels"]
