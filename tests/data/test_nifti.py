"""Reading and writing NIfTI: sound files, and every kind of broken one."""

import gzip
import io
import os
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qcjax.data.findings import InvalidFile
from qcjax.data.nifti import read_grid, read_image, read_labels, read_labels_checked
from qcjax.data.subject import Volume
from qcjax.data.write import write_labels
from qcjax.labels import ACDC_LABELS

AFFINE = np.array([[0.0, -1.2, 0.0, 3.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.0, 9.0, 11.0], [0.0, 0.0, 0.0, 1.0]])
IMAGE = np.arange(5 * 4 * 3, dtype=np.int16).reshape(5, 4, 3)
LABELS = (IMAGE % 4).astype(np.uint8)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def patch_header(path: Path, **fields: object) -> Path:
    """Overwrite header fields of a .nii file as they lie, past nibabel's checks."""
    data = path.read_bytes()
    header = nib.Nifti1Header(data[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + data[348:])
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_image_is_read_with_its_geometry(tmp_path: Path, suffix: str) -> None:
    volume = read_image(save(tmp_path / f"image{suffix}", IMAGE))
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, IMAGE)
    np.testing.assert_allclose(volume.spacing_mm, (1.5, 1.2, 9.0), rtol=1e-6)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)


def test_scaled_and_big_endian_voxels(tmp_path: Path) -> None:
    image = nib.Nifti1Image(IMAGE, AFFINE, nib.Nifti1Header(endianness=">"))
    image.header.set_slope_inter(0.5, 3)
    image.to_filename(tmp_path / "scaled.nii")
    expected = nib.load(tmp_path / "scaled.nii").get_fdata()  # nibabel fits the stored voxels to the slope
    np.testing.assert_allclose(read_image(tmp_path / "scaled.nii").array, expected)


def test_nifti_2(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(LABELS, AFFINE), tmp_path / "two.nii.gz")
    volume = read_labels(tmp_path / "two.nii.gz")
    write_labels(tmp_path / "back.nii.gz", volume.array, volume)
    back = nib.load(tmp_path / "back.nii.gz")
    assert isinstance(back, nib.Nifti2Image)
    np.testing.assert_array_equal(np.asarray(back.dataobj), LABELS)


def test_a_fourth_axis_of_length_one_is_dropped_and_a_real_one_refused(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "one.nii.gz", IMAGE[..., None])).array.shape == (5, 4, 3)
    cine = save(tmp_path / "cine.nii.gz", np.stack([IMAGE, IMAGE], -1))
    with pytest.raises(
        InvalidFile, match=r"cine.nii.gz: found a 4-D volume of shape \(5, 4, 3, 2\); expected a 3-D"
    ):
        read_image(cine)
    assert read_grid(cine).shape == (5, 4, 3, 2)


def test_one_slice_without_a_third_axis(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "flat.nii.gz", IMAGE[..., 0])).array.shape == (5, 4, 1)


def test_labels_are_mapped_and_held_against_the_image(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "image.nii.gz", IMAGE))
    volume = read_labels(save(tmp_path / "gt.nii.gz", LABELS), ACDC_LABELS, like=image)
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array, np.array([0, 3, 2, 1])[LABELS])
    with pytest.raises(
        InvalidFile, match=r"found shape \(5, 4, 2\); expected shape \(5, 4, 3\), as image.nii.gz"
    ):
        read_labels(save(tmp_path / "short.nii.gz", LABELS[..., :2]), like=image)
    moved = AFFINE.copy()
    moved[0, 3] += 5
    with pytest.raises(InvalidFile, match="lies up to 5 mm away; expected the affine of image.nii.gz"):
        read_labels(save(tmp_path / "moved.nii.gz", LABELS, moved), like=image)
    moved[0, 3] = AFFINE[0, 3] + 1e-3
    read_labels(save(tmp_path / "rounding.nii.gz", LABELS, moved), like=image)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_labels_of_any_type(tmp_path: Path, dtype: type) -> None:
    volume, rounded_by = read_labels_checked(save(tmp_path / "gt.nii.gz", LABELS.astype(dtype)))
    np.testing.assert_array_equal(volume.array, LABELS)
    assert rounded_by == 0


