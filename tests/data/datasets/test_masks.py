"""Anybody's folder of masks: which files are taken, their names and groups, their labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcjax.data.datasets.masks import Images, find_masks, label_values, read_mask

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
    (sentence,) = told
    assert sentence.startswith(
        f"{folder}: left out, as no masks: 9 images (flat/patient103_frame01, m/001_SA_CINE, "
    )
    for path in (folder / "testing/patient101").glob("*_pred.nii.gz"):
        path.unlink()
    with pytest.raises(
        ValueError,
        match="found no masks, only 2 images .patient101/patient101_4d, .*expected files that end",
    ):
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


def test_links_are_followed_once(tmp_path: Path) -> None:
    elsewhere = touch(tmp_path / "elsewhere", "p1.nii.gz", "more/p2.nii.gz")
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / "p1.nii.gz").symlink_to(elsewhere / "p1.nii.gz")
    (folder / "more").symlink_to(elsewhere / "more", target_is_directory=True)
    told: list[str] = []
    assert [m.name for m in find_masks(folder, told.append)] == ["more/p2", "p1"] and told == []
    touch(folder, "z/p3.nii.gz")
    (folder / "a").symlink_to("z", target_is_directory=True)
    (folder / "again").symlink_to(elsewhere / "more", target_is_directory=True)
    (folder / "z" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "p5").symlink_to("nowhere")
    (folder / "p6.nii.gz").symlink_to("nowhere.nii.gz")  # a mask that can't be read
    assert [m.name for m in find_masks(folder, told.append)] == ["again/p2", "p1", "p6", "z/p3"]
    assert "3 links to a folder that is read already (a, more, z/loop)" in told[0]
    assert "1 link that leads nowhere (p5)" in told[0]
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert [m.name for m in find_masks(tmp_path / "link")] == ["again/p2", "p1", "p6", "z/p3"]


def test_what_is_read_and_what_is_left_out(tmp_path: Path) -> None:
    folder = touch(
        tmp_path,
        "a.NII.GZ", "b.Nii", "c.nrrd", "d.mha", "e.hdr", "e.img", "line\nbreak1.nii.gz", "f.dcm",
        "__MACOSX/._a.nii.gz", "__MACOSX/a.nii.gz", "._a.nii.gz",
        "old/maps/a_reconstruction.nii.gz", "old/score.json", "monitor/monitor.json", "monitor/x.nii.gz",
        "run/predictions/p.nii.gz", "not_ours/p.nii.gz",
    )  # fmt: skip
    (folder / "run" / "config.json").write_text('{"versions": {"qcjax": "1"}}')
    (folder / "not_ours" / "config.json").write_text('{"versions": "3"}')
    told: list[str] = []
    names = [m.name for m in find_masks(folder, told.append)]
    assert names == ["a", "b", "c", "d", "e", "line\nbreak1", "not_ours/p"]
    for part in (
        "1 folder of an unpacker (__MACOSX)",
        "3 folders of our own results (monitor, old, run)",
        "1 file in a format that isn't read (f.dcm)",
    ):
        assert part in told[0]
    assert [m.name for m in find_masks(folder / "run" / "predictions")] == ["p"]  # where it was asked for


def test_images_of_nnunet_beside_their_masks(tmp_path: Path) -> None:
    folder = touch(tmp_path, "case_1.nii.gz", "case_1_0000.nii.gz", "case_2_0000.nii.gz")
    assert [m.name for m in find_masks(folder)] == ["case_1", "case_2_0000"]


def test_folders_without_masks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent: found no such folder"):
        find_masks(tmp_path / "absent")
    with pytest.raises(
        ValueError,
        match="found no masks, only 1 file in a format that isn't read .p1.mgz.; exp",
    ):
        find_masks(touch(tmp_path, "p1.mgz"))
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
        ("case_12", "case_12_0000.nii.gz"),
        ("b/case_12_seg", "b/case_12_0000.NII.GZ"),
        ("p_seg", "p.Nii"),
        ("p", "p.mha"),
    ],
)
def test_images_are_found_by_the_masks_name(tmp_path: Path, mask: str, image: str) -> None:
    touch(tmp_path / "images", image)
    path = tmp_path / "masks" / f"{mask}.nii.gz"
    assert Images(tmp_path / "images").find(mask, path) == tmp_path / "images" / image
    assert Images(tmp_path / "images").find("q", path) is None


def test_a_mask_is_not_its_own_image(tmp_path: Path) -> None:
    touch(tmp_path, "p_gt.nii.gz")
    assert Images(tmp_path).find("p_gt", tmp_path / "p_gt.nii.gz") is None
    touch(tmp_path, "p.nii.gz")
    assert Images(tmp_path).find("p_gt", tmp_path / "p_gt.nii.gz") == tmp_path / "p.nii.gz"
    assert Images(tmp_path).find("p", tmp_path / "p.nii.gz") is None  # and p_gt is no image
