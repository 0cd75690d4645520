"""Readers fed with nonsense: every file is read, or refused with a message that names it.

`QCJAX_FUZZ=20000 pytest tests/data/test_fuzz.py` looks longer.
"""

import gzip
import os
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcjax.data.datasets import acdc, emidec, mnms2
from qcjax.data.findings import InvalidFile
from qcjax.data.nifti import read_grid, read_image, read_labels
from qcjax.labels import parse_labels

EXAMPLES = int(os.environ.get("QCJAX_FUZZ", "60"))
MOST_BYTES = 300e6  # of memory for a file of a few kilobytes: what gzip can make of it, scaled

fuzzed = settings(
    max_examples=EXAMPLES, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def volume(dtype: type, kind: type = nib.Nifti1Image) -> bytes:
    array = (np.arange(5 * 4 * 3) % 4).reshape(5, 4, 3).astype(dtype)
    return bytes(kind(array, np.diag([1.5, 1.25, 10, 1])).to_bytes())


VOLUMES = (volume(np.uint8), volume(np.int16), volume(np.float32), volume(np.uint8, nib.Nifti2Image))
FIELDS = (  # of the header of NIfTI-1: offset, type, how many
    *((0, "<i4", 1), (40, "<i2", 8), (70, "<i2", 1), (72, "<i2", 1), (76, "<f4", 8), (108, "<f4", 1)),
    *((112, "<f4", 1), (116, "<f4", 1), (252, "<i2", 2), (256, "<f4", 6), (280, "<f4", 12)),
)
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 4, 7, 127, 348, 352, 540, 32767, -32768, 2**31 - 1]),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e-30, 1e30, 0.5, -2.5]),
)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A volume whose header says something else."""
    data = bytearray(draw(st.sampled_from(VOLUMES[:3])))
    for _ in range(draw(st.integers(1, 4))):
        offset, kind, count = draw(st.sampled_from(FIELDS))
        dtype = np.dtype(kind)
        at = offset + dtype.itemsize * draw(st.integers(0, count - 1))
        with np.errstate(all="ignore"):
            value = np.array(np.nan_to_num(draw(NUMBERS)) if dtype.kind == "i" else draw(NUMBERS))
            if dtype.kind == "i":
                value = np.clip(value, np.iinfo(dtype).min, np.iinfo(dtype).max)
            data[at : at + dtype.itemsize] = value.astype(dtype).tobytes()
    return bytes(data)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A volume with bytes flipped, cut off, put in."""
    data = bytearray(draw(st.sampled_from(VOLUMES)))
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, len(data)))
    return draw(
        st.sampled_from([bytes(data), bytes(data[:cut]), bytes(data[:cut]) + draw(st.binary(max_size=80))])
    )


CONTENTS = st.one_of(headers(), mangled(), st.binary(max_size=700))


def refuse_or_read(path: Path) -> None:
    """Sound arrays, or an error that names the file."""
    for read in (read_grid, read_image, read_labels):
        tracemalloc.start()
        try:
            found = read(path)
            if read is read_image:
                assert np.isfinite(found.array).all()
            if read is read_labels:
                assert found.array.dtype == np.uint8 and found.array.max() <= 3
            assert min(found.spacing_mm) > 0 and np.isfinite(found.affine).all()
        except InvalidFile as error:
            assert error.path == path and error.found and error.expected
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MOST_BYTES