def test_float_labels_beside_an_integer_are_rounded_and_others_refused(tmp_path: Path) -> None:
    stored = LABELS.astype(np.float32)
    stored[LABELS == 3] = 2.9999
    volume, rounded_by = read_labels_checked(save(tmp_path / "gt.nii.gz", stored))
    np.testing.assert_array_equal(volume.array, LABELS)
    assert rounded_by == pytest.approx(1e-4, rel=0.01)
    stored[0, 0, 1] = 1.5
    with pytest.raises(InvalidFile, match=r"found label value 1.5; expected labels \[0, 1, 2, 3\]"):
        read_labels(save(tmp_path / "half.nii.gz", stored))


@pytest.mark.parametrize("value", [4, -1, 300, np.nan])
def test_an_unknown_label_value(tmp_path: Path, value: float) -> None:
    stored = LABELS.astype(np.float32)
    stored[2, 2, 2] = value
    with pytest.raises(InvalidFile, match=r"bad.nii.gz: found .*; expected labels \[0, 1, 2, 3\]"):
        read_labels(save(tmp_path / "bad.nii.gz", stored))


def test_a_label_between_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"\[2\] found"):
        read_labels(save(tmp_path / "gt.nii.gz", LABELS), {0: 0, 1: 1, 3: 3})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_intensities_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    array = IMAGE.astype(np.float64)
    array[1, 1, 1] = value
    with pytest.raises(InvalidFile, match="found 1 NaN or infinite voxels of 60"):
        read_image(save(tmp_path / "image.nii.gz", array))


