"""Arrays in files: whole, damaged, and somebody else's."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from qcjax.runtime.arrays import read_arrays, write_arrays

ARRAYS = {
    "params/w": np.arange(6.0).reshape(2, 3).T,  # not in C order
    "part": np.arange(12, dtype=np.float32).reshape(3, 4)[:, 1:3],
    "half": np.float16([1, -2, np.nan]),
    "n": np.int32(4),
    "empty": np.zeros((0, 2)),
    "device": jnp.arange(3),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new" / "weights.safetensors"
    write_arrays(path, ARRAYS)
    return path


def test_arrays_come_back_as_they_were(path):
    found = read_arrays(path)
    assert found.keys() == ARRAYS.keys()
    for name, x in ARRAYS.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_array_equal(found[name], x)
        assert found[name].shape == x.shape


def test_every_flipped_bit_shows_or_changes_nothing(path):
    data, sound, wrong = path.read_bytes(), read_arrays(path), 0
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        try:
            found = read_arrays(path)
        except ValueError as error:
            assert str(path) in str(error) and "expected" in str(error)
            wrong += 1
            continue
        assert found.keys() == sound.keys()
        for name in sound:
            np.testing.assert_array_equal(found[name], sound[name])
    assert wrong > 0.8 * len(data)


def damaged(header, data=b"\0" * 16):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing",
        b"PK\x03\x04" + b"\0" * 60,  # .npz
        b"\x80\x04\x95" + b"\0" * 60,  # pickle
        damaged({"w": {"dtype": "F64", "shape": [10**12], "data_offsets": [0, 16]}}),
        damaged({"w": {"dtype": "F64", "shape": [2], "data_offsets": [0, 10**15]}}),
        damaged({"w": {"dtype": "F64", "shape": [-2], "data_offsets": [0, 16]}}),
        damaged({"w": {"dtype": "O", "shape": [2], "data_offsets": [0, 16]}}),
        damaged({"w": {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}}),
        (10**15).to_bytes(8, "little") + b"{}",
    ],
    ids=lambda content: content[:80].hex()[:12] + content[:80].hex()[-12:],
)
def test_what_is_no_such_file_is_refused_by_name(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + r".*found, expected"):
        read_arrays(path)


def test_every_truncation_is_refused(path):
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="found, expected"):
            read_arrays(path)


def test_a_file_of_somebody_else_is_refused(path):
    path.write_bytes(save({"w": np.ones(3)}))
    with pytest.raises(ValueError, match="arrays without a checksum found, expected a file written by qcjax"):
        read_arrays(path)


def test_a_lost_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        read_arrays(tmp_path / "absent.safetensors")
