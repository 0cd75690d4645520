"""From a NIfTI header to the grid that it describes, in millimetres, or a refusal that names the file."""

from pathlib import Path

import nibabel as nib
import numpy as np

from qcjax.data.findings import InvalidFile
from qcjax.data.geometry import (
    BETWEEN_SLICES_MM,
    IN_PLANE_MM,
    NO_LEFT_AND_RIGHT,
    SAME_STEPS,
    UNITS_MM,
    StoredGrid,
    implausible,
    is_placeholder,
    millimetres,
)

NO_THICKNESS_MM = 1.0  # between slices where there is one alone and the header has 0
RIGHT_ANGLE = 0.02  # cosine: axes that are nearer to it are at right angles
_quietly = np.errstate(all="ignore")  # what isn't finite is refused, not warned of


@_quietly
def header_shape(path: Path, header: nib.Nifti1Header) -> tuple[int, ...]:
    """The shape that a header declares, of at least three axes. Raises InvalidFile for what is none."""
    n_axes = int(header["dim"][0])
    if not 2 <= n_axes <= 7:
        raise InvalidFile(path, f"{n_axes} axes", "3 axes (x, y, slices)")
    shape = tuple(int(n) for n in header["dim"][1 : n_axes + 1])
    if min(shape) < 1:
        raise InvalidFile(path, f"shape {shape}", "positive lengths")
    return (*shape, 1) if n_axes == 2 else shape


@_quietly
def stored_grid(path: Path, header: nib.Nifti1Header) -> StoredGrid:
    """The grid of a file from its header, whose pixdim[0] is mended.

    Raises:
      InvalidFile: spacing or affine that are no geometry, or of no image of a heart.
    """
    shape = header_shape(path, header)[:3]
    unit_mm = UNITS_MM.get(int(header["xyzt_units"]) & 7)
    if unit_mm is None:
        expected = "1 (metre), 2 (mm), 3 (micron), or 0 for mm"
        raise InvalidFile(path, f"a unit of length of code {int(header['xyzt_units']) & 7}", expected)
    pixdim = np.array([float(z) for z in header["pixdim"][1:4]])
    notes: list[str] = []
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1 and pixdim[single[0]] == 0:
        pixdim[single[0]] = NO_THICKNESS_MM / unit_mm
        notes.append(f"one slice without a thickness: taken for {NO_THICKNESS_MM:g} mm")
    if not (np.all(np.isfinite(pixdim)) and pixdim.min() > 0):
        raise InvalidFile(path, f"spacing {millimetres(pixdim)}", "positive, finite spacing in mm")
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1  # the standard: 0 means 1
    affine, code = _valid_affine(path, header, pixdim)
    if len(single) == 1 and not np.any(affine[:3, single[0]]):
        affine[:3, single[0]] = _across(affine, single[0]) * pixdim[single[0]]
    affine[:3] *= unit_mm
    pixdim *= unit_mm
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InvalidFile(path, f"a singular affine {affine[:3].round(4).tolist()}", "an invertible affine")
    spacing, affine, nominal = _reconciled(pixdim, affine, unit_mm, code, notes)
    if implausible(shape, spacing):
        lengths = f"{IN_PLANE_MM[0]:g}-{IN_PLANE_MM[1]:g} mm in plane, up to {BETWEEN_SLICES_MM[1]:g} mm between slices"
        by_unit = "" if unit_mm == 1 else f" by the header's unit of {unit_mm:g} mm"
        raise InvalidFile(path, f"spacing {millimetres(spacing)}{by_unit}", lengths)
    if code is None:
        notes.append(NO_LEFT_AND_RIGHT)
    return StoredGrid(
        (shape[0], shape[1], shape[2]),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        affine,
        code is not None,
        nominal,
        code == "sform" and not nominal and is_placeholder(affine / unit_mm),
        tuple(notes),
    )


def _valid_affine(path: Path, header: nib.Nifti1Header, pixdim: np.ndarray) -> tuple[np.ndarray, str | None]:
    """The affine in the header's unit and the code that calls it valid; None where none does."""
    try:
        by_sform, by_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
        sform = np.asarray(header.get_sform(), float)
        if by_qform and (not by_sform or (is_placeholder(sform) and not _agree(pixdim, np.ones(3)))):
            return np.asarray(header.get_qform(), float), "qform"
        if by_sform:
            return sform, "sform"
        middle = (np.array(header_shape(path, header)[:3]) - 1) / 2
        affine = np.diag([-pixdim[0], pixdim[1], pixdim[2], 1.0])  # as most readers have it
        affine[:3, 3] = -np.diag(affine)[:3] * middle
        return affine, None
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        raise InvalidFile(path, f"no orientation ({error})", "a valid sform or qform") from None


def _reconciled(
    pixdim: np.ndarray, affine: np.ndarray, unit_mm: float, code: str | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Spacing and affine in mm that agree, and whether the affine's directions are nominal; adds to the notes."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    placeholder = code == "sform" and is_placeholder(affine / unit_mm) and not _agree(pixdim, steps)
    if placeholder:
        notes.append(f"an affine of unit steps beside pixdim {millimetres(pixdim)}, which counts")
        scaled = affine.copy()
        scaled[:3, :3] *= pixdim / steps
        return pixdim, scaled, True
    unit = affine[:3, :3] / steps
    lean = max(abs(float(unit[:, i] @ unit[:, j])) for i, j in ((0, 1), (0, 2), (1, 2)))
    if lean > RIGHT_ANGLE:
        notes.append(
            f"axes {90 - np.degrees(np.arcsin(min(1.0, lean))):.0f} degrees apart, measured as if 90"
        )
    if _agree(pixdim, steps):
        return _rounded(pixdim, unit_mm), affine, False
    notes.append(f"the affine's steps, {millimetres(steps)}, count; pixdim has {millimetres(pixdim)}")
    return _rounded(steps, unit_mm), affine, False


def _agree(pixdim: np.ndarray, steps: np.ndarray) -> bool:
    return bool(np.allclose(steps, pixdim, rtol=SAME_STEPS, atol=0))


def _rounded(spacing: np.ndarray, unit_mm: float) -> np.ndarray:
    """To what a header of 32 bits can hold, where its numbers aren't mm themselves."""
    return spacing if unit_mm == 1 else np.array([float(f"{s:.7g}") for s in spacing])


def _across(affine: np.ndarray, axis: int) -> np.ndarray:
    """A unit vector at right angles to the other two axes."""
    first, second = (affine[:3, i] for i in range(3) if i != axis)
    normal = np.cross(first, second)
    return normal / np.linalg.norm(normal) * (-1 if axis == 1 else 1)
