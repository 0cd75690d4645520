"""Anybody's folder of masks: which files are taken, their names and groups, their labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcjax.data.datasets.masks import find_image, find_masks, label_values, read_mask

Saver = Callable[..., None]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_names_and_groups(tmp_path: Path) -> None:
    folder = touch(
        tmp_path / "masks",
        "b/p07_ES.nii", "b/p07_ED.nii.gz", "p07.nii.gz", "a_b/c_d/p1_x_y.nii.gz", "p07_ED_SA.nii.gz", "_odd.nii",
        "notes.txt", ".hidden.nii.gz", ".p07_ES.nii.gz.partial", "p08.nii.gz.partial", ".cache/p09.nii.gz",
        "p07_4d.nii.gz",
    )  # fmt: skip
    masks = find_masks(folder)
    assert [(m.name, m.group) for m in masks] == [
        ("_odd", "_odd"),
        ("a_b/c_d/p1_x_y", "a_b/c_d/p1"),
        ("b/p07_ED", "b/p07"),
        ("b/p07_ES", "b/p07"),
        ("p07", "p07"),
        ("p07_ED_SA", "p07"),
    ]
    assert masks[2].path == folder / "b" / "p07_ED.nii.gz"


def test_masks_beside_their_images(tmp_path: Path) -> None:
    folder = touch(
        tmp_path,
        "one/p1.nii.gz", "one/p1_gt.nii", "one/p2.nii.gz",  # p2 is a mask all the same
        "two/a.nii.gz", "two/a_seg.nii.gz", "two/b.nii", "two/b_pred.nii.gz", "two/b_gt.nii.gz",
        "three/p4_gt.nii.gz",
        "training/patient001/Info.cfg", "training/patient001/patient001_frame01_gt.nii.gz",
        "testing/patient101/Info.cfg", "testing/patient101/patient101_frame01.nii.gz",
        "testing/patient101/patient101_4d.nii.gz",
        "testing/patient101/patient101_frame01_pred.nii.gz", "testing/patient101/patient101_frame12_pred.nii.gz",
        "flat/patient102_frame01_gt.nii.gz", "flat/patient103_frame01.nii.gz", "flat/mine.nii.gz",
        "m/001_SA_ED_gt.nii.gz", "m/001_SA_ED.nii.gz", "m/001_SA_CINE.nii.gz", "m/161_LA_ES.nii.gz",
        "predicted/patient101_frame01.nii.gz", "predicted/161_LA_ES.nii.gz",  # without any _gt
    )  # fmt: skip
    told: list[str] = []
    assert [m.name for m in find_masks(folder, told.append)] == [
        "flat/mine",
        "flat/patient102_frame01_gt",
        "m/001_SA_ED_gt",
        "one/p1_gt",
        "one/p2",
        "predicted/161_LA_ES",
        "predicted/patient101_frame01",
        "testing/patient101/patient101_frame01_pred",
        "testing/patient101/patient101_frame12_pred",
        "three/p4_gt",
        "training/patient001/patient001_frame01_gt",
        "two/a_seg",
        "two/b_gt",
        "two/b_pred",
    ]
    assert told == [f"{folder}: left out, as no masks: 9 images"]
    for path in (folder / "testing/patient101").glob("*_pred.nii.gz"):
        path.unlink()
    with pytest.raises(ValueError, match="found no masks, only 2 images; expected files that end in .nii"):
        find_masks(folder / "testing")


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("patient001_ED", "patient001"),
        ("patient001_frame01_gt", "patient001"),
        ("training/patient001/patient001_frame01_gt", "training/patient001"),
        ("001_SA_ED_gt", "001"),
        ("s1/ED", "s1"),
        ("s1/frame12", "s1"),
        ("ACDC_000", "ACDC_000"),
        ("labelsTr/case_01_ED", "labelsTr/case_01"),
        ("anna/ED_gt", "anna"),
        ("anna_ED", "anna"),
        ("_odd", "_odd"),
    ],
)
def test_the_subject_by_default(tmp_path: Path, name: str, subject: str) -> None:
    assert [m.group for m in find_masks(touch(tmp_path, f"{name}.nii.gz"))] == [subject]


@pytest.mark.parametrize(
    ("subject", "groups"),
    [(r"p\d+", ["p1", "p2", "p2"]), (r"^.(/)(.+)_", ["/"] * 3), ("^[ab]", ["a", "a", "b"])],
)
def test_the_subject_as_told(tmp_path: Path, subject: str, groups: list[str]) -> None:
    folder = touch(tmp_path, "a/p1_ED.nii.gz", "a/p2_ED.nii.gz", "b/p2_ES.nii.gz")
    assert [m.group for m in find_masks(folder, subject=subject)] == groups


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("a(", r"--subject: 'a\(' found, expected a regular expression \(missing \)"),
        ("^b", r"a/p1_ED\.nii\.gz: no subject found in a/p1_ED, expected a match of --subject \^b"),
        ("x*", "no subject found in a/p1_ED"),
        ("(x)?p1", "no subject found in a/p1_ED"),
    ],
)
def test_a_subject_that_is_not_found(tmp_path: Path, subject: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_masks(touch(tmp_path, "a/p1_ED.nii.gz"), subject=subject)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    elsewhere = touch(tmp_path / "elsewhere", "p1.nii.gz", "more/p2.nii.gz")
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / "p1.nii.gz").symlink_to(elsewhere / "p1.nii.gz")
    (folder / "more").symlink_to(elsewhere / "more", target_is_directory=True)
    with pytest.raises(ValueError, match="found no masks, only 2 links"):
        find_masks(folder)
    touch(folder, "p3.nii.gz")
    (folder / "p4.nii.gz").symlink_to("p3.nii.gz")
    assert [m.name for m in find_masks(folder)] == ["p3", "p4"]
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert [m.name for m in find_masks(tmp_path / "link")] == ["p3", "p4"]


def test_folders_without_masks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent: found no such folder"):
        find_masks(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"found no masks; expected files that end in \.nii or \.nii\.gz"):
        find_masks(touch(tmp_path, "p1.mha"))
    with pytest.raises(ValueError, match=r"p1\.nii: found also p1\.nii\.gz"):
        find_masks(touch(tmp_path / "twice", "p1.nii", "p1.nii.gz"))


def test_reading_with_own_labels(tmp_path: Path, save_nifti: Saver) -> None:
    stored = np.zeros((6, 5, 3), np.int16)
    stored[1:3], stored[3:5] = 200, 500
    path = tmp_path / "p1.nii.gz"
    save_nifti(path, stored, (1.5, 1.25, 8.0))
    mask = read_mask(path, {0: 0, 200: 2, 500: 1})
    assert mask.array.dtype == np.uint8 and mask.spacing_mm == (1.5, 1.25, 8.0)
    assert np.array_equal(mask.array, np.select([stored == 200, stored == 500], [2, 1]))
    with pytest.raises(
        ValueError, match=r"p1.nii.gz: found label values from 0 to 500; expected labels \[0, 1\]"
    ):
        read_mask(path, {0: 0, 1: 1})
    with pytest.raises(ValueError, match=r"found label values \[500\] found, expected only \[0, 200, 756\]"):
        read_mask(path, {0: 0, 200: 2, 756: 1})  # 756 and 500 are one byte's value apart


def test_label_values(tmp_path: Path, save_nifti: Saver) -> None:
    arrays = {
        "a": np.array([0, 1, 4], np.uint8),
        "b": np.array([0.0, 2.0001, 500.0], np.float32),
        "empty": np.array([0, 0, 0], np.uint8),
        "between": np.array([0, 1.5, 1], np.float32),
        "negative": np.array([0, 1, -1], np.int16),
        "image": np.arange(300, dtype=np.int16),
    }
    paths = {name: tmp_path / f"{name}.nii.gz" for name in arrays}
    for name, array in arrays.items():
        save_nifti(paths[name], array.reshape(-1, 1, 1), (1.0, 1.0, 1.0))
    assert [label_values(paths[name]) for name in ("a", "b", "empty")] == [{1, 4}, {2, 500}, set()]
    for name, message in (
        ("between", "label value 1.5; expected a mask"),
        ("negative", "label value -1; expected a mask"),
        ("image", "299 different values"),
    ):
        with pytest.raises(ValueError, match=f"{name}.nii.gz: found {message}"):
            label_values(paths[name])


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ("p", "p.nii.gz"),
        ("p_gt", "p.nii"),
        ("p_pred", "p.nii.gz"),
        ("p_seg", "p_seg.nii"),
        ("a/p_seg", "a/p.nii.gz"),
    ],
)
def test_images_are_found_by_the_masks_name(tmp_path: Path, mask: str, image: str) -> None:
    touch(tmp_path / "images", image)
    path = tmp_path / "masks" / f"{mask}.nii.gz"
    assert find_image(tmp_path / "images", mask, path) == tmp_path / "images" / image
    assert find_image(tmp_path / "images", "q", path) is None


def test_a_mask_is_not_its_own_image(tmp_path: Path) -> None:
    touch(tmp_path, "p_gt.nii.gz")
    assert find_image(tmp_path, "p_gt", tmp_path / "p_gt.nii.gz") is None
    touch(tmp_path, "p.nii.gz")
    assert find_image(tmp_path, "p_gt", tmp_path / "p_gt.nii.gz") == tmp_path / "p.nii.gz"
    assert find_image(tmp_path, "p", tmp_path / "p.nii.gz") is None  # and p_gt is no image
