"""Cines: frames from files and back, on the file's own grid."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qcjax.data.cine import read_frames, write_label_frames
from qcjax.data.findings import InvalidFile
from qcjax.data.nifti import read_image

VOXELS = np.random.default_rng(0).normal(size=(6, 5, 3, 4)).astype(np.float32)


def save(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (1.5, 1.25, 8.0, 30.0)) -> Path:
    image = nib.Nifti1Image(array, np.diag([*spacing[:3], 1.0]))
    image.header.set_zooms(spacing[: array.ndim])
    nib.save(image, path)
    return path


def test_frames_are_those_of_the_last_axis(tmp_path: Path) -> None:
    frames = read_frames(save(tmp_path / "cine.nii.gz", VOXELS))
    assert len(frames) == 4
    for i, frame in enumerate(frames):
        assert np.array_equal(frame.array, VOXELS[..., i])
        assert frame.spacing_mm == (1.5, 1.25, 8.0)


def test_a_still_image_is_one_frame_and_an_axis_of_length_1_is_none(tmp_path: Path) -> None:
    still = save(tmp_path / "still.nii.gz", VOXELS[..., 0])
    (frame,) = read_frames(still)
    assert np.array_equal(frame.array, read_image(still).array)
    between = save(tmp_path / "between.nii.gz", VOXELS[:, :, :, None], (1.5, 1.25, 8.0, 1.0, 30.0))
    assert [f.array.shape for f in read_frames(between)] == [(6, 5, 3)] * 4


def test_two_axes_of_frames_and_nan_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "five.nii.gz", np.stack([VOXELS] * 2, -1), (1.5, 1.25, 8.0, 1.0, 1.0))
    with pytest.raises(InvalidFile, match="a 5-D volume of shape .* expected a 3-D volume or a cine"):
        read_frames(path)
    with pytest.raises(InvalidFile, match="1 NaN or infinite voxels of 360"):
        voxels = VOXELS.copy()
        voxels[0, 0, 0, 2] = np.inf
        read_frames(save(tmp_path / "inf.nii.gz", voxels))


def test_masks_of_frames_lie_on_the_cines_own_grid_with_slices_first_too(tmp_path: Path) -> None:
    stored = np.moveaxis(VOXELS, 2, 0)  # slices first
    path = save(tmp_path / "cine.nii.gz", stored, (8.0, 1.5, 1.25, 30.0))
    frames = read_frames(path)
    assert frames[0].array.shape == (6, 5, 3)
    write_label_frames(tmp_path / "mask.nii.gz", [(f.array > 0).astype(np.uint8) for f in frames], frames[0])
    mask, image = nib.load(tmp_path / "mask.nii.gz"), nib.load(path)
    assert np.array_equal(np.asarray(mask.dataobj), stored > 0)
    assert np.array_equal(mask.affine, image.affine)
    assert mask.header.get_zooms() == image.header.get_zooms()
