"""Anybody's folder of masks: which files are taken, their names and groups, their labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcjax.data.masks import find_image, find_masks, label_values, read_mask

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
        "one/p1.nii.gz", "one/p1_gt.nii", "one/p2.nii.gz",  # p2 has no mask
        "two/p3.nii.gz",  # a folder of masks alone
        "three/p4_gt.nii.gz",
        "training/patient001/Info.cfg", "training/patient001/patient001_frame01_gt.nii.gz",
        "testing/patient101/Info.cfg", "testing/patient101/patient101_frame01.nii.gz",
        "testing/patient101/patient101_4d.nii.gz",
    )  # fmt: skip
    told: list[str] = []
    assert [m.name for m in find_masks(folder, told.append)] == [
        "one/p1_gt",
        "three/p4_gt",
        "training/patient001/patient001_frame01_gt",
        "two/p3",
    ]
    assert told == [f"{folder}: left out, as no masks: 4 images"]
    assert find_masks(folder)[2].group == "training/patient001/patient001"
    with pytest.raises(ValueError, match="found no masks, only 2 images; expected files that end in .nii"):
        find_masks(folder / "testing")


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
    assert label_values([paths["a"], paths["b"], paths["empty"]]) == [1, 2, 4, 500]
    assert label_values([paths["empty"]]) == []
    for name, message in (
        ("between", "label value 1.5; expected a mask"),
        ("negative", "label value -1; expected a mask"),
        ("image", "299 different values"),
    ):
        with pytest.raises(ValueError, match=f"{name}.nii.gz: found {message}"):
            label_values([paths["a"], paths[name]])


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
