"""One anatomy stored in every way that a file can hold it: the same array, the same millimetres, or a refusal."""

import struct
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from qcjax.data.findings import InvalidFile
from qcjax.data.geometry import Axes, Orientation, StoredGrid, check_slices_last, slice_axis
from qcjax.data.header import stored_grid
from qcjax.data.nifti import read_grid, read_image, read_labels, read_stored_grid
from qcjax.data.write import write_labels
from tests.headers import set_pixdim

SHAPE, SPACING_MM = (7, 6, 4), (1.5, 1.25, 8.0)
ANATOMY = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
STORAGES = list(product(permutations(range(3)), product((1, -1), repeat=3)))
MM_IN = {"mm": 1.0, "micron": 1e3, "meter": 1e-3}


def turn(about: str, degrees: float) -> np.ndarray:
    a, b = {"x": (1, 2), "y": (0, 2), "z": (0, 1)}[about]
    matrix = np.eye(3)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = cos, -sin, sin, cos
    return matrix


def affine_of(directions: np.ndarray, spacing: tuple[float, ...] = SPACING_MM) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = -31.0, 17.5, 4.25
    return affine


def stored_as(
    order: tuple[int, ...], signs: tuple[int, ...], affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The anatomy with axis order[i] as its i-th, walked backwards where a sign is -1, by nibabel's own hand."""
    ornt = np.array([[order.index(i), signs[i]] for i in range(3)], float)
    array = nib.orientations.apply_orientation(ANATOMY, ornt)
    return array, affine @ nib.orientations.inv_ornt_aff(ornt, SHAPE)


def save(
    path: Path, array: np.ndarray, affine: np.ndarray, unit: str = "mm", sform: int = 1, qform: int = 0
) -> Path:
    in_unit = affine.copy()
    in_unit[:3] *= MM_IN.get(unit, 1.0)
    image = nib.Nifti1Image(array, in_unit)
    image.set_sform(in_unit, sform)
    image.set_qform(in_unit, qform)
    image.header["pixdim"][1:4] = np.linalg.norm(in_unit[:3, :3], axis=0)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


OBLIQUE = turn("x", 35) @ turn("z", 20)
ORIENTATION = Orientation(OBLIQUE)


@pytest.mark.parametrize("unit", [*MM_IN, "unknown"])
@pytest.mark.parametrize("codes", [(1, 0), (2, 0), (3, 3), (4, 1), (0, 1), (0, 4)])
def test_however_it_is_stored_the_array_is_that_of_the_orientation(
    tmp_path: Path, unit: str, codes: tuple[int, int]
) -> None:
    for number, (order, signs) in enumerate(STORAGES):
        if number % 5 and unit != "mm":  # all 48 in one unit, a part of them in the others
            continue
        array, affine = stored_as(order, signs, affine_of(OBLIQUE))
        path = save(tmp_path / "a.nii", array, affine, unit, *codes)
        volume = read_labels(path, orientation=ORIENTATION)
        assert np.array_equal(volume.array, ANATOMY), (order, signs)
        assert volume.spacing_mm == pytest.approx(SPACING_MM, rel=1e-6)
        np.testing.assert_allclose(volume.affine, affine_of(OBLIQUE), atol=1e-4)
        assert volume.notes == ()


@pytest.mark.parametrize("unit", MM_IN)
def test_results_go_back_to_the_files_own_grid_units_and_codes(tmp_path: Path, unit: str) -> None:
    for order, signs in STORAGES[::5]:
        array, affine = stored_as(order, signs, affine_of(OBLIQUE))
        path = save(tmp_path / "a.nii.gz", array, affine, unit, 1, 3)
        volume = read_labels(path, orientation=ORIENTATION)
        write_labels(tmp_path / "b.nii.gz", volume.array, volume)
        source, back = nib.load(path), nib.load(tmp_path / "b.nii.gz")
        assert np.array_equal(np.asarray(back.dataobj), array)
        for name in ("pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"):
            np.testing.assert_array_equal(back.header[name], source.header[name], err_msg=name)


def test_without_a_valid_code_it_is_as_stored_and_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", ANATOMY, affine_of(np.eye(3)), "micron", 0, 0)
    volume = read_labels(path, orientation=ORIENTATION)
    assert np.array_equal(volume.array, ANATOMY) and volume.spacing_mm == pytest.approx(SPACING_MM)
    assert "left and right" in volume.notes[0] and not volume.directed
    slices_first = save(tmp_path / "b.nii", ANATOMY.transpose(2, 0, 1), np.diag([8.0, 1.5, 1.25, 1]), "mm", 0)
    assert np.array_equal(read_labels(slices_first).array, ANATOMY)


def test_a_stack_that_lies_otherwise_by_more_than_60_degrees_is_as_stored_and_says_so(tmp_path: Path) -> None:
    near, far = (save(tmp_path / f"{d}.nii", ANATOMY, affine_of(turn("x", d))) for d in (40, 88))
    upright = Orientation(np.eye(3))
    assert read_labels(near, orientation=upright).notes == ()
    volume = read_labels(far, orientation=upright)
    assert np.array_equal(volume.array, ANATOMY) and "88 degrees away" in volume.notes[0]


def test_the_affine_counts_where_it_contradicts_pixdim(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", ANATOMY, affine_of(np.eye(3), (1.25, 1.25, 10.0)))
    data = path.read_bytes()
    header = nib.Nifti1Header(data[:348])
    header["pixdim"][1:4] = 1.25, 1.25, 8
    path.write_bytes(header.binaryblock + data[348:])
    volume = read_labels(path)
    assert volume.spacing_mm == pytest.approx((1.25, 1.25, 10.0))
    assert volume.notes == ("the affine's steps, 1.25 x 1.25 x 10 mm, count; pixdim has 1.25 x 1.25 x 8 mm",)
    header["sform_code"] = 0  # now nothing calls the affine valid
    path.write_bytes(header.binaryblock + data[348:])
    assert read_labels(path).spacing_mm == pytest.approx((1.25, 1.25, 8.0))


def test_an_affine_of_unit_steps_is_no_spacing(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", ANATOMY, np.diag([-1.0, -1, 1, 1]), sform=2)
    data = path.read_bytes()
    header = nib.Nifti1Header(data[:348])
    header["pixdim"][1:4] = 1.5625, 1.5625, 10
    path.write_bytes(header.binaryblock + data[348:])
    volume = read_labels(path)
    assert volume.spacing_mm == (1.5625, 1.5625, 10.0)
    np.testing.assert_array_equal(np.diag(volume.affine), [-1.5625, -1.5625, 10, 1])
    assert "unit steps" in volume.notes[0]
    real, nominal = Orientation(np.diag([1.0, 1, 1])), Orientation(np.diag([1.0, 1, 1]), nominal=True)
    as_stored = read_labels(path, orientation=real)
    assert np.array_equal(as_stored.array, ANATOMY) and "don't compare" in as_stored.notes[-1]
    assert np.array_equal(read_labels(path, orientation=nominal).array, ANATOMY[::-1, ::-1])


def test_a_mask_that_kept_the_affine_alone_has_its_images_lengths(tmp_path: Path) -> None:
    """As `Nifti1Image(mask, image.affine)` makes it of an image whose affine has unit steps."""
    affine = np.diag([-1.0, -1, 1, 1])
    path = save(tmp_path / "image.nii", ANATOMY, affine, sform=2)
    for axis, value in enumerate((1.5625, 1.5625, 10)):
        set_pixdim(path, axis, value)
    image = read_image(path)
    for order, signs in STORAGES:
        array, turned = stored_as(order, signs, affine)
        mask = read_labels(save(tmp_path / "mask.nii", array, turned, sform=2), like=image)
        assert mask.spacing_mm == image.spacing_mm and np.array_equal(mask.array, ANATOMY)
        np.testing.assert_allclose(mask.affine @ [1, 2, 3, 1], image.affine @ [1, 2, 3, 1])
        assert "as image.nii has, whose pixdim 1.562 x 1.562 x 10 mm counts" in mask.notes[-1] or order != (
            0,
            1,
            2,
        )
    alone = save(tmp_path / "mask.nii", ANATOMY, affine, sform=2)
    assert read_labels(alone).spacing_mm == (1, 1, 1)
    assert read_labels(alone, lengths_of=path).spacing_mm == image.spacing_mm
    assert read_labels(alone, lengths_of=tmp_path / "none.nii").spacing_mm == (1, 1, 1)
    real = save(tmp_path / "real.nii", ANATOMY, np.diag([-1.2, -1.2, 10, 1]), sform=2)
    with pytest.raises(InvalidFile, match="an affine that lies up to"):
        read_labels(real, like=image)  # lengths of its own, others
    with pytest.raises(InvalidFile, match="an affine that lies up to"):
        read_labels(path, like=read_image(alone))  # the image is what counts


def test_one_slice_with_a_third_pixdim_of_zero(tmp_path: Path) -> None:
    for shape, zero in (((7, 6, 1), 3), ((7, 1, 6), 2), ((1, 7, 6), 1)):
        spacing = [1.5] * 3
        array = ANATOMY[..., 0].reshape(shape)
        path = save(tmp_path / "a.nii", array, np.diag([*spacing, 1.0]))
        data = path.read_bytes()
        header = nib.Nifti1Header(data[:348], check=False)
        header["pixdim"][zero] = 0
        header[f"srow_{'xyz'[zero - 1]}"][zero - 1] = 0
        path.write_bytes(header.binaryblock + data[348:])
        volume = read_labels(path)
        assert volume.array.shape == (7, 6, 1) and np.array_equal(volume.array[..., 0], ANATOMY[..., 0])
        assert volume.spacing_mm == (1.5, 1.5, 1.0) and "without a thickness" in volume.notes[0]
        write_labels(tmp_path / "b.nii", volume.array, volume)
        assert np.array_equal(read_labels(tmp_path / "b.nii").array, volume.array)


@pytest.mark.parametrize(
    ("spacing", "unit", "found"),
    [
        ((60.0, 60, 8), "mm", "spacing 60 x 60 x 8 mm"),
        ((1250.0, 1250, 8000), "unknown", "spacing 1250 x 1250 x 8000 mm"),
        ((0.00125, 0.00125, 0.008), "unknown", "spacing 0.00125 x 0.00125 x 0.008 mm"),
        ((1.25e3, 1.25e3, 8e3), "meter", "by the header's unit of 1000 mm"),
    ],
)
def test_absurd_spacings_are_refused_with_the_figure(
    tmp_path: Path, spacing: tuple[float, float, float], unit: str, found: str
) -> None:
    path = save(tmp_path / "a.nii", ANATOMY, np.diag([*spacing, 1.0]), unit)
    with pytest.raises(InvalidFile, match=f"a.nii: found .*{found}.*; expected 0.05-10 mm in plane"):
        read_image(path)
    data = bytearray(path.read_bytes())
    data[123] = 5
    path.write_bytes(data)
    with pytest.raises(InvalidFile, match="a unit of length of code 5; expected 1 .metre."):
        read_grid(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [0, 2])
def test_a_spacing_that_is_no_number_is_refused_with_the_figure(
    tmp_path: Path, axis: int, value: float
) -> None:
    """Even where a valid affine could count: such a header is damaged."""
    path = save(tmp_path / "a.nii", ANATOMY, affine_of(OBLIQUE))
    set_pixdim(path, axis, value)
    spacing = ["1.5", "1.25", "8"]
    spacing[axis] = f"{value:g}"
    for read in (read_grid, read_image, read_labels, read_stored_grid):
        with pytest.raises(
            InvalidFile, match=f"a.nii: found spacing {' x '.join(spacing)} mm; expected positive, f"
        ):
            read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_affine_that_is_no_number_is_refused_with_the_figure(tmp_path: Path, value: float) -> None:
    path = save(tmp_path / "a.nii", ANATOMY, affine_of(OBLIQUE))
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, 280, value)  # the first number of the sform
    path.write_bytes(data)
    with pytest.raises(
        InvalidFile, match=rf"a.nii: found a singular affine \[\[{value}, .*; expected an invertible"
    ):
        read_image(path)


def test_a_mask_and_its_image_may_be_stored_along_other_axes(tmp_path: Path) -> None:
    affine = affine_of(OBLIQUE)
    image = read_image(save(tmp_path / "image.nii", ANATOMY.astype(np.int16), affine))
    for order, signs in STORAGES[::7]:
        array, other = stored_as(order, signs, affine)
        mask = read_labels(save(tmp_path / "mask.nii", array, other), like=image)
        assert np.array_equal(mask.array, ANATOMY)
        write_labels(tmp_path / "back.nii", mask.array, mask)
        assert np.array_equal(np.asarray(nib.load(tmp_path / "back.nii").dataobj), array)
    moved = other.copy()
    moved[0, 3] += 30
    with pytest.raises(InvalidFile, match="lies up to 30 mm away"):
        read_labels(save(tmp_path / "mask.nii", array, moved), like=image)


def test_the_common_orientation_is_that_of_the_majority_and_its_mean() -> None:
    def grid(directions: np.ndarray, order: tuple[int, ...] = (0, 1, 2), signs: tuple[int, ...] = (1, 1, 1)):
        _, affine = stored_as(order, signs, affine_of(directions))
        spacing = tuple(SPACING_MM[i] for i in order)
        return StoredGrid(tuple(SHAPE[i] for i in order), spacing, affine, True)  # type: ignore[arg-type]

    tilted = [grid(OBLIQUE @ turn("z", d)) for d in (-10, 10)]
    found = Orientation.common([grid(OBLIQUE, (2, 0, 1), (1, -1, 1)), *tilted, grid(OBLIQUE)])
    assert found is not None and not found.nominal
    np.testing.assert_allclose(found.directions, OBLIQUE, atol=1e-6)
    again = Orientation.from_json(found.to_json())
    assert again is not None
    np.testing.assert_allclose(again.directions, OBLIQUE, atol=1e-5)
    assert Orientation.common([StoredGrid(SHAPE, SPACING_MM, np.eye(4), False)]) is None
    assert Orientation.from_json(None) is None
    with pytest.raises(ValueError, match="expected three directions"):
        Orientation.from_json({"directions": [[1, 0, 0]] * 3, "nominal": False})


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((200, 200, 10), (1.5, 1.5, 8), 2),
        ((10, 200, 200), (8, 1.5, 1.2), 0),
        ((200, 12, 200), (1.5, 8, 1.2), 1),
        ((1, 200, 200), (1, 1.5, 1.2), 0),
        ((200, 1, 1), (1, 1, 1), 2),
        ((24, 20, 6), (1.5, 1.25, 1.0), None),  # nearly isotropic
        ((10, 200, 200), (2.0, 1.5, 1.5), 0),  # fewer of them, and farther apart than equal pixels
        ((200, 200, 200), (1, 1, 1), None),
    ],
)
def test_the_axis_of_the_slices(shape: tuple, spacing: tuple, axis: int | None) -> None:
    assert slice_axis(shape, spacing) == axis


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((10, 200, 190), (8, 1.5, 1.5), "the slices seem to lie along axis 0"),
        (
            (10, 200, 190),
            (1.5, 1.5, 8),
            "1520 mm along the last axis; expected .x, y, slices., of at most 500",
        ),
        ((200, 200, 10), (60, 60, 8), "expected 0.05 to 10 mm in plane"),
    ],
)
def test_an_array_whose_slices_are_not_last_is_refused(shape: tuple, spacing: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_slices_last(shape, spacing)


def test_slices_are_numbered_as_they_are_stored() -> None:
    axes = Axes((1, 2, 0), (True, False, False))
    assert [axes.slice_number(i, 4) for i in range(4)] == [3, 2, 1, 0]
    assert np.array_equal(axes.take_back(axes.bring(ANATOMY)), ANATOMY)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".hdr"])
