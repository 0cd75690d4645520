"""A stream of cases: whichever stage fails, the case has its line, and what it had left before is taken away."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from qcjax.data.findings import InvalidFile
from qcjax.inference.cases import CaseStages, CaseStream
from qcjax.inference.entries import ABSENT, Entry, file_version, keep_settings


class File(NamedTuple):
    name: str
    path: Path


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    """Cases whose files hold 0 to 5; that of 9 isn't there."""
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(str(number))
    return [File(str(number), tmp_path / f"{number}.txt") for number in (*range(6), 9)]


def stages(out: Path, groups: list[list[int]]) -> CaseStages[File, int, int]:
    """Number 1 is no valid file, 2 makes its whole group fail, 3 can't be judged."""

    def read(file: File) -> int:
        if file.name == "1":
            raise InvalidFile(file.path, "a one", "another number")
        return int(file.path.read_text())

    def compute(numbers: Sequence[int]) -> list[int]:
        groups.append(list(numbers))
        if 2 in numbers:
            raise RuntimeError("two")
        return [10 * number for number in numbers]

    def judge(file: File, number: int, result: int) -> dict:
        if number == 3:
            raise KeyError("three")
        (out / file.name).write_text(str(result))
        return {"status": "", "result": result}

    def error(words: str, retry: bool) -> dict:
        return {"status": "error", "error": words, "retry": retry}

    return CaseStages(lambda name: [out / name], read, compute, judge, error)


def test_the_fault_of_one_case_is_no_fault_of_the_others(files: list[File], tmp_path: Path) -> None:
    out, groups = tmp_path / "out", []
    out.mkdir()
    for name in "1239":
        (out / name).write_text("of an earlier run")
    stream = CaseStream(stages(out, groups), 4, lambda number: 1, ahead=1)
    lines = {line["name"]: line for line in stream.lines(files)}
    assert list(lines) == [file.name for file in files]
    assert {name: line.get("result") for name, line in lines.items() if line["status"] == ""} == {
        "0": 0, "4": 40, "5": 50}  # fmt: skip
    assert (lines["1"]["error"], lines["1"]["retry"]) == ("found a one; expected another number", False)
    assert (lines["2"]["error"], lines["2"]["retry"]) == ("RuntimeError: two", True)
    assert lines["3"]["error"] == "KeyError: 'three'"
    assert "FileNotFoundError" in lines["9"]["error"] and lines["9"]["size"] == ABSENT[0]
    assert sorted(path.name for path in out.iterdir()) == ["0", "4", "5"]
    assert groups == [[0, 2, 3], [0], [2], [3], [4, 5]], "a group that fails is tried one by one"
    assert all(line["seconds"] >= 0 and line["path"].endswith(f"{name}.txt") for name, line in lines.items())


def test_an_entry_stands_while_its_file_and_its_outputs_do(files: list[File], tmp_path: Path) -> None:
    size, mtime_ns = file_version(files[0].path)
    line = {"name": "0", "path": str(files[0].path), "size": size, "mtime_ns": mtime_ns, "retry": False,
            "status": "suspicious", "seconds": 0.1}  # fmt: skip
    entry = Entry.of(line, 1.5, 1, 0)
    output = tmp_path / "mask"
    assert not entry.stands(files[0].path, [output])
    output.touch()
    assert entry.stands(files[0].path, [output])
    assert not entry.stands(files[1].path, [output]), "another file of that name"
    files[0].path.write_text("changed")
    assert not entry.stands(files[0].path, [output])
    assert Entry.of(line | {"status": "erroneous"}, 0.0, 1, 0).urgency < entry.urgency


def test_settings_are_kept_and_have_to_stay_but_for_the_place_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    keep_settings(path, {"model": "here", "limit": float("inf")}, "model", "masks")
    before = path.read_text()
    assert '"inf"' in before, "JSON has no infinity"
    keep_settings(path, {"model": "there", "limit": float("inf")}, "model", "masks")
    with pytest.raises(ValueError, match=r"holds masks with limit = inf \(now 2.0\)"):
        keep_settings(path, {"model": "there", "limit": 2.0}, "model", "masks")
    assert "there" in path.read_text()
