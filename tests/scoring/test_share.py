"""Masks scored in shares: by processes of their own, killed, started again, and merged."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qcjax.data.datasets.masks import find_masks
from qcjax.runtime import lock
from qcjax.scoring.score import Outcome
from qcjax.scoring.share import Share, journal_path, share_of, shares_in
from qcjax.scoring.table import ScoreJournal
from tests.fake_monitor import FakeMonitor, draw_mask, rows_of, save_four, save_mask, score

N = 64
STUCK_AFTER = (
    3  # groups of masks: the lines of some are in the journal by then, whatever the number of processors
)

# forks a process for every line that it gets, so that the imports are made once
STARTER = f"""
import json, os, sys, time
from pathlib import Path
from tests.fake_monitor import FakeMonitor
from qcjax.scoring.score import ScoringRun

class Stuck(FakeMonitor):
    def reconstruct(self, prepared):
        if len(self.groups) == {STUCK_AFTER}:
            time.sleep(600)
        return super().reconstruct(prepared)

print("ready", flush=True)
for text in sys.stdin:
    job = json.loads(text)
    if "wait" in job:
        print(os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1]), flush=True)
        continue
    monitor = (Stuck if job["stuck"] else FakeMonitor)(Path(job["monitor"]))
    number = os.fork()
    if not number:
        code = 70
        try:
            os.dup2(2, 1)
            ScoringRun.open(monitor, Path(job["masks"]), Path(job["out"]), share=tuple(job["share"])).run(0)
            code = 0
        finally:
            os._exit(code)
    print(number, flush=True)
"""


class Starter:
    """Scores shares in processes of their own."""

    def __init__(self) -> None:
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join((str(root), os.environ.get("PYTHONPATH", "")))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", STARTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._answer() == "ready"
        self.running: set[int] = set()

    def start(self, folder: Path, share: tuple[int, int], stuck: bool = False) -> int:
        """The number of the process that scores a share; a stuck one ends only by being killed."""
        job = {name: str(folder / name) for name in ("monitor", "masks", "out")}
        number = int(self._ask(job | {"share": share, "stuck": stuck}))
        self.running.add(number)
        return number

    def wait(self, number: int) -> int:
        """Its exit code, or minus the signal that ended it."""
        self.running.discard(number)
        return int(self._ask({"wait": number}))

    def kill(self, number: int) -> None:
        os.kill(number, signal.SIGKILL)
        assert self.wait(number) == -signal.SIGKILL

    def close(self) -> None:
        for number in list(self.running):
            self.kill(number)
        self.process.communicate()

    def _ask(self, job: dict[str, Any]) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    found = Starter()
    yield found
    found.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks enough for several groups in each of two shares, some of them doubtful."""
    folder = tmp_path_factory.mktemp("many") / "masks"
    for i in range(N):
        save_mask(folder / f"p{i % 9}" / f"{i:02}.nii", draw_mask(18 + i % 16))
    (folder / "broken.nii.gz").write_bytes(b"no")
    return folder