def test_what_simpleitk_reads_is_read_with_its_geometry(tmp_path: Path, ending: str) -> None:
    source = save(tmp_path / "a.nii", ANATOMY, affine_of(OBLIQUE))
    image = sitk.ReadImage(str(source))
    path = tmp_path / f"b{ending}"
    sitk.WriteImage(image, str(path))
    volume = read_labels(path, orientation=ORIENTATION)
    assert np.array_equal(volume.array, ANATOMY)
    assert volume.spacing_mm == pytest.approx(SPACING_MM, rel=1e-5)
    if volume.directed:
        np.testing.assert_allclose(volume.affine, affine_of(OBLIQUE), atol=1e-3)
    else:
        assert ending == ".hdr"
    write_labels(tmp_path / "back.nii.gz", volume.array, volume)
    assert np.array_equal(read_labels(tmp_path / "back.nii.gz", orientation=ORIENTATION).array, ANATOMY)
    path.write_bytes(b"nonsense")
    with pytest.raises(InvalidFile, match=f"b{ending}: found a header that can't be read"):
        read_grid(path)


def test_the_qform_is_taken_where_the_sform_is_a_placeholder(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", ANATOMY, affine_of(OBLIQUE), sform=1, qform=1)
    data = path.read_bytes()
    header = nib.Nifti1Header(data[:348])
    header.set_sform(np.eye(4), 1)
    path.write_bytes(header.binaryblock + data[348:])
    grid, _ = read_stored_grid(path)
    assert not grid.nominal and grid.notes == ()
    np.testing.assert_allclose(grid.affine, affine_of(OBLIQUE), atol=1e-4)
    assert stored_grid(path, header).spacing_mm == grid.spacing_mm
