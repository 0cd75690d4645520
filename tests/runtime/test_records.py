"""What a run has finished, and arrays in files, damaged."""

import io
import math
import zipfile

import numpy as np
import pytest

from qcjax.runtime.files import write_whole
from qcjax.runtime.records import load_arrays, read_record, write_record

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


@pytest.fixture
def arrays(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(
        path, **{"params/w": np.arange(6.0).reshape(2, 3).T, "n": np.int32(4), "empty": np.zeros((0, 2))}
    )
    return path


def test_arrays_come_back_as_they_were(arrays):
    found = load_arrays(arrays)
    assert set(found) == {"params/w", "n", "empty"}
    np.testing.assert_array_equal(found["params/w"], np.arange(6.0).reshape(2, 3).T)
    assert found["n"] == 4 and found["n"].shape == () and found["empty"].shape == (0, 2)


def test_every_flipped_bit_of_arrays_shows(arrays):
    data, sound = arrays.read_bytes(), load_arrays(arrays)
    wrong = 0
    for place in range(0, len(data), 3):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        arrays.write_bytes(changed)
        try:
            found = load_arrays(arrays)
        except ValueError:
            wrong += 1
            continue
        for name in found.keys() & sound.keys():
            np.testing.assert_array_equal(found[name], sound[name])
    assert wrong > len(data) / 6


def write_npz(path, header, data=b"\0" * 16):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w.npy", stream.getvalue() + data)


@pytest.mark.parametrize(
    "header",
    [
        {"descr": "<f8", "fortran_order": False, "shape": (10**12,)},
        {"descr": "<f8", "fortran_order": False, "shape": (2**62, 4)},
        {"descr": "<f8", "fortran_order": False, "shape": (1,)},
        {"descr": "<f8", "fortran_order": False, "shape": (-1, -2)},
        {"descr": "|O", "fortran_order": False, "shape": (2,)},
    ],
)
def test_headers_that_lie_allocate_nothing_and_nothing_is_unpickled(tmp_path, header):
    write_npz(tmp_path / "weights.npz", header)
    with pytest.raises(ValueError, match="w.npy"):
        load_arrays(tmp_path / "weights.npz")


def test_no_archive_at_all(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"weights.npz: a damaged file"):
        load_arrays(tmp_path / "weights.npz")
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "absent.npz")


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