@pytest.fixture(scope="module")
def table(many: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one process makes of them."""
    folder = tmp_path_factory.mktemp("one")
    assert score(FakeMonitor(folder / "monitor"), many, folder / "out").summary["cases"] == N + 1
    return (folder / "out" / "scores.csv").read_bytes()


@pytest.fixture
def place(many: Path, tmp_path: Path) -> Path:
    """A folder with the masks and a monitor, for results."""
    (tmp_path / "masks").symlink_to(many)
    return tmp_path


def run_share(place: Path, share: tuple[int, int] | None, monitor: FakeMonitor | None = None) -> Outcome:
    """In this process."""
    return score(monitor or FakeMonitor(place / "monitor"), place / "masks", place / "out", share=share)


def lines_of(journal: Path) -> list[str]:
    """The masks of a journal's whole lines."""
    found = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    return [json.loads(line)["path"] for line in found if line.endswith(b"\n")]


def assert_each_once(place: Path, table: bytes) -> None:
    """One line for each mask, and the table that one process makes."""
    counts = Counter(lines_of(place / "out" / "scores.jsonl"))
    assert len(counts) == N + 1 and set(counts.values()) == {1}
    assert (place / "out" / "scores.csv").read_bytes() == table
    assert json.loads((place / "out" / "summary.json").read_text())["cases"] == N + 1
    assert (place / "out" / "report.html").exists()


def wait_until(condition: Any) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("waited in vain")


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_mask_is_in_one_share_and_stays_there(many: Path, count: int) -> None:
    files = find_masks(many)
    parts = [Share(i, count).of(files) for i in range(1, count + 1)]
    assert sorted(f.name for part in parts for f in part) == [f.name for f in files]
    fewer = Share(1, count).of(files[::2])
    assert [f for f in parts[0] if f in files[::2]] == fewer


def test_shares_are_of_like_size() -> None:
    sizes = Counter(share_of(f"patient{i:05}/ED", 8) for i in range(8000))
    assert len(sizes) == 8 and 900 < min(sizes.values()) <= max(sizes.values()) < 1100


@pytest.mark.parametrize("share", [(0, 8), (9, 8), (1, 0)])
def test_no_such_share(place: Path, share: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"share: {share[0]}/{share[1]} found, expected INDEX/COUNT"):
        run_share(place, share)
    assert not (place / "out").exists()


def test_a_share_that_is_killed_goes_on_and_the_last_one_merges(
    place: Path, table: bytes, starter: Starter, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = FakeMonitor(place / "monitor")
    killed = starter.start(place, (1, 2), stuck=True)
    journal = journal_path(place / "out", Share(1, 2))
    wait_until(lambda: lines_of(journal))
    number = rf"process {killed} on .*since 20"

    with pytest.raises(ValueError, match=rf"out: share 1/2 is at work there \({number}"):
        run_share(place, None, monitor)
    with pytest.raises(ValueError, match=rf"out: share 1/2 is at work there \({number}"):
        run_share(place, (1, 3), monitor)
    with pytest.raises(ValueError, match=rf"1-of-2: another run is at work there \({number}"):
        run_share(place, (1, 2), monitor)
    assert starter.wait(starter.start(place, (2, 2))) == 0  # for what was refused holds nothing
    assert not (place / "out" / "report.html").exists()

    starter.kill(killed)
    done, part = len(lines_of(journal)), len(Share(1, 2).of(find_masks(place / "masks")))
    assert 0 < done < part
    with journal.open("ab") as file:
        file.write(b'{"name": "cut sho')
    capsys.readouterr()
    scores = run_share(place, (1, 2), monitor)
    assert scores.complete and monitor.prepared == part - done
    assert scores.summary["cases"] == part
    assert "Still to come" not in capsys.readouterr().out
    assert_each_once(place, table)
    assert run_share(place, None, monitor).summary["cases_in_this_run"] == 0
    assert_each_once(place, table)


def test_what_a_dead_share_left_is_done_by_a_start_without_a_share(
    place: Path, table: bytes, starter: Starter
) -> None:
    killed = starter.start(place, (1, 2), stuck=True)
    journal = journal_path(place / "out", Share(1, 2))
    wait_until(lambda: lines_of(journal))
    starter.kill(killed)
    done, before = len(lines_of(journal)), journal.read_bytes()
    monitor = FakeMonitor(place / "monitor")
    scores = run_share(place, None, monitor)
    assert scores.summary["cases_in_this_run"] == N + 1 - done
    assert_each_once(place, table)
    assert journal.read_bytes() == before
    prepared = monitor.prepared
    assert run_share(place, (1, 2), monitor).complete and monitor.prepared == prepared


def test_two_shares_at_once(place: Path, table: bytes, starter: Starter) -> None:
    numbers = [starter.start(place, (i, 2)) for i in (1, 2)]
    assert [starter.wait(number) for number in numbers] == [0, 0]
    assert_each_once(place, table)


def test_of_shares_that_end_together_one_waits_for_the_other(
    place: Path, table: bytes, starter: Starter
) -> None:
    assert not run_share(place, (2, 2)).complete
    part = Share(1, 2).of(find_masks(place / "masks"))
    with lock.in_turn(place / "out") as certain:
        assert certain
        number = starter.start(place, (1, 2))
        wait_until(lambda: len(lines_of(journal_path(place / "out", Share(1, 2)))) == len(part))
        time.sleep(0.5)
        os.kill(number, 0)  # still there
        assert not (place / "out" / "scores.csv").exists()
    assert starter.wait(number) == 0
    assert_each_once(place, table)


def test_a_run_of_all_masks_keeps_shares_away(place: Path, starter: Starter) -> None:
    run_share(place, (1, 2))
    lock.lock_folder(place / "out")
    try:
        assert starter.wait(starter.start(place, (2, 2))) == 70
        assert lock.holder(place / "out") is None  # it is this process
    finally:
        lock.unlock_folder(place / "out")
    assert starter.wait(starter.start(place, (2, 2))) == 0


def test_the_last_share_says_what_others_have_to_do(
    place: Path, table: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    left = N + 1
    for index in (3, 1, 2):
        scores = run_share(place, (index, 3))
        left -= scores.summary["cases"]
        out = capsys.readouterr().out
        assert scores.complete == (left == 0) == (place / "out" / "scores.csv").exists()
        assert (f"Still to come: {left} masks of" in out) == (left > 0)
        assert ("(1/3, 2/3)" in out) == (index == 3) and ("(2/3)" in out) == (index == 1)
    assert_each_once(place, table)


def test_other_counts_go_on_with_what_an_earlier_attempt_did(place: Path, table: bytes) -> None:
    monitor = FakeMonitor(place / "monitor")
    run_share(place, (2, 5), monitor)
    run_share(place, (4, 5), monitor)
    for index in (1, 2, 3):
        assert run_share(place, (index, 3), monitor).complete == (index == 3)
    assert monitor.prepared == N
    assert_each_once(place, table)
    assert shares_in(place / "out") == [Share(*s) for s in ((1, 3), (2, 3), (2, 5), (3, 3), (4, 5))]


def test_other_folders_among_the_shares_are_none(tmp_path: Path) -> None:
    for name in ("1-of-2", "x-of-2", "0-of-2", "3-of-2", "2-of-", "of"):
        (tmp_path / "shares" / name).mkdir(parents=True)
    assert shares_in(tmp_path) == [Share(1, 2)]


def test_a_share_with_other_settings_is_refused(place: Path) -> None:
    run_share(place, (1, 2))
    with pytest.raises(ValueError, match=r"dc_limit = 0\.5 \(now 0\.6\)"):
        score(FakeMonitor(place / "monitor"), place / "masks", place / "out", dc_limit=0.6, share=(2, 2))


def test_an_error_that_may_pass_is_merged_as_one_process_has_it_and_tried_again(tmp_path: Path) -> None:
    save_four(tmp_path / "masks")
    labels = draw_mask()
    labels[0, 0, 0] = 1
    save_mask(tmp_path / "masks" / "poisoned.nii.gz", labels)
    monitor = FakeMonitor(tmp_path / "monitor")
    monitor.poison = int((labels > 0).sum())
    for index in (1, 2):
        scores = run_share(tmp_path, (index, 2), monitor)
    assert scores.complete
    assert rows_of(tmp_path / "out")["poisoned", "lv"]["error"] == "RuntimeError: the device refuses"
    monitor.poison = None
    again = run_share(tmp_path, None, monitor)
    assert (again.summary["errors"], again.summary["cases_in_this_run"]) == (0, 1)


def test_a_share_that_tries_again_replaces_the_error(tmp_path: Path) -> None:
    save_four(tmp_path / "masks")
    monitor = FakeMonitor(tmp_path / "monitor")
    monitor.poison = int((draw_mask() > 0).sum())
    for index in (1, 2):
        run_share(tmp_path, (index, 2), monitor)
    monitor.poison = None
    failed = share_of("p1_ED", 2)
    assert run_share(tmp_path, (failed.index, 2), monitor).complete
    assert rows_of(tmp_path / "out")["p1_ED", "lv"]["error"] == ""


def test_a_mask_that_changed_since_is_not_taken_for_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = save_four(tmp_path / "masks")
    first = share_of("p1_ED", 2)
    run_share(tmp_path, (first.index, 2))
    os.utime(masks / "p1_ED.nii.gz", ns=(1, 1))
    assert not run_share(tmp_path, (3 - first.index, 2)).complete
    assert f"Still to come: 1 mask of 1 share ({first})" in capsys.readouterr().out
    assert run_share(tmp_path, None).summary["cases_in_this_run"] == 1
    assert len(rows_of(tmp_path / "out")) == 12


def test_more_shares_than_masks(tmp_path: Path) -> None:
    save_four(tmp_path / "masks")
    done = [run_share(tmp_path, (index, 9)) for index in range(1, 10)]
    assert sum(scores.summary["cases"] for scores in done) == 4
    assert done[-1].complete and len(rows_of(tmp_path / "out")) == 12


def test_another_processs_journal_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_bytes(b'{"name": "a"}\n{"name": "b')
    assert ScoreJournal(path, theirs=True).entries == {}
    assert path.read_bytes().endswith(b'"b')
    ScoreJournal(path)
    assert path.read_bytes() == b'{"name": "a"}\n'


def test_without_locks_no_share_merges_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    save_four(tmp_path / "masks")
    assert not any(run_share(tmp_path, (index, 2)).complete for index in (1, 2))
    assert "no locks; when all shares are done, start without --share" in capsys.readouterr().out
    assert not (tmp_path / "out" / "scores.csv").exists()
    assert run_share(tmp_path, None).summary["cases_in_this_run"] == 0
    assert len(rows_of(tmp_path / "out")) == 12
