"""Which files are images, and which two are a subject's phases."""

from pathlib import Path

import pytest

from qcjax.segmentation.inputs import Pair, find_images, find_pairs


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_images_are_found_by_name_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii.gz", "A.NII.GZ", "sub/c.nii", "b_seg.nii.gz", "read.me", ".hidden.nii.gz")
    touch(tmp_path, "old/segment.json", "old/masks/b.nii.gz", "__MACOSX/._b.nii.gz", "scan.dcm")
    images, left_out = find_images(tmp_path)
    assert [image.name for image in images] == ["A", "b", "sub/c"]
    assert "1 mask (b_seg.nii.gz)" in left_out
    assert "1 folder of our own results (old)" in left_out
    assert "scan.dcm" in left_out


def test_nnunets_channel_goes_from_the_name_and_further_ones_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x_0000.nii.gz", "x_0001.nii.gz")
    first, second = find_images(tmp_path)[0]
    assert (first.name, first.refused) == ("x", "")
    assert (second.name, second.refused) == ("x_0001", "channel 1 found, expected one channel, 0000")


def test_one_image_in_two_files_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x.nii.gz", "x_0000.nii.gz")
    with pytest.raises(ValueError, match="found also x.nii.gz; expected one file of each image"):
        find_images(tmp_path)


def test_no_images_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no images"):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="found no such folder"):
        find_images(tmp_path / "none")


def test_phases_pair_by_info_cfg_and_by_names(tmp_path: Path) -> None:
    touch(tmp_path, "patient001/patient001_frame01.nii.gz", "patient001/patient001_frame12.nii.gz")
    touch(tmp_path, "patient001/patient001_4d.nii.gz", "m/ED_A1_sa.nii.gz", "m/ES_A1_sa.nii.gz")
    touch(tmp_path, "002_SA_ED.nii.gz", "002_SA_ES.nii.gz", "003_SA_ED.nii.gz", "EDGAR.nii.gz")
    (tmp_path / "patient001" / "Info.cfg").write_text("ED: 1\nES: 12\n")
    pairs = find_pairs(find_images(tmp_path)[0])
    assert pairs == [
        Pair("002_SA", "002_SA_ED", "002_SA_ES"),
        Pair("m/A1_sa", "m/ED_A1_sa", "m/ES_A1_sa"),
        Pair("patient001", "patient001/patient001_frame01", "patient001/patient001_frame12"),
    ]


def test_a_table_of_pairs_is_read_and_checked(tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.nii.gz", "b.nii.gz")
    images, table = find_images(tmp_path / "images")[0], tmp_path / "pairs.csv"
    table.write_text("subject,ed,es\nS,a.nii.gz,b\n")
    assert find_pairs(images, table) == [Pair("S", "a", "b")]
    table.write_text("subject,ed,es\nS,a,c\n")
    with pytest.raises(ValueError, match="line 2: es 'c' found, expected one of the images"):
        find_pairs(images, table)
    table.write_text("subject,ed\nS,a\n")
    with pytest.raises(ValueError, match="columns \\['es'\\] not found"):
        find_pairs(images, table)
