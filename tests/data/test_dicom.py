"""DICOM: a phantom's cine written as single images and read back, what is refused, and that no patient is told of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from qcjax.data import dicom
from qcjax.data.cine import read_frames
from qcjax.data.dicom import convert
from qcjax.phantom.cine import PhantomCine, scan_cine
from qcjax.phantom.patient import sample_patient
from qcjax.phantom.scanner import SCANNERS

pydicom = pytest.importorskip("pydicom", reason="the extra dicom isn't installed")
SECRETS = ("Mustermann", "19570302", "20200405", "Clinic")


@pytest.fixture(scope="module")
def cine() -> PhantomCine:
    rng = np.random.default_rng(3)
    return scan_cine(sample_patient("NOR", rng), SCANNERS[0], rng, 5, 0.3)


def write(path: Path, cine: PhantomCine, s: int, t: int, series: str = "1.2.3", **changes: Any) -> Path:
    """One image of the cine as a scanner writes it."""
    lps = np.diag([-1.0, -1, 1, 1]) @ cine.affine
    x, y = lps[:3, 0], lps[:3, 1]
    tags = pydicom.Dataset()
    tags.SOPClassUID, tags.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", f"{series}.{s}.{t}"
    tags.PatientName, tags.PatientBirthDate, tags.StudyDate = "Mustermann^Max", "19570302", "20200405"
    tags.InstitutionName, tags.SeriesDescription = "Clinic", "cine Mustermann"
    tags.StudyInstanceUID, tags.SeriesInstanceUID, tags.Modality = "1.2", series, "MR"
    tags.ImageOrientationPatient = [*(x / np.linalg.norm(x)), *(y / np.linalg.norm(y))]
    tags.ImagePositionPatient = list(lps[:3, 3] + s * lps[:3, 2])
    tags.PixelSpacing = [float(np.linalg.norm(y)), float(np.linalg.norm(x))]
    tags.SliceThickness, tags.TriggerTime = 8.0, 40.0 * t
    tags.Columns, tags.Rows = cine.image.shape[:2]
    tags.SamplesPerPixel, tags.PhotometricInterpretation = 1, "MONOCHROME2"
    tags.BitsAllocated, tags.BitsStored, tags.HighBit, tags.PixelRepresentation = 16, 16, 15, 1
    tags.PixelData = np.ascontiguousarray(cine.image[:, :, s, t].T).tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(tags, name)
        else:
            setattr(tags, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    tags.file_meta = pydicom.dataset.FileMetaDataset()
    tags.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    tags.save_as(path, enforce_file_format=True)
    return path


def write_all(folder: Path, cine: PhantomCine, by_slice: bool = False, **changes: Any) -> None:
    """All images, in files whose names are in no order."""
    slices, frames = cine.image.shape[2:]
    order = np.random.default_rng(0).permutation(slices * frames)
    for name, (s, t) in zip(order, np.ndindex(slices, frames), strict=True):
        series = f"1.2.3.{s}" if by_slice else "1.2.3"
        write(folder / "Mustermann" / f"IM{name:04}", cine, s, t, series, **changes)


def write_enhanced(path: Path, cine: PhantomCine, **changes: Any) -> None:
    """All images in one file, in no order, each with its place and time; `changes` are of the first one."""
    write(path, cine, 0, 0, "1.2.3.9", ImageOrientationPatient=None, ImagePositionPatient=None)
    tags, (slices, frames) = pydicom.dcmread(path), cine.image.shape[2:]
    for name in ("PixelSpacing", "SliceThickness", "TriggerTime"):
        delattr(tags, name)
    lps = np.diag([-1.0, -1, 1, 1]) @ cine.affine
    x, y = lps[:3, 0], lps[:3, 1]
    measures, orientation = pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing = [float(np.linalg.norm(y)), float(np.linalg.norm(x))]
    measures.SliceThickness = 8.0
    orientation.ImageOrientationPatient = [*(x / np.linalg.norm(x)), *(y / np.linalg.norm(y))]
    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    tags.SharedFunctionalGroupsSequence = [shared]
    order = [tuple(i) for i in np.random.default_rng(0).permutation(list(np.ndindex(slices, frames)))]
    tags.PerFrameFunctionalGroupsSequence = []
    for s, t in order:
        place, beat, own = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = list(lps[:3, 3] + s * lps[:3, 2])
        beat.NominalCardiacTriggerDelayTime = 40.0 * t
        own.PlanePositionSequence, own.CardiacSynchronizationSequence = [place], [beat]
        tags.PerFrameFunctionalGroupsSequence.append(own)
    for name, value in changes.items():
        own = tags.PerFrameFunctionalGroupsSequence[0]
        delattr(own, name) if value is None else setattr(own, name, value)
    tags.SOPClassUID, tags.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.4.1", len(order)
    tags.PixelData = b"".join(np.ascontiguousarray(cine.image[:, :, s, t].T).tobytes() for s, t in order)
    tags.file_meta.MediaStorageSOPClassUID = tags.SOPClassUID
    tags.save_as(path, enforce_file_format=True)


def check_same(path: Path, cine: PhantomCine) -> None:
    """Voxel by voxel in the world; slices may be stored from either end."""
    found = nib.load(path)
    array, affine = np.asarray(found.dataobj), found.affine
    flipped = affine[:3, 2] @ cine.affine[:3, 2] < 0
    if flipped:
        affine = affine @ np.array(
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, array.shape[2] - 1], [0, 0, 0, 1.0]]
        )
        array = array[:, :, ::-1]
    np.testing.assert_allclose(affine, cine.affine, atol=1e-3)
    np.testing.assert_array_equal(array, cine.image)


@pytest.mark.parametrize("by_slice", [False, True])
def test_a_cine_comes_back_voxel_by_voxel(cine: PhantomCine, tmp_path: Path, by_slice: bool) -> None:
    write_all(tmp_path / "in", cine, by_slice)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (row,) = convert(tmp_path / "in", tmp_path / "out")
    assert (row["slices"], row["frames"], row["frame_s"], row["reason"]) == (cine.image.shape[2], 5, 0.04, "")
    check_same(tmp_path / "out" / row["file"], cine)
    assert len(read_frames(tmp_path / "out" / row["file"])) == 5  # as the commands read it


def test_a_cine_in_one_file_comes_back_voxel_by_voxel(cine: PhantomCine, tmp_path: Path) -> None:
    write_enhanced(tmp_path / "in" / "IM1", cine)
    (row,) = convert(tmp_path / "in", tmp_path / "out")
    assert (row["slices"], row["frames"], row["frame_s"], row["reason"]) == (cine.image.shape[2], 5, 0.04, "")
    check_same(tmp_path / "out" / row["file"], cine)


def test_images_of_one_file_that_cannot_be_grouped_are_refused(cine: PhantomCine, tmp_path: Path) -> None:
    write_enhanced(tmp_path / "in" / "IM1", cine, CardiacSynchronizationSequence=None)
    (row,) = convert(tmp_path / "in", tmp_path / "out")
    assert "without trigger times" in row["reason"] and row["file"] == ""
    options = {"ImageOrientationPatient": None, "ImagePositionPatient": None, "NumberOfFrames": 2}
    write(tmp_path / "in" / "IM1", cine, 0, 0, **options)
    (row,) = convert(tmp_path / "in", tmp_path / "out")
    assert row["reason"].startswith("several images in one file found; expected the place of each")


def test_a_series_that_is_there_is_not_read_again(
    cine: PhantomCine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(tmp_path / "in", cine)
    first = convert(tmp_path / "in", tmp_path / "out")
    file = tmp_path / "out" / first[0]["file"]
    written = file.stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr(dicom, "read_stack", lambda images: pytest.fail("read again"))
        assert convert(tmp_path / "in", tmp_path / "out") == first
    assert file.stat().st_mtime_ns == written
    next((tmp_path / "in").rglob("IM0000")).unlink()  # a slice lacks a frame now
    (row,) = convert(tmp_path / "in", tmp_path / "out")
    assert "images a slice found" in row["reason"] and not file.exists()


def test_no_patient_is_told_of(cine: PhantomCine, tmp_path: Path) -> None:
    write_all(tmp_path / "in", cine)
    write(
        tmp_path / "in" / "Mustermann" / "odd", cine, 0, 0, "9.9", Rows=cine.image.shape[1], NumberOfFrames=2
    )
    convert(tmp_path / "in", tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        data = path.read_bytes() if path.suffix == ".csv" else nib.load(path).to_bytes()
        assert not any(secret.encode() in data or secret in path.name for secret in SECRETS)


def refused(folder: Path, cine: PhantomCine, images: Sequence[tuple[int, int, dict[str, Any]]]) -> str:
    for number, (s, t, changes) in enumerate(images):
        write(folder / "in" / f"{number}.dcm", cine, s, t, **changes)
    (row,) = convert(folder / "in", folder / "out")
    assert row["file"] == ""
    return str(row["reason"])


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([(0, 0, {}), (0, 1, {}), (1, 0, {})], "1 to 2 images a slice found; expected as many in each"),
        ([(0, 0, {"TriggerTime": None}), (0, 1, {"TriggerTime": None})], "without trigger times"),
        ([(0, 0, {}), (0, 0, {"SOPInstanceUID": "7"})], "one trigger time"),
        ([(0, 0, {}), (1, 0, {}), (3, 0, {})], "10.0 to 20.0 mm apart found; expected even ones"),
        ([(0, 0, {}), (1, 0, {"PixelSpacing": [2.0, 2.0]})], "2 pixel sizes found"),
        ([(0, 0, {}), (1, 0, {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]})], "several directions"),
        ([(0, 0, {"NumberOfFrames": 2})], "several images in one file"),
        ([(0, 0, {"SliceThickness": None})], "without thickness"),
    ],
)
def test_what_cannot_be_grouped_is_refused_in_words(
    cine: PhantomCine, tmp_path: Path, images: list[tuple[int, int, dict[str, Any]]], said: str
) -> None:
    assert said in refused(tmp_path, cine, images)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="found no DICOM images"):
        convert(tmp_path, tmp_path / "out")
