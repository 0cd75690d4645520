"""One tiny training on phantoms in ACDC's layout serves all tests of this room."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcjax.config import MONITORS
from qcjax.config.segmentation import FAST, SegmentationConfig
from qcjax.phantom.acdc import AcdcPhantomConfig, write_acdc
from qcjax.quality.model import KnownCase, QualityModel
from qcjax.segmentation.judge import known_case
from qcjax.segmentation.run import Training

TINY = replace(
    FAST,
    devices=1,
    folds=2,
    size=64,
    spacing_mm=3.6,
    patch=32,
    width=4,
    max_width=8,
    stages=3,
    epochs=1,
    batch=8,
    warm_up=1,
    intensity=False,  # tested by itself; it takes long to compile
    monitor=replace(
        MONITORS["demo"],
        size=64,
        spacing_mm=3.6,
        autoencoder=replace(MONITORS["demo"].autoencoder, width=2, latent=4, epochs=1, steps=2, batch=8),
    ),
)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four subjects in ACDC's layout, at a quarter of the pixels along each side."""
    folder = tmp_path_factory.mktemp("phantoms")
    return write_acdc(folder, AcdcPhantomConfig(n_train=4, n_test=0, matrix_scale=0.25))


@pytest.fixture(scope="session")
def config(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> SegmentationConfig:
    """Of the training behind `model_folder`."""
    return replace(TINY, data=phantoms, out=tmp_path_factory.mktemp("trained") / "model", keep=True)


@pytest.fixture(scope="session")
def model_folder(config: SegmentationConfig) -> Path:
    """What `qcjax train` leaves."""
    assert config.out is not None
    Training(config).run()
    return config.out


@pytest.fixture(scope="session")
def known_cases(model_folder: Path) -> list[KnownCase]:
    """The records that training left of its four subjects."""
    records = []
    for fold in (1, 2):
        path = model_folder / "training" / f"held_out_{fold}.json"
        records += json.loads(path.read_text())["record"]
    return [known_case(record) for record in records]


@pytest.fixture(scope="session")
def quality_folder(
    model_folder: Path, known_cases: list[KnownCase], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model whose masks are drawn to have Dice around 0.9 of lv, 0.85 of myo, 0.6 of rv, whatever they look like."""
    folder = tmp_path_factory.mktemp("with_quality") / "model"
    shutil.copytree(model_folder, folder, ignore=shutil.ignore_patterns("training", "held_out"))
    rng = np.random.default_rng(0)
    cases = [
        replace(
            known_cases[i % len(known_cases)],
            subject=f"s{i}",
            dice=rng.normal([0.9, 0.85, 0.6], 0.01).tolist(),
            hd_mm=rng.normal([5, 6, 20], 0.5).tolist(),
        )
        for i in range(24)
    ]
    quality = QualityModel.fit(cases, ("lv", "myo", "rv"))
    assert quality is not None
    quality.save(folder)
    return folder
