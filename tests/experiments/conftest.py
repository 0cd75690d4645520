"""Complete runs of the experiment, tiny: every test that needs one of a kind shares it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import qcjax.refinement.run
from experiments import mnms2
from qcjax.config import Mnms2Config
from qcjax.phantom import PhantomConfig, write_mnms2
from qcjax.refinement.refine import Pool
from qcjax.refinement.refine_original import Records
from qcjax.runtime.devices import Devices
from qcjax.train.networks import Networks
from tests.experiments import pinned_mnms2
from tests.headers import store_otherwise
from tests.seeds import seed

SEEN: pinned_mnms2.Seen = {}
TRACES: dict[str, list[str]] = {}  # of the run whose name is the key: the functions that were traced

# a heart in 64 × 64 pixels, networks of a few hundred weights
TINY = (
    *("--size", "64", "--spacing-mm", "4", "--devices", "1", "--seed", str(seed())),
    *("--supervised.width", "2", "--supervised.stages", "3", "--supervised.epochs", "2"),
    *("--supervised.steps", "2", "--supervised.batch", "4", "--supervised.m-best", "2"),
    *("--autoencoder.width", "2", "--autoencoder.latent", "4", "--autoencoder.epochs", "2"),
    *("--autoencoder.steps", "2", "--autoencoder.batch", "4"),
    *("--refinement.epochs", "2", "--refinement.steps", "2"),
    *("--refinement.labelled", "2", "--refinement.unlabelled", "2"),
)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom cohort in the public layout: 4 training, 1 validation and 2 test subjects, coarsely sampled."""
    folder = tmp_path_factory.mktemp("cohort")
    write_mnms2(folder, PhantomConfig(4, 1, 2, seed=0, matrix_scale=1 / 3))
    for path in folder.rglob("*_SA_*.nii.gz"):
        volume = nib.load(path)
        array = np.asarray(volume.dataobj)[:, :, ::3]
        nib.save(nib.Nifti1Image(array, volume.affine @ np.diag([1, 1, 3, 1])), path)
    tested = max(p.name for p in (folder / "dataset").iterdir())
    for path in (folder / "dataset" / tested).glob("*_SA_*.nii.gz"):  # one is stored otherwise than the rest
        store_otherwise(path, (0, 1, 2), (-1, 1, -1))
    return folder


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """(out, *options) -> what is said of a run that isn't possible."""

    def refused(out: Path, *options: str) -> str:
        assert mnms2.main([*TINY, "--out", str(out), *options]) == 1
        return capsys.readouterr().err

    return refused


@cache
def _networks(config: Mnms2Config, name: str, count: int) -> Networks:
    return Networks(config, name, Devices(count))


def _shared_networks(config: Mnms2Config, name: str, devices: Devices) -> Networks:
    """Runs with the same options use the same compiled networks, as one process would for its views."""
    config = replace(config, data=None, out=None, skip_invalid=False, views=("SA",))
    return _networks(config, name, devices.count)


DETECT, OOD = Pool.detect, Records.ood


def _first_two(found: np.ndarray) -> np.ndarray:
    """Whatever these networks give, the first two cases are out of distribution, so that refinement runs."""
    return np.arange(len(found)) < 2


PATCH = pytest.MonkeyPatch()


# hooks and not fixtures: runs are fixtures of the session, and a process may go on with other tests than these
@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Before the fixtures of a test of this folder."""
    PATCH.setattr(qcjax.refinement.run, "Networks", _shared_networks)
    PATCH.setattr(Pool, "detect", lambda *args: (_first_two(DETECT(*args)[0]), DETECT(*args)[1]))
    PATCH.setattr(Records, "ood", lambda self: _first_two(OOD(self)))
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """After them."""
    try:
        return (yield)
    finally:
        PATCH.undo()


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
        with pinned_mnms2.recording(SEEN):
            return experiment(
                tmp_path_factory.mktemp("paper") / "run", "--preset", "demo", "--data", str(cohort)
            )


@pytest.fixture(scope="session")
def seen(paper_run: Path) -> pinned_mnms2.Seen:
    """What that run doesn't leave in files."""
    return SEEN


@pytest.fixture(scope="session")
def original_run(
    tmp_path_factory: pytest.TempPathFactory, cohort: Path, experiment: Callable[..., Path]
) -> Path:
    """Preset original, short axis, both segmenters, with dropout samples of the one that has dropout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Devices, "compile", _counted("original"))
        options = ("--preset", "original", "--data", str(cohort), "--views", "SA", "--mc-samples", "2")
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
