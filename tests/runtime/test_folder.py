"""The folder of a run: one process at a time, one configuration, and something that can be written to."""

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.presets import DEMO, SMALL
from qcjax.config import Hosts, Mnms2Config
from qcjax.runtime import folder, lock
from qcjax.runtime.folder import open_folder
from qcjax.runtime.lock import lock_folder

HOLDER = """
import sys, time
from pathlib import Path
from qcjax.runtime.lock import lock_folder
lock_folder(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


def holder(folder):
    """Another process that has the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().strip() == "locked"
    return process


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def test_two_runs_in_one_folder_are_one_too_many(tmp_path):
    folder = tmp_path / "run"
    other = holder(folder)
    try:
        with pytest.raises(
            ValueError, match=rf"run: another run is at work there \(process {other.pid} on .*since 20"
        ):
            open_folder(DEMO, folder)
        assert not (folder / "config.json").exists()
    finally:
        end(other)
    open_folder(DEMO, folder)  # kill -9 has released it
    open_folder(DEMO, folder)  # this process has it already


def test_a_lock_of_a_folder_that_was_made_anew_is_taken_anew(tmp_path):
    folder = tmp_path / "run"
    lock_folder(folder)
    shutil.rmtree(folder)
    lock_folder(folder)
    held = json.loads((folder / lock.HOLDER).read_text())
    assert held["process"] == os.getpid()
    who = taken_by_another(folder)
    assert re.search(rf"\(process {os.getpid()} on .+, since 20.+\)", who)


def taken_by_another(folder):
    """What another process is told that wants the folder; empty where it gets it."""
    script = "import sys; from pathlib import Path; from qcjax.runtime.lock import lock_folder\n"
    script += "try: lock_folder(Path(sys.argv[1]))\nexcept ValueError as error: print(error)"
    return subprocess.check_output([sys.executable, "-c", script, str(folder)], text=True).strip()


@pytest.mark.parametrize("damaged", [b"", b"\xff{", b"[1]"])
def test_who_has_a_folder_need_not_be_known(tmp_path, damaged):
    """Killed between taking it and saying so; the lock itself stands."""
    (tmp_path / lock.LOCK).write_bytes(damaged)
    other = holder(tmp_path)
    try:
        (tmp_path / lock.HOLDER).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"another run is at work there \(which one, it doesn't say\)"):
            lock_folder(tmp_path)
    finally:
        end(other)
    lock_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, capsys, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock_folder(tmp_path)
    assert "has no locks" in capsys.readouterr().out


@pytest.fixture
def read_only(tmp_path):
    """A folder on a file system that can only be read, or without the right to write."""
    folder = tmp_path / "readonly"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode == 0:
        yield folder
        subprocess.run(["umount", "-l", str(folder)], check=True)
    elif os.getuid() == 0:
        pytest.skip("root may write anywhere, and nothing can be mounted here")
    else:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)


@pytest.mark.parametrize("below", ["", "run"])
def test_a_folder_that_cannot_be_written_to_is_told_of_at_once(read_only, below):
    with pytest.raises(OSError, match=r"readonly.*: nothing can be written there \(.+\); choose an --out"):
        open_folder(DEMO, read_only / below)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match=r"run: nothing can be written there \(File exists\)"):
        open_folder(DEMO, tmp_path / "run")


def test_no_folder_is_made_for_data_that_is_not_there(tmp_path):
    config = replace(DEMO, data=tmp_path / "data")
    with pytest.raises(
        FileNotFoundError, match=r"data: no such folder found, expected a data set \(--data\)"
    ):
        open_folder(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def begin(folder, config=DEMO):
    """A run with its first result."""
    open_folder(config, folder)
    (folder / "metrics.jsonl").touch()


def test_a_configuration_without_results_binds_nobody(tmp_path, capsys):
    open_folder(replace(DEMO, seed=5), tmp_path)
    open_folder(DEMO, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
    assert "Going on with" not in capsys.readouterr().out


def test_a_configuration_of_something_else_is_not_overwritten(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"theirs": 1}')
    with pytest.raises(ValueError, match=r"theirs = 1 \(now absent\)"):
        open_folder(DEMO, tmp_path)
    assert path.read_text() == '{"theirs": 1}'


def test_another_configuration_is_refused_with_every_option_that_differs(tmp_path):
    begin(tmp_path)
    before = (tmp_path / "config.json").read_text()
    other = replace(DEMO, seed=5, supervised=replace(DEMO.supervised, epochs=99, scale=(0.9, 1.1)))
    expected = (
        f"{tmp_path}: holds a run with seed = 0 (now 5), supervised.epochs = 12 (now 99), "
        "supervised.scale = [0.8, 1.25] (now [0.9, 1.1]); choose another --out"
    )
    with pytest.raises(ValueError, match=re.escape(expected)):
        open_folder(other, tmp_path)
    assert (tmp_path / "config.json").read_text() == before
    with pytest.raises(ValueError, match="preset = demo"):
        open_folder(SMALL, tmp_path)


def test_options_of_another_version_count_as_well(tmp_path):
    begin(tmp_path)
    theirs = json.loads((tmp_path / "config.json").read_text())
    theirs["gone"] = 1
    del theirs["supervised"]["mirror"]
    (tmp_path / "config.json").write_text(json.dumps(theirs))
    with pytest.raises(ValueError, match=r"gone = 1 \(now absent\)") as refused:
        open_folder(DEMO, tmp_path)
    assert "supervised.mirror = absent (now 0.0)" in str(refused.value)


def test_what_may_differ_when_a_run_goes_on(tmp_path, capsys):
    begin(tmp_path)
    there = dict(distributed=True, hosts=Hosts("a:1", 2, 0), stream="always")
    open_folder(
        replace(DEMO, devices=2, out=Path("x"), on_nonfinite="skip", deterministic=True, **there), tmp_path
    )
    assert "Going on with" in capsys.readouterr().out


def test_other_versions_give_a_warning(tmp_path, monkeypatch, capsys):
    begin(tmp_path)
    monkeypatch.setattr(folder.jax_setup, "versions", lambda: {"jax": "99"})
    open_folder(DEMO, tmp_path)
    assert "(now 99): it may not end with the very same numbers" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\x00"])
def test_a_damaged_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json: .*expected the configuration of a run"):
        open_folder(Mnms2Config(), tmp_path)
