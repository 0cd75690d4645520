"""Mutation testing of code whose numbers reach a table: `python tests/mutants.py --help`.

One small fault at a time is put into a module, and the module's own tests must fail. Mutants of a module are drawn at
random, by a seed. Each is tried in a process of its own, forked from one that has imported everything but qcjax and
has computed nothing, so that a mutant costs what its tests cost; compiled programs are shared between mutants.
"""

import argparse
import contextlib
import importlib
import importlib.machinery
import json
import math
import os
import random
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.mutation import Mutant, mutants_of  # noqa: E402

IMPORTED = (
    *(
        "beartype",
        "chex",
        "flax.linen",
        "hypothesis",
        "jax",
        "jax.numpy",
        "jaxtyping",
        "matplotlib.pyplot",
        "nibabel",
    ),
    *(
        "optax",
        "orbax.checkpoint",
        "pandas",
        "PIL",
        "pytest",
        "scipy.ndimage",
        "scipy.spatial",
        "scipy.stats",
    ),
    *("SimpleITK", "tyro"),
)
LEAST_SECONDS = 60  # that the tests of a mutant may take; else six times what they take without one
TIMED_OUT = -1
# tests of a module beside tests/<room>/test_<module>.py, where its numbers are pinned elsewhere too
_OF_MONITORING = ("tests/monitoring/test_intervals.py", "tests/monitoring/test_summary.py")
MORE_TESTS: dict[str, tuple[str, ...]] = {
    "qcjax/qc/registration.py": ("tests/qc/test_rca.py",),
    "qcjax/qc/selection.py": ("tests/qc/test_measures.py",),
    "qcjax/train/validation.py": ("tests/train/test_loop.py",),
    "qcjax/refinement/summary.py": ("tests/refinement/test_values.py", "tests/refinement/test_failures.py"),
    "qcjax/refinement/clinical.py": ("tests/refinement/test_values.py", "tests/refinement/test_summary.py"),
    "qcjax/uncertainty/summary.py": ("tests/uncertainty/test_values.py",),
    "qcjax/refinement/flags.py": ("tests/refinement/test_page.py",),
    "qcjax/monitoring/summary.py": _OF_MONITORING[:1],
    "qcjax/monitoring/flags.py": _OF_MONITORING,
    "qcjax/monitoring/ranking.py": _OF_MONITORING,
    "qcjax/monitoring/risk.py": _OF_MONITORING,
    "qcjax/report/failures.py": ("tests/uncertainty/test_summary.py", "tests/refinement/test_failures.py"),
    "qcjax/refinement/table.py": ("tests/refinement/test_failures.py",),
    "qcjax/scoring/table.py": ("tests/scoring/test_score.py", "tests/scoring/test_stream.py"),
}


def tests_of(module: str) -> list[str]:
    """The test files of a module, such as tests/qc/test_rca.py of qcjax/qc/rca.py."""
    path = Path(module)
    room = path.parent.relative_to("qcjax")
    own = Path("tests") / room / f"test_{path.stem}.py"
    return [*([str(own)] if (ROOT / own).exists() else []), *MORE_TESTS.get(module, ())]


def run_tests(
    path: Path, source: str, tests: Sequence[str], folder: Path, seconds: float
) -> tuple[int, float]:
    """pytest's exit code, TIMED_OUT where it was ended, and the seconds that it took."""
    started = time.monotonic()
    number = os.fork()
    if not number:
        os.setpgrp()
        descriptor = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = 70
        try:
            code = _in_this_process(path, source, tests, folder)
        except BaseException:  # whatever it is, it must not go on as the runner
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = None
    while code is None and time.monotonic() - started < seconds:
        found, status = os.waitpid(number, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if found else None
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):  # what it has started too
        os.killpg(number, signal.SIGKILL)
    if code is None:
        os.waitpid(number, 0)
        code = TIMED_OUT
    return code, time.monotonic() - started


