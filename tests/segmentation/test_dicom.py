"""A series from a scanner has the mask that its volume has, and its folder can be segmented as it is."""

import csv
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import qcjax
from qcjax.data import dicom
from qcjax.data.dicom import convert
from qcjax.phantom.cine import scan_cine
from qcjax.phantom.patient import sample_patient
from qcjax.phantom.scanner import SCANNERS
from qcjax.segmentation.segment import Segmentation
from tests.data.test_dicom import SECRETS, write, write_all

pytest.importorskip("pydicom", reason="the extra dicom isn't installed")


def test_the_mask_of_a_series_is_that_of_its_volume(model_folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    cine = scan_cine(sample_patient("NOR", rng), SCANNERS[0], rng, 2, 0.3)
    nib.save(nib.Nifti1Image(cine.image, cine.affine), tmp_path / "volume.nii.gz")
    write_all(tmp_path / "in", cine)
    (row,) = convert(tmp_path / "in", tmp_path / "out")
    model = qcjax.load(model_folder, 1)
    ours, theirs = (
        model.segment_file(path) for path in (tmp_path / "volume.nii.gz", tmp_path / "out" / row["file"])
    )
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert one.labels.any() and np.array_equal(one.labels, other.labels)
        assert one.measures["lv"].volume_ml == pytest.approx(other.measures["lv"].volume_ml, rel=1e-5)


def test_a_folder_of_dicom_files_is_segmented_without_a_patients_name(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    cine = scan_cine(sample_patient("NOR", rng), SCANNERS[0], rng, 2, 0.3)
    folder = tmp_path / "scans"
    write_all(folder, cine)  # below a folder that is called after the patient
    write(folder / "Mustermann" / "odd.dcm", cine, 0, 0, "9.9", SliceThickness=None)
    (folder / "Mustermann" / "Mustermann.npy").write_bytes(b"beside")
    nib.save(nib.Nifti1Image(cine.image[..., 0], cine.affine), folder / "still.nii.gz")
    model, out = qcjax.load(model_folder, 1), tmp_path / "out"
    summary = Segmentation.open(model, folder, out).run(3).summary
    assert (summary["images"], summary["errors"], summary["frames"]) == (3, 1, 3)
    assert summary["left_out"] == "1 file of a format that isn't read"
    with (out / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (failed,) = (row for row in rows if row["flag"] == "error")
    assert failed["reason"] == "found a single slice without thickness; expected SliceThickness"
    (series,) = {row["image"] for row in rows if row["frame"]}
    converted, mask = (nib.load(out / place / f"{series}.nii.gz") for place in ("dicom", "masks"))
    assert mask.shape == converted.shape and np.array_equal(mask.affine, converted.affine)
    assert {row["image"] for row in rows} == {series, failed["image"], "still.nii.gz"}

    monkeypatch.setattr(dicom, "read_stack", lambda images: pytest.fail("read again"))
    again = Segmentation.open(model, folder, out).run(3).summary
    assert again["images_in_this_run"] == 0
    for place, _, names in os.walk(out):
        for name in names:
            data = (Path(place) / name).read_bytes()
            assert not any(secret in f"{place}/{name}" or secret.encode() in data for secret in SECRETS)
