"""Volumes in the formats that SimpleITK reads: NRRD, MetaImage, and pairs of header and voxels (.hdr and .img)."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Real

from qcjax.data.findings import InvalidFile
from qcjax.data.geometry import StoredGrid
from qcjax.data.header import stored_grid

MOST_VOXELS = 2**29  # of one volume


def itk_grid(path: Path) -> tuple[StoredGrid, nib.Nifti1Header]:
    """The stored grid, from the header alone, and a NIfTI header that says the same.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: unreadable, not 3-D, of several values a voxel, or a spacing that is no geometry.
    """
    return _grid(path, _reader(path))


def read_itk(path: Path) -> tuple[StoredGrid, nib.Nifti1Header, Real[np.ndarray, "i j k"]]:
    """As `itk_grid`, with the voxels as stored, (x, y, slices)."""
    import SimpleITK as sitk  # noqa: N813

    reader = _reader(path)
    grid, header = _grid(path, reader)
    try:
        voxels = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InvalidFile(path, f"voxels that can't be read ({_cause(error)})", "a sound file") from None
    return grid, header, voxels.reshape(grid.shape[::-1]).T


def _reader(path: Path) -> Any:
    import SimpleITK as sitk  # noqa: N813

    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file; expected a volume")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InvalidFile(path, f"a header that can't be read ({_cause(error)})", "a volume") from None
    return reader


def _grid(path: Path, reader: Any) -> tuple[StoredGrid, nib.Nifti1Header]:
    size = tuple(int(n) for n in reader.GetSize())
    axes = reader.GetDimension()
    if axes not in (2, 3) and any(n > 1 for n in size[3:]):
        raise InvalidFile(path, f"a {axes}-D volume of shape {size}", "a 3-D volume")
    if reader.GetNumberOfComponents() != 1:
        raise InvalidFile(path, f"{reader.GetNumberOfComponents()} values a voxel", "one value a voxel")
    shape = (*size, 1)[:3]
    if int(np.prod(shape, dtype=object)) > MOST_VOXELS:
        raise InvalidFile(path, f"a header that declares {shape} voxels", f"at most {MOST_VOXELS} voxels")
    spacing, origin = (
        np.array([*given, *[fill] * 3][:3])
        for given, fill in ((reader.GetSpacing(), 1.0), (reader.GetOrigin(), 0.0))
    )
    direction = np.eye(3)
    count = min(axes, 3)
    direction[:count, :count] = np.array(reader.GetDirection()).reshape(axes, axes)[:count, :count]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    affine[:2] *= -1  # from left and back, as ITK counts, to right and front
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header["pixdim"][1:4] = spacing
    header.set_sform(affine, 1 if _directed(path, reader) else 0)
    header.set_xyzt_units("mm")
    return stored_grid(path, header), header


def _directed(path: Path, reader: Any) -> bool:
    """Whether the file says which way its axes go."""
    ending, keys = path.name.lower(), reader.GetMetaDataKeys()
    if ending.endswith((".nrrd", ".nhdr")):
        return "NRRD_space" in keys
    if ending.endswith((".hdr", ".hdr.gz")):
        codes = [reader.GetMetaData(k) for k in ("qform_code", "sform_code") if k in keys]
        return any(code.isdecimal() and int(code) > 0 for code in codes)
    return True


def _cause(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rsplit("ERROR:", 1)[-1].strip()[:200] if lines else "no reason given"
