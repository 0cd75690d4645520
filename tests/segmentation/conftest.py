"""One tiny training on phantoms in ACDC's layout serves all tests of this room."""

from dataclasses import replace
from pathlib import Path

import pytest

from qcjax.config import MONITORS
from qcjax.config.segmentation import FAST, SegmentationConfig
from qcjax.phantom.acdc import AcdcPhantomConfig, write_acdc
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
