"""nnU-Net's raw layout, and pairs of folders: subjects, labels, and what can't be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from qcjax.data.datasets import folders, nnunet

INFORMATION: dict[str, Any] = {
    "channel_names": {"0": "cineMRI"},
    "labels": {"background": 0, "RV": 1, "left ventricle": 3},
    "file_ending": ".nii.gz",
}


def layout(folder: Path, information: dict[str, Any] = INFORMATION, *names: str) -> Path:
    for part in (nnunet.IMAGES, nnunet.MASKS):
        (folder / part).mkdir(parents=True)
    for name in names or ("patient001_ED", "patient001_ES", "patient002_ED"):
        (folder / nnunet.IMAGES / f"{name}_0000.nii.gz").touch()
        (folder / nnunet.MASKS / f"{name}.nii.gz").touch()
    (folder / nnunet.INFORMATION).write_text(json.dumps(information))
    return folder


def test_subjects_phases_and_labels(tmp_path: Path) -> None:
    found = nnunet.scan(layout(tmp_path))
    assert found.labels == {"rv": 1, "left_ventricle": 3}
    assert not found.scan.findings
    assert [(s.code, [(c.name, c.phase) for c in s.cases]) for s in found.scan.subjects] == [
        ("patient001", [("patient001_ED", "ED"), ("patient001_ES", "ES")]),
        ("patient002", [("patient002_ED", "ED")]),
    ]
    case = found.scan.subjects[0].cases[0]
    assert case.image_path == tmp_path / "imagesTr" / "patient001_ED_0000.nii.gz"
    assert case.label_path == tmp_path / "labelsTr" / "patient001_ED.nii.gz"


def test_version_1_is_read_too(tmp_path: Path) -> None:
    found = nnunet.scan(layout(tmp_path, {"modality": {"0": "MR"}, "labels": {"0": "background", "2": "LV"}}))
    assert found.labels == {"lv": 2}


def test_a_mask_without_its_image_is_an_error_the_other_way_a_warning(tmp_path: Path) -> None:
    layout(tmp_path)
    (tmp_path / "imagesTr" / "patient002_ED_0000.nii.gz").unlink()
    (tmp_path / "labelsTr" / "patient001_ES.nii.gz").unlink()
    levels = {f.path.name: f.level for f in nnunet.scan(tmp_path).scan.findings}
    assert levels == {"patient002_ED.nii.gz": "error", "patient001_ES_0000.nii.gz": "warning"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"channel_names": {"0": "a", "1": "b"}}, "found 2 channels; expected one"),
        ({"file_ending": ".png"}, "found file_ending '.png'"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "regions can't be used"),
        ({"labels": {"background": 0}}, "found no label but the background"),
        ({"labels": {"background": 0, "lv": 1, "ignore": 2}}, "a label to ignore"),
        ({"labels": {"background": 0, "a b": 1, "a-b": 2}}, "twice"),
        ({"labels": {}}, "expected names with their values"),
    ],
)
def test_what_can_not_be_used_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        nnunet.scan(layout(tmp_path, INFORMATION | change))


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    layout(tmp_path)
    (tmp_path / nnunet.INFORMATION).write_text("{")
    with pytest.raises(ValueError, match="dataset.json: a damaged file"):
        nnunet.scan(tmp_path)


def test_two_folders_pair_by_names(tmp_path: Path) -> None:
    for name in ("images/s1/a.nii.gz", "images/s2/b_0000.nii", "masks/s1/a_gt.nii.gz", "masks/s2/b.nii.gz"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = folders.scan(tmp_path / "images", tmp_path / "masks")
    assert [(s.code, s.cases[0].image_path.name) for s in found.subjects] == [
        ("s1", "a.nii.gz"),
        ("s2", "b_0000.nii"),
    ]
    (tmp_path / "images" / "s1" / "a.nii.gz").unlink()
    assert "a mask without its image" in str(
        folders.scan(tmp_path / "images", tmp_path / "masks").findings[0]
    )
