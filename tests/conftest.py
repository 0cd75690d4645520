"""For all tests: eight emulated CPU devices, quick compilation, and shapes checked at every call.

`QCJAX_SLOW_TESTS=1` runs the slow tests too (`slow.py`), `QCJAX_TEST_SEED=7` moves the seed of every test that trains
(`seeds.py`), and flags in `XLA_FLAGS` go before those of the tests.
"""

import os

from tests.xla_flags import known_flags

os.environ["XLA_FLAGS"] = " ".join(
    [*known_flags(), "--xla_force_host_platform_device_count=8", os.environ.get("XLA_FLAGS", "")]
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import pytest
from jaxtyping import install_import_hook

# the networks of the tests are tiny: to compile them takes far longer than to run them
jax.config.update("jax_disable_most_optimizations", True)
# no silent widening and no silent broadcasting: both have hidden wrong numbers
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SHAPES_CHECKED = ("qcjax.data", "qcjax.losses", "qcjax.qc", "qcjax.metrics", "qcjax.train.updates")
# an int is a float, as everywhere in Python
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
install_import_hook(SHAPES_CHECKED, CHECKER)


if TYPE_CHECKING:
    from qcjax.train.arm import Arm
    from qcjax.train.networks import Networks


# files of minutes: begun first, so that no process is left with one of them when the others have nothing to do
LONGEST = ("experiments/", "runtime/test_devices", "data/test_placement", "train/", "parity/", "refinement/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all else in its order."""
    folder = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(folder).as_posix()
        return next((i for i, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What one test has compiled serves the next, in the other processes too; the user's cache isn't touched."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": 2
        ** 34,  # with a limit, JAX locks the folder: nobody reads half an entry
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)  # for processes that tests start
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, where there is one."""
    folder = os.environ.get("QCJAX_DATA")
    if not folder:
        pytest.skip("QCJAX_DATA is not set: no real data")
    return Path(folder)


@pytest.fixture(scope="session")
def networks() -> "Callable[..., Networks]":
    """(name, devices=1, original=False) -> networks, compiled once for all tests."""
    from tests.train.arms import networks

    return lambda name="nnunet", devices=1, original=False: networks(name, devices, original)


@pytest.fixture
def make_arm(tmp_path: Path) -> "Callable[..., Arm]":
    """(folder, name, devices, original) -> an arm that writes to a folder of its own."""
    from tests.train.arms import arm

    def make(folder: str = "run", name: str = "nnunet", devices: int = 1, original: bool = False) -> "Arm":
        (tmp_path / folder).mkdir(exist_ok=True)
        return arm(tmp_path / folder, name, devices, original)

    return make