@fuzzed
@given(CONTENTS)
def test_nifti(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.nii"
    path.write_bytes(content)
    refuse_or_read(path)


@fuzzed
@given(CONTENTS, st.data())
def test_compressed_nifti(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    packed = bytearray(gzip.compress(content, 1, mtime=0))
    for _ in range(data.draw(st.integers(0, 2))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "image.nii.gz"
    path.write_bytes(packed)
    refuse_or_read(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
def test_voxels_from_nowhere(tmp_path: Path, value: float) -> None:
    data = bytearray(VOLUMES[0])
    data[108:112] = np.float32(value).tobytes()
    path = tmp_path / "image.nii"
    path.write_bytes(data)
    refuse_or_read(path)
    if value > 0 or np.isnan(value):
        with pytest.raises(InvalidFile, match="voxels from byte|truncated, or the header is wrong"):
            read_image(path)


@pytest.mark.parametrize(("place", "found"), [(80, "spacing"), (296, "singular affine"), (352, "NaN")])
def test_a_signalling_nan_is_refused_without_a_warning(tmp_path: Path, place: int, found: str) -> None:
    data = bytearray(volume(np.float32))
    data[place : place + 4] = b"\x01\x00\x81\x7f"  # of the kind that NumPy warns of when it is converted
    path = tmp_path / "image.nii"
    path.write_bytes(data)
    refuse_or_read(path)
    with pytest.raises(InvalidFile, match=found):
        read_image(path)


@pytest.mark.parametrize(
    "rows",
    [
        [[0, 1e-310, 1], [1e-310, 0, 1], [1e300, 1, 1e-310]],
        [[1e308, 1e308, 0], [1e308, -1e308, 0], [0, 0, 1e308]],
    ],
)
def test_an_affine_beyond_numbers_is_refused_or_read_without_a_warning(tmp_path: Path, rows: list) -> None:
    image = nib.Nifti2Image(np.ones((5, 4, 3), np.uint8), np.diag([1.5, 1.25, 10, 1]))
    for axis, row in zip("xyz", rows, strict=True):
        image.header[f"srow_{axis}"][:3] = row
    path = tmp_path / "image.nii"
    path.write_bytes(image.header.binaryblock + bytes(4) + bytes(60))
    refuse_or_read(path)


def test_a_flipped_bit_in_a_compressed_file_is_noticed_or_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    packed = gzip.compress(VOLUMES[1], 6, mtime=0)
    path.write_bytes(packed)
    sound, refused = read_image(path).array, 0
    for place in range(len(packed)):
        changed = bytearray(packed)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        try:
            np.testing.assert_array_equal(read_image(path).array, sound)
        except InvalidFile:
            refused += 1
    assert refused >= len(packed) - 10  # ten bytes of gzip's own header hold name, time and system


@pytest.mark.parametrize("content", ["SUBJECT_CODE,DISEASE,VENDOR\r1,NOR,GE\r", "a,b\n" + "x" * 200_000])
def test_tables_with_odd_lines(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "dataset" / "001"
    folder.mkdir(parents=True)
    (folder / "001_SA_ED.nii.gz").write_bytes(b"")
    (tmp_path / "dataset_information.csv").write_bytes(content.encode())
    scan = mnms2.scan(tmp_path)
    if content.startswith("SUBJECT_CODE"):
        assert [s.disease for s in scan.subjects] == ["NOR"]
    else:
        assert any("no table (field larger than field limit" in f.found for f in scan.findings)


def test_a_header_that_declares_terabytes_costs_nothing(tmp_path: Path) -> None:
    data = bytearray(VOLUMES[0])
    data[40:48] = np.array([3, 32767, 32767, 32767], "<i2").tobytes()
    path = tmp_path / "image.nii.gz"
    path.write_bytes(gzip.compress(bytes(data)))
    tracemalloc.start()
    with pytest.raises(InvalidFile, match="truncated, or the header is wrong"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


CELLS = st.one_of(
    st.sampled_from(
        ["1", "001", "1.0", "0", "-1", "SUBJECT_CODE", "PART", "train", "test", "../x", "/etc", "𝟙"]
    ),
    st.text(max_size=6),
)
TABLES = st.one_of(
    st.binary(max_size=200),
    st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=6)
    .map("\n".join)
    .map(lambda text: text.encode(errors="surrogatepass")),
    st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=6).map(
        lambda rows: "\n".join(["SUBJECT_CODE,DISEASE,VENDOR,PART", *rows]).encode(errors="surrogatepass")
    ),
)


@fuzzed
@given(TABLES)
def test_tables_of_mnms2(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "data" / "dataset" / "001"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "001_SA_ED.nii.gz").write_bytes(b"")
    table, split = tmp_path / "data" / "dataset_information.csv", tmp_path / "split.csv"
    table.write_bytes(content)
    split.write_bytes(content)
    for choice in (None, split):
        scan = mnms2.scan(tmp_path / "data", choice)
        assert all(s.code.isascii() and s.code.isdecimal() for s in scan.subjects)
        assert all(f.path and f.found and f.expected for f in scan.findings)


@fuzzed
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(st.tuples(st.sampled_from(["ED", "ES", "Group"]), CELLS).map(": ".join), max_size=5).map(
            lambda rows: "\n".join(rows).encode(errors="surrogatepass")
        ),
    )
)
def test_information_of_acdc(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "training" / "patient001"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "patient001_frame01.nii.gz").write_bytes(b"")
    (folder / "Info.cfg").write_bytes(content)
    scan = acdc.scan(tmp_path)
    assert [s.code for s in scan.subjects] == ["patient001"]
    assert all(c.image_path.parent == folder for s in scan.subjects for c in s.cases)


@fuzzed
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda b: b"Age : " + b)))
def test_clinical_texts_of_emidec(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "Case P001.txt"
    path.write_bytes(content)
    try:
        assert emidec.read_clinical(path)
    except InvalidFile as error:
        assert error.path == path


@fuzzed
@given(
    st.one_of(st.text(max_size=30), st.lists(st.tuples(CELLS, CELLS).map("=".join), max_size=4).map(",".join))
)
def test_labels_on_the_command_line(text: str) -> None:
    try:
        values = parse_labels(text)
    except ValueError:
        return
    assert values and all(0 < v < 2**31 for v in values.values())