def test_truncated_files(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (30, 30, 5)).astype(np.int16)
    whole = save(tmp_path / "whole.nii.gz", noise).read_bytes()
    plain = gzip.decompress(whole)
    for n in (0, 1, 100, len(whole) // 2, len(whole) - 3):
        (tmp_path / "cut.nii.gz").write_bytes(whole[:n])
        with pytest.raises(InvalidFile, match="cut.nii.gz: found .*; expected"):
            read_image(tmp_path / "cut.nii.gz")
    for n in (0, 200, 350, len(plain) - 1):
        (tmp_path / "cut.nii").write_bytes(plain[:n])
        with pytest.raises(InvalidFile, match="cut.nii: found .*truncated"):
            read_image(tmp_path / "cut.nii")
        (tmp_path / "sound.nii.gz").write_bytes(gzip.compress(plain[:n]))  # sound gzip, truncated content
        with pytest.raises(InvalidFile, match="sound.nii.gz: found .*truncated"):
            read_image(tmp_path / "sound.nii.gz")


def test_damaged_gzip(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (30, 30, 5)).astype(np.int16)
    data = bytearray(save(tmp_path / "image.nii.gz", noise).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "image.nii.gz").write_bytes(data)
    with pytest.raises(InvalidFile, match="damaged gzip data"):
        read_image(tmp_path / "image.nii.gz")


def test_what_is_no_gzip_and_what_is_no_nifti(tmp_path: Path) -> None:
    (tmp_path / "page.nii.gz").write_bytes(b"<html>404</html>")
    with pytest.raises(
        InvalidFile, match=r"page.nii.gz: found no gzip data \(16 bytes.*expected a gzip file"
    ):
        read_image(tmp_path / "page.nii.gz")
    (tmp_path / "page.nii").write_bytes(b"<html>404</html>" * 40)
    with pytest.raises(InvalidFile, match="no NIfTI header"):
        read_image(tmp_path / "page.nii")
    (tmp_path / "image.txt").write_bytes(b"")
    with pytest.raises(InvalidFile, match="ends in .nii or .nii.gz"):
        read_image(tmp_path / "image.txt")
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "absent.nii.gz")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, "spacing 0 x 1 x 1 mm"),
        ({"pixdim": [1, 1, -1.5, 1, 1, 1, 1, 1]}, "spacing 1 x -1.5 x 1 mm"),
        ({"pixdim": [1, 1, 1, np.nan, 1, 1, 1, 1]}, "spacing 1 x 1 x nan mm"),
        ({"srow_x": 0}, "a singular affine"),
        ({"dim": [3, 5, -4, 3, 1, 1, 1, 1]}, r"shape \(5, -4, 3\)"),
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, r"declares \(30000, 30000, 30000\) voxels"),
        ({"dim": [3, 500, 500, 30, 1, 1, 1, 1]}, "truncated, or the header is wrong"),
        ({"datatype": 128, "bitpix": 24}, "expected real numbers"),
        ({"datatype": 77}, "expected a numeric voxel type"),
        ({"magic": b"ni1"}, "header and voxels in one file"),
    ],
)
def test_lying_headers(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    path = patch_header(save(tmp_path / "image.nii", IMAGE), **fields)
    with pytest.raises(InvalidFile, match=message):
        read_image(path)
    (tmp_path / "image.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InvalidFile, match="image.nii.gz: found .*; expected"):
        read_image(tmp_path / "image.nii.gz")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_labels_are_written_on_the_grid_of_the_image(tmp_path: Path, suffix: str) -> None:
    image = nib.Nifti1Image(IMAGE.astype(np.float64), AFFINE)
    image.set_qform(AFFINE, code=1)
    image.set_sform(AFFINE, code=4)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][1:4] = (
        1.5,
        1.25,
        9.5,
    )  # contradicts the affine, as in some data sets: kept as it is
    image.header["cal_max"] = 900
    image.to_filename(tmp_path / f"image{suffix}")
    source = nib.load(tmp_path / f"image{suffix}").header

    volume = read_image(tmp_path / f"image{suffix}")
    write_labels(tmp_path / "out" / f"pred{suffix}", LABELS, volume)
    back = nib.load(tmp_path / "out" / f"pred{suffix}")
    np.testing.assert_array_equal(np.asarray(back.dataobj), LABELS)
    assert back.get_data_dtype() == np.uint8
    for name in (
        "pixdim",
        "qform_code",
        "sform_code",
        "srow_x",
        "srow_y",
        "srow_z",
        "quatern_b",
        "xyzt_units",
    ):
        np.testing.assert_array_equal(back.header[name], source[name], err_msg=name)
    assert back.header["cal_max"] == 0
    assert os.listdir(tmp_path / "out") == [f"pred{suffix}"]


def test_labels_of_a_volume_made_in_memory(tmp_path: Path) -> None:
    volume = Volume(IMAGE.astype(np.float32), (1.5, 1.2, 9.0), AFFINE, Path("memory"))
    write_labels(tmp_path / "pred.nii.gz", LABELS, volume)
    back = read_labels(tmp_path / "pred.nii.gz", like=volume)
    np.testing.assert_array_equal(back.array, LABELS)
    np.testing.assert_allclose(back.spacing_mm, volume.spacing_mm, rtol=1e-6)


def test_writing_is_deterministic_and_refuses_what_is_no_label_map(tmp_path: Path) -> None:
    volume = read_image(save(tmp_path / "image.nii.gz", IMAGE))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / name, LABELS, volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    with pytest.raises(ValueError, match=r"found|shape \(5, 4, 2\); expected \(5, 4, 3\)"):
        write_labels(tmp_path / "c.nii.gz", LABELS[..., :2], volume)
    with pytest.raises(ValueError, match="expected integers 0-65535"):
        write_labels(tmp_path / "c.nii.gz", LABELS + 0.5, volume)
    assert not (tmp_path / "c.nii.gz").exists()


def test_an_invalid_file_survives_pickling() -> None:
    error = pickle.load(io.BytesIO(pickle.dumps(InvalidFile(Path("a.nii"), "this", "that"))))
    assert str(error) == "a.nii: found this; expected that"
