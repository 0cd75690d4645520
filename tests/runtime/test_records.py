"""What a run has finished, whole and damaged."""

import math

import pytest

from qcjax.runtime.files import write_whole
from qcjax.runtime.records import read_record, write_record

RECORD = {"rows": [{"dc": 0.1 + 0.2, "hd_mm": float("nan"), "name": "Ä"}], "seconds": 3, "none": None}


def test_a_record_comes_back_as_it_was(tmp_path, capsys):
    path = tmp_path / "stages" / "a.json"
    assert read_record(path) is None and capsys.readouterr().out == ""
    write_record(path, RECORD)
    found = read_record(path)
    assert math.isnan(found["rows"][0].pop("hd_mm"))
    assert found == RECORD | {"rows": [{"dc": 0.1 + 0.2, "name": "Ä"}]}


def test_every_flipped_bit_of_a_record_shows(tmp_path, capsys):
    path = tmp_path / "a.json"
    write_record(path, {"dc": 0.25, "names": ["a", "b"]})
    data = path.read_bytes()
    for place in range(len(data) - 1):  # but for the line's end
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            found = read_record(path)
            assert found is None or found == {"dc": 0.25, "names": ["a", "b"]}
    assert "a.json: a damaged file; what it stood for is done again" in capsys.readouterr().out
    for content in (b"", b"[]", b"3", data[:-9], b"[" * 100_000):
        path.write_bytes(content)
        assert read_record(path) is None


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_half(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_whole(path, "old")

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
