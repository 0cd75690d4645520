"""Complete runs of the experiment, tiny: every test that needs one of a kind shares it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments import mnms2
from qcjax.data.phantom import PhantomConfig, write_mnms2
from qcjax.train.parallel import Devices

TRACES: dict[str, list[str]] = {}  # of the run whose name is the key: the functions that were traced

# two resolutions' worth of heart in 64 × 64 pixels, networks of a few hundred weights
TINY = (
    *("--size", "64", "--spacing-mm", "4", "--devices", "1"),
    *("--supervised.width", "2", "--supervised.stages", "3", "--supervised.epochs", "2"),
    *("--supervised.steps", "2", "--supervised.batch", "4", "--supervised.m-best", "2"),
    *("--autoencoder.width", "2", "--autoencoder.latent", "4", "--autoencoder.epochs", "2"),
    *("--autoencoder.steps", "2", "--autoencoder.batch", "4"),
    *("--refinement.epochs", "2", "--refinement.steps", "2"),
    *("--refinement.labelled", "2", "--refinement.unlabelled", "2"),
)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom cohort in the public layout: 4 training, 1 validation and 2 test subjects."""
    folder = tmp_path_factory.mktemp("cohort")
    write_mnms2(folder, PhantomConfig(4, 1, 2, seed=0))
    return folder


@pytest.fixture(scope="session")
def experiment() -> Callable[..., Path]:
    """(out, *options) -> the folder of a run that has ended well."""

    def run(out: Path, *options: str) -> Path:
        assert mnms2.main([*TINY, "--out", str(out), *options]) == 0
        return out

    return run


def _counted(name: str) -> Callable[..., Callable[..., object]]:
    """`Devices.compile` that also notes every trace of what it compiles."""
    TRACES[name] = []
    compile_ = Devices.compile

    def compile(self: Devices, function: Callable[..., object], *args: object, **kwargs: object) -> object:
        def traced(*arguments: object) -> object:
            TRACES[name].append(f"{function.__qualname__} {id(function)}")
            return function(*arguments)

        return compile_(self, traced, *args, **kwargs)  # type: ignore[arg-type]

    return compile  # type: ignore[return-value]


@pytest.fixture(scope="session")
def paper_run(
    tmp_path_factory: pytest.TempPathFactory, cohort: Path, experiment: Callable[..., Path]
) -> Path:
    """Preset demo's flow on the shared cohort, both views, nnunet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Devices, "compile", _counted("paper"))
        return experiment(tmp_path_factory.mktemp("paper") / "run", "--preset", "demo", "--data", str(cohort))


@pytest.fixture(scope="session")
def original_run(
    tmp_path_factory: pytest.TempPathFactory, cohort: Path, experiment: Callable[..., Path]
) -> Path:
    """Preset original, both views and both segmenters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Devices, "compile", _counted("original"))
        options = ("--preset", "original", "--data", str(cohort))
        return experiment(tmp_path_factory.mktemp("original") / "run", *options)


@pytest.fixture(scope="session")
def traces() -> dict[str, list[str]]:
    """What was traced in each run."""
    return TRACES


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a run to do things to."""

    def copy(run: Path) -> Path:
        return Path(shutil.copytree(run, tmp_path / "copy"))

    return copy


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
