"""One anatomy under headers that hypothesis makes: equal numbers, or a refusal that names the file.

`QCJAX_FUZZ=20000 pytest tests/data/test_fuzz_geometry.py` looks longer.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qcjax.data.findings import InvalidFile
from qcjax.data.geometry import Orientation
from qcjax.data.nifti import read_labels
from qcjax.data.write import write_labels
from tests.data.test_fuzz import fuzzed
from tests.data.test_geometry import ANATOMY, SHAPE, SPACING_MM, STORAGES, affine_of, stored_as, turn

UNITS = {"unknown": 1.0, "mm": 1.0, "micron": 1e3, "meter": 1e-3}


@fuzzed
@given(
    storage=st.sampled_from(STORAGES),
    tilt=st.floats(-40, 40),
    unit=st.sampled_from(sorted(UNITS)),
    sform=st.integers(0, 4),
    qform=st.integers(0, 4),
    factor=st.sampled_from([1.0, 1.0, 1.0, 0.8, 1e3, 1e-3]),
)
def test_equal_numbers_or_a_refusal(
    tmp_path: Path, storage: tuple, tilt: float, unit: str, sform: int, qform: int, factor: float
) -> None:
    order, signs = storage
    array, affine = stored_as(order, signs, affine_of(turn("x", tilt)))
    affine[:3] *= UNITS[unit]
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units(unit)
    data = bytes(image.to_bytes())
    header = nib.Nifti1Header(data[:348])  # from here on past nibabel, which sets what contradicts itself
    header["sform_code"], header["qform_code"] = sform, qform
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0) * factor
    path = tmp_path / "mask.nii"
    path.write_bytes(header.binaryblock + data[348:])
    try:
        volume = read_labels(path, orientation=Orientation(np.eye(3)))
    except InvalidFile as error:
        assert sform == 0 and factor in (1e3, 1e-3) and error.path == path and "spacing" in error.found
        return
    by_pixdim = factor if sform == 0 else 1.0
    expected = [s * by_pixdim for s in SPACING_MM]
    np.testing.assert_allclose(sorted(volume.spacing_mm), sorted(expected), rtol=1e-5)
    if sform or qform:
        assert np.array_equal(volume.array, ANATOMY)
        np.testing.assert_allclose(volume.spacing_mm, expected, rtol=1e-5)
    else:
        assert not volume.directed and any("left and right" in note for note in volume.notes)
        assert sorted(volume.array.shape) == sorted(SHAPE)
    write_labels(tmp_path / "back.nii", volume.array, volume)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "back.nii").dataobj), array)
