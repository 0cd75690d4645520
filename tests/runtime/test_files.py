"""Files that are there whole or not at all, on a disk that fills up while they are written."""

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qcjax.report import render, style
from qcjax.report.columns import Columns
from qcjax.runtime.files import write_whole, written_table, written_whole
from qcjax.scoring.table import write_table
from qcjax.segmentation.heartbeats import COLUMNS, write_heartbeats

LIMIT = 4096  # bytes that a file may have


@pytest.fixture
def full() -> Iterator[None]:
    """No file grows beyond `LIMIT`: what the kernel says then (EFBIG) comes where a full disk's word (ENOSPC) does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def page(path: Path) -> None:
    render.write_page(path, "style.html.j2", {})
    assert path.stat().st_size > LIMIT, "too short to show anything"


def figure(path: Path) -> None:
    drawn, ((axes,),) = style.new_figure(3.0)
    axes.plot(range(50), [i * 37 % 50 for i in range(50)])
    style.save(drawn, path)


def table(path: Path) -> None:
    columns = Columns(("name", "dc"), ("dc",), (), ("name",), "case")
    columns.write(path, [{"name": f"case {i}" * 9, "dc": i / 7} for i in range(200)])


def scores(path: Path) -> None:
    error = {"suspicion": None, "error": "x" * 5000, "path": "p", "structures": {}}
    write_table(path, [{"name": "a", "status": "error"} | error], ("lv",))


def text(path: Path) -> None:
    write_whole(path, "x" * 5000)


@pytest.mark.parametrize("write", [page, figure, table, scores, text])
def test_a_full_disk_leaves_the_old_file_and_is_told_by_name(
    write: Callable[[Path], object], tmp_path: Path, full: None
) -> None:
    path = tmp_path / "kept.png"
    path.write_text("before")
    with pytest.raises(OSError, match=r"File too large: '.*/kept\.png'"):
        write(path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_what_goes_wrong_with_another_file_is_not_told_of_this_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), written_whole(tmp_path / "new") as partial:
        partial.write_text((tmp_path / "absent").read_text())
    assert list(tmp_path.iterdir()) == []


def test_a_stop_while_a_file_is_written_leaves_no_half(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "new") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with written_whole(tmp_path / "below" / "new") as partial:
        partial.write_text("whole")
    assert (tmp_path / "below" / "new").read_text() == "whole"


def test_a_table_keeps_names_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "volumes.csv"
    name = os.fsdecode(b"pati\xebnt1")  # Latin-1 on a file system
    write_heartbeats(path, [dict.fromkeys(COLUMNS, "") | {"subject": name}])
    assert path.read_bytes().splitlines()[1].startswith(b"pati\xebnt1,")


def test_a_stop_while_a_table_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_table(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["cases.csv"] and path.read_text() == "old"