def _in_this_process(path: Path, source: str, tests: Sequence[str], folder: Path) -> int:
    import pytest

    loader = importlib.machinery.SourceFileLoader
    read, stats = loader.get_data, loader.path_stats

    def get_data(self: importlib.machinery.SourceFileLoader, name: str) -> bytes:
        return source.encode() if Path(name) == path else read(self, name)

    def path_stats(self: importlib.machinery.SourceFileLoader, name: str) -> object:
        if Path(name) == path:
            raise OSError  # so that no compiled file is read or written for it
        return stats(self, name)

    loader.get_data, loader.path_stats = get_data, path_stats  # type: ignore[method-assign, assignment]
    os.chdir(ROOT)
    # as a worker of xdist would: then what is compiled goes to a folder beside this one's, and the next finds it
    os.environ["PYTEST_XDIST_WORKER"] = "gw0"
    options = ["-x", "-n0", "-p", "no:cacheprovider", f"--basetemp={folder / 'gw0'}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is imported already
    return int(pytest.main([*options, *tests]))


def interval_95(killed: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion."""
    z = 1.959964
    middle, half = killed + z * z / 2, z * math.sqrt(killed * (n - killed) / n + z * z / 4)
    return (middle - half) / (n + z * z), (middle + half) / (n + z * z)


def drawn(module: str, count: int, seed: int) -> list[Mutant]:
    """So many of a module's mutants, in the order in which they are drawn: more of them begin with the same ones."""
    found = mutants_of((ROOT / module).read_text(encoding="utf-8"))
    order = random.Random(zlib.crc32(f"{seed} {module}".encode()))
    return order.sample(found, min(count, len(found)))


def survivors(journal: Path) -> set[tuple[object, ...]]:
    """Module, line and change of the mutants that a journal says have survived."""
    records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return {(r["module"], r["line"], r["change"]) for r in records if r["code"] == 0}


def try_module(
    module: str, count: int, seed: int, folder: Path, again: set[tuple[object, ...]] | None
) -> Iterator[dict[str, object]]:
    """What became of each mutant, or of those in `again`; raises RuntimeError where the tests fail without one."""
    path, tests = ROOT / module, tests_of(module)
    if not tests:
        raise RuntimeError(f"{module}: no tests found")
    source = path.read_text(encoding="utf-8")
    run_tests(path, source, tests, folder, 1e9)  # compiles what later ones find
    code, seconds = run_tests(path, source, tests, folder, 1e9)
    if code:
        raise RuntimeError(f"{module}: its tests fail without a mutant ({code}), see {folder / 'log'}")
    limit = max(LEAST_SECONDS, 6 * seconds)
    for mutant in drawn(module, count, seed):
        told = mutant.told(source)
        if again is None or (module, told["line"], told["change"]) in again:
            code, seconds = run_tests(path, mutant.applied(source), tests, folder, limit)
            yield {"module": module, "code": code, "seconds": round(seconds, 1), **told}


def told(results: Sequence[dict[str, object]]) -> str:
    """The score of some mutants in words."""
    n, killed = len(results), sum(r["code"] != 0 for r in results)
    low, high = interval_95(killed, n)
    return f"{killed} of {n} killed: {killed / n:.1%} (95 % interval {low:.1%} to {high:.1%})"


def main() -> int:
    """1 where a mutant survives."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", help="such as qcjax/metrics/overlap.py")
    parser.add_argument("-n", type=int, default=15, help="mutants of each module, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    parser.add_argument(
        "--again", type=Path, help="a journal, of whose mutants those that survived are tried alone"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/qcjax-mutants"), help="for what the tests write"
    )
    parser.add_argument("--journal", type=Path, help="a line of JSON for each mutant is added to this file")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in IMPORTED:
        importlib.import_module(name)
    again = survivors(options.again) if options.again else None
    results = []
    for module in options.modules:
        of_module = []
        try:
            for result in try_module(module, options.n, options.seed, options.folder, again):
                of_module.append(result)
                if result["code"] == 0:
                    print(
                        f"survived: {module}:{result['line']} {result['change']}",
                        flush=True,
                    )
                if options.journal:
                    with options.journal.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(result) + "\n")
        except RuntimeError as error:
            print(error, flush=True)
        if of_module:
            print(f"{module}: {told(of_module)}", flush=True)
        results += of_module
    if len(options.modules) > 1 and results:
        print(f"all: {told(results)}")
    return int(any(r["code"] == 0 for r in results))


if __name__ == "__main__":
    sys.exit(main())
