"""A series from a scanner has the mask that its volume has."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import qcjax
from qcjax.data.dicom import convert
from qcjax.phantom.cine import scan_cine
from qcjax.phantom.patient import sample_patient
from qcjax.phantom.scanner import SCANNERS
from tests.data.test_dicom import write_all

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
