"""The table of cases: there and back, and what it refuses."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from qcjax.refinement.table import COLUMNS, CaseRow, read_cases, write_cases

NewRow = Callable[..., CaseRow]


def test_rows_come_back_as_written(new_row: NewRow, tmp_path: Path) -> None:
    row = new_row(dc_rv=0.1 + 0.2, hd_rv_mm=math.inf, ood=1, reason='a, "quoted" reason', subject="007")
    write_cases(tmp_path / "cases.csv", [row])
    (read,) = read_cases(tmp_path / "cases.csv")
    assert list(read) == list(COLUMNS)
    assert {key: value for key, value in read.items() if value == value} == {
        key: value for key, value in row.items() if value == value
    }
    assert math.isnan(read["hd_lv_mm"])


def test_nan_is_an_empty_field(new_row: NewRow, tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    write_cases(path, [new_row()])
    header, line = path.read_text().splitlines()
    assert line.split(",")[header.split(",").index("dc_rv")] == ""
    assert "nan" not in line


def test_unknown_and_lacking_columns_are_named(new_row: NewRow, tmp_path: Path) -> None:
    row = new_row(dice=0.5)
    del row["view"]
    with pytest.raises(ValueError, match=r"row 0: unknown columns \['dice'\], columns not given \['view'\]"):
        write_cases(tmp_path / "cases.csv", [row])


def test_a_bad_number_names_file_line_and_column(new_row: NewRow, tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    write_cases(path, [new_row(dc_rv=0.5)])
    path.write_text(path.read_text().replace("0.5", "half"))
    with pytest.raises(ValueError, match=r"cases.csv, line 2, column dc_rv: 'half' found"):
        read_cases(path)


def test_an_absent_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("segmenter,view\nnnunet,SA\n")
    with pytest.raises(ValueError, match=r"cases.csv: columns \['stage', .* not found"):
        read_cases(tmp_path / "cases.csv")
