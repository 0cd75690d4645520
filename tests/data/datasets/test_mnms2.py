"""Finding, splitting, describing M&Ms-2; writing predictions in its layout."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qcjax.data.datasets import mnms2
from qcjax.data.findings import InvalidFile
from qcjax.data.nifti import read_grid, read_image
from qcjax.data.subject import Case, Subject

CohortMaker = Callable[..., Path]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("above", [False, True])
def test_the_public_layout(make_cohort: CohortMaker, suffix: str, above: bool) -> None:
    root = make_cohort(suffix=suffix)
    subjects = mnms2.find(root.parent if above else root)
    assert [(s.code, s.part) for s in subjects] == [
        ("001", "train"),
        ("002", "train"),
        ("161", "validation"),
        ("201", "test"),
    ]
    assert {(s.disease, s.vendor) for s in subjects} == {("NOR", "SIEMENS")}
    names = ["001_SA_ED", "001_SA_ES", "001_LA_ED", "001_LA_ES"]
    assert [c.name for c in subjects[0].cases] == names
    case = subjects[0].cases[0]
    assert case.image_path == root / "dataset" / "001" / f"001_SA_ED{suffix}"
    assert case.label_path == root / "dataset" / "001" / f"001_SA_ED_gt{suffix}"
    assert subjects[0].cine == {}


def test_the_layout_of_the_challenge(make_cohort: CohortMaker) -> None:
    root = make_cohort(layout="flat", without_truth=(161,))
    subjects = mnms2.find(root)
    assert [s.code for s in subjects] == ["001", "002", "161", "201"]
    assert subjects[0].vendor == ""  # no csv at all
    assert all(c.label_path is None for c in subjects[2].cases)
    (root / "MNM2_vendor_information_training_set.csv").write_text("SUBJECT_CODE,VENDOR\n1,GE\n2.0,Philips\n")
    assert [(s.disease, s.vendor) for s in mnms2.find(root)[:3]] == [("", "GE"), ("", "Philips"), ("", "")]


def test_one_view_and_cine_files(make_cohort: CohortMaker) -> None:
    root = make_cohort(views=("LA",))
    cine = root / "dataset" / "001" / "001_LA_CINE.nii.gz"
    cine.write_bytes(b"")
    subjects = mnms2.find(root)
    assert {c.view for s in subjects for c in s.cases} == {"LA"}
    assert subjects[0].cine == {"LA": cine}


def test_tables_as_spreadsheets_leave_them(make_cohort: CohortMaker) -> None:
    table = "\ufeffsubject_code; Disease;VENDOR\r\n001;HCM ;GE\r\n;;\r\n2;NOR;PHILIPS\r\n;;\r\n"
    root = make_cohort(codes=(1, 2), table=table)
    assert [(s.code, s.disease, s.vendor) for s in mnms2.find(root)] == [
        ("001", "HCM", "GE"),
        ("002", "NOR", "PHILIPS"),
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("SUBJECT_CODE,VENDOR\n1,GE\n", "expected also the columns DISEASE"),
        ("", "expected also the columns SUBJECT_CODE, DISEASE, VENDOR"),
        ("SUBJECT_CODE,DISEASE,VENDOR\nfirst,NOR,GE\n", "SUBJECT_CODE 'first' in line 2"),
        ("SUBJECT_CODE,DISEASE,VENDOR\n1,NOR,GE\n001,HCM,GE\n", "two different rows for subject 001"),
    ],
)
def test_tables_that_make_no_sense(make_cohort: CohortMaker, table: str, message: str) -> None:
    root = make_cohort(codes=(1,), views=("LA",), table=table)
    with pytest.raises(ValueError, match=f"dataset_information.csv: found .*{message}"):
        mnms2.find(root)


def test_an_empty_or_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no images of M&Ms-2; expected files named like 001_SA_ED"):
        mnms2.find(tmp_path)
    with pytest.raises(ValueError, match="found no such folder"):
        mnms2.find(tmp_path / "absent")


def test_a_split_of_ones_own(make_cohort: CohortMaker, tmp_path: Path) -> None:
    root = make_cohort(views=("LA",))
    split = tmp_path / "split.csv"
    split.write_text("SUBJECT_CODE,PART\n1,test\n2,Validation\n161,train\n201,train\n")
    assert [s.part for s in mnms2.find(root, split)] == ["test", "validation", "train", "train"]
    assert mnms2.read_split(split)["001"] == "test"
    split.write_text("SUBJECT_CODE,PART\n1,test\n161,train\n")
    with pytest.raises(ValueError, match="no PART for subjects 002, 201; expected all 4 subjects"):
        mnms2.find(root, split)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("SUBJECT_CODE,PART\n1,train\n001,test\n", "subject 001 in train and in test"),
        ("SUBJECT_CODE,PART\n1,training set\n", "PART 'training set' for subject 001; expected one of train"),
        ("CODE,PART\n1,train\n", "expected also the columns SUBJECT_CODE"),
        ("SUBJECT_CODE,PART\n", "no rows"),
    ],
)
def test_splits_that_make_no_sense(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "split.csv").write_text(content)
    with pytest.raises(InvalidFile, match=message):
        mnms2.read_split(tmp_path / "split.csv")


def test_the_official_split_at_its_limits() -> None:
    parts = [mnms2.official_part(code) for code in ("001", "160", "161", "200", "201", "360", "999")]
    assert parts == ["train", "train", "validation", "validation", "test", "test", "test"]


def subject(code: int, part: str = "train", truth: bool = True) -> Subject:
    label = Path("gt.nii.gz") if truth else None
    name = f"{code:03d}"
    return Subject(name, "NOR", "GE", part, (Case(name, "SA", "ED", Path("image.nii.gz"), label),))


def test_the_training_split() -> None:
    subjects = [subject(i) for i in range(1, 161)] + [subject(300, truth=False), subject(161, "validation")]
    train, val = mnms2.training_split(subjects, seed=1)
    assert len(val) == 32
    assert sorted(train + val) == [f"{i:03d}" for i in range(1, 161)]
    assert mnms2.training_split(subjects[::-1], seed=1) == (train, val)
    assert mnms2.training_split(subjects, seed=2)[1] != val
    assert [len(c) for c in mnms2.training_split([subject(1), subject(2)], seed=0)] == [1, 1]
    with pytest.raises(ValueError, match="found 1 labelled training subjects; expected at least 2"):
        mnms2.training_split([subject(1)], seed=0)
    with pytest.raises(ValueError, match="fraction"):
        mnms2.training_split(subjects, seed=0, fraction=1.0)


def test_the_description(make_cohort: CohortMaker) -> None:
    lines = mnms2.describe(mnms2.find(make_cohort(views=("LA",), without_truth=(201,)))).splitlines()
    assert lines[1].split() == ["train", "2", "0", "(0)", "4", "(4)", "NOR", "2", "SIEMENS", "2"]
    assert lines[3].split() == ["test", "1", "0", "(0)", "2", "(0)", "NOR", "1", "SIEMENS", "1"]
    assert lines[4:] == [
        "There is no SA view.",
        "There are no CINE files (none are needed).",
        "test: 1 subjects without ground truth.",
    ]


def test_the_submission(make_cohort: CohortMaker, heart: Callable[[str], np.ndarray], tmp_path: Path) -> None:
    cases = [c for s in mnms2.find(make_cohort(codes=(161, 162))) for c in s.cases]
    predictions = [(c, heart(c.view), read_image(c.image_path)) for c in cases]
    first = mnms2.write_submission(predictions, tmp_path / "a" / "submission.zip")
    second = mnms2.write_submission(iter(predictions[::-1]), tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == sorted(f"submission/{c.subject}/{c.name}_pred.nii.gz" for c in cases)
        archive.extractall(tmp_path)
    for case in cases:
        image = nib.load(tmp_path / "submission" / case.subject / f"{case.name}_pred.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj), heart(case.view) == 3)
        np.testing.assert_array_equal(image.affine, nib.load(case.image_path).affine)
    with pytest.raises(ValueError, match="two predictions of 161_SA_ED"):
        mnms2.write_submission(predictions[:1] * 2, tmp_path / "c.zip")
    with pytest.raises(ValueError, match="found no predictions"):
        mnms2.write_submission([], tmp_path / "c.zip")


@pytest.mark.skipif("QCJAX_DATA" not in os.environ, reason="needs QCJAX_DATA, a folder of real data")
def test_the_real_subject_001() -> None:
    (only,) = mnms2.find(Path(os.environ["QCJAX_DATA"]) / "mnms2_subject_001")
    assert (only.code, only.part, len(only.cases)) == ("001", "train", 4)
    assert all(c.label_path is not None for c in only.cases)
    assert len(read_grid(only.cine["LA"]).shape) == 4


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_tables_in_other_encodings_and_with_tabs(make_cohort: Callable[..., Path], encoding: str) -> None:
    root = make_cohort(codes=(1,))
    table = root / mnms2.INFORMATION
    table.write_bytes("SUBJECT_CODE\tDISEASE\tVENDOR\n1\tHCM\tGE\n".encode(encoding))
    if encoding == "utf-16-le":  # without its mark it is no text
        findings = mnms2.scan(root).findings
        assert any("bytes of value 0" in f.found and "UTF-8" in f.expected for f in findings)
    else:
        (subject,) = mnms2.find(root)
        assert (subject.disease, subject.vendor) == ("HCM", "GE")


def test_a_split_that_names_subjects_without_files_is_told_of(
    make_cohort: Callable[..., Path], tmp_path: Path
) -> None:
    split = tmp_path / "split.csv"
    split.write_text("SUBJECT_CODE,PART\n1,train\n7,test\n")
    findings = mnms2.scan(make_cohort(codes=(1,)), split).findings
    (found,) = [f for f in findings if "without files" in f.found]
    assert found.level == "warning" and "subject 007, 1 in all" in found.found


def test_endings_in_any_case_and_what_is_left_out(make_cohort: Callable[..., Path]) -> None:
    root = make_cohort(codes=(1,))
    folder = root / "dataset" / "001"
    (folder / "001_SA_ED_gt.nii.gz").rename(folder / "001_SA_ED_gt.NII.GZ")
    (root / "__MACOSX" / "001").mkdir(parents=True)
    (root / "__MACOSX" / "001" / "001_SA_ED.nii.gz").write_bytes(b"")
    (root / "scores").mkdir()
    (root / "scores" / "score.json").write_text("{}")
    (root / "scores" / "001_SA_ED.nii.gz").write_bytes(b"")
    scan = mnms2.scan(root)
    (subject,) = scan.subjects
    assert all(case.label_path is not None for case in subject.cases)
    (finding,) = [f for f in scan.findings if "left out" in f.found]
    assert "folder of an unpacker (__MACOSX)" in finding.found
    assert "folder of our own results (scores)" in finding.found
