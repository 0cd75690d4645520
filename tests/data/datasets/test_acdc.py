"""Finding, splitting, describing ACDC; reading and writing predictions in its layout."""

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qcjax.data.datasets import acdc
from qcjax.data.nifti import read_grid, read_image, read_labels
from qcjax.data.subject import Case, Subject
from qcjax.labels import ACDC_LABELS

CohortMaker = Callable[..., Path]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("above", [False, True])
def test_the_layout(make_acdc: CohortMaker, suffix: str, above: bool) -> None:
    root = make_acdc(suffix=suffix, without_truth=(101,), groups=("NOR", "RV", "DCM"))
    subjects = acdc.find(root.parent if above else root)
    assert [(s.code, s.part, s.disease, s.vendor) for s in subjects] == [
        ("patient001", "train", "NOR", ""),
        ("patient002", "train", "RV", ""),
        ("patient101", "test", "DCM", ""),
    ]
    assert [c.name for c in subjects[0].cases] == ["patient001_SA_ED", "patient001_SA_ES"]
    case = subjects[0].cases[1]
    assert case.image_path == root / "training" / "patient001" / f"patient001_frame05{suffix}"
    assert case.label_path == root / "training" / "patient001" / f"patient001_frame05_gt{suffix}"
    assert all(c.label_path is None for c in subjects[2].cases)
    assert subjects[0].cine == {}


def test_one_part_and_folders_of_patients_alone(make_acdc: CohortMaker, tmp_path: Path) -> None:
    root = make_acdc(codes=(2, 101))
    assert [s.part for s in acdc.find(root / "training")] == ["train"]
    assert [s.part for s in acdc.find(root / "testing")] == ["test"]
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in ("training/patient002", "testing/patient101"):  # a link to a patient is followed
        (flat / Path(name).name).symlink_to(root / name, target_is_directory=True)
    assert [(s.code, s.part) for s in acdc.find(flat)] == [("patient002", "train"), ("patient101", "test")]
    moved = root / "testing" / "patient102"
    (root / "training" / "patient002").rename(moved)
    for path in moved.glob("patient002*"):
        path.rename(moved / path.name.replace("002", "102"))
    assert [s.part for s in acdc.find(root)] == ["test", "test"]


def test_what_else_lies_there(make_acdc: CohortMaker) -> None:
    root = make_acdc(codes=(1,))
    folder = root / "training" / "patient001"
    (folder / "patient001_4d.nii.gz").write_bytes(b"")
    (folder / "._patient001_frame01.nii.gz").write_bytes(b"")
    (folder / "notes.txt").write_text("")
    (root / "training" / ".trash" / "patient009").mkdir(parents=True)
    (folder / "Info.cfg").write_bytes("\ufeffed : 01 \r\nES:5\r\n\r\nStudy: a: b\r\nGroup:  HCM\r\n".encode())
    scan = acdc.scan(root)
    assert scan.findings == []
    (subject,) = scan.subjects
    assert subject.disease == "HCM" and len(subject.cases) == 2
    assert subject.cine == {"SA": folder / "patient001_4d.nii.gz"}
    assert acdc.read_information(folder / "Info.cfg") == {
        "ed": "01", "es": "5", "study": "a: b", "group": "HCM"
    }  # fmt: skip


BROKEN: dict[str, tuple[Callable[[Path], object], str, str, str, int]] = {  # -> file, found, expected, cases left
    "no Info.cfg": (lambda f: (f / "Info.cfg").unlink(), "Info.cfg", "no readable file", "key: value", 0),
    "an empty Info.cfg": (lambda f: (f / "Info.cfg").write_text(""), "Info.cfg", "no ED", "ED: and the number", 0),
    "no ES": (lambda f: (f / "Info.cfg").write_text("ED: 1\nGroup: NOR"), "Info.cfg", "no ES", "ES: and the", 1),
    "frame 0": (lambda f: (f / "Info.cfg").write_text("ED: 0\nES: 5"), "Info.cfg", "ED: 0", "counted from 1", 1),
    "no number": (lambda f: (f / "Info.cfg").write_text("ED: 1\nES: x"), "Info.cfg", "ES: x", "counted from 1", 1),
    "one frame": (lambda f: (f / "Info.cfg").write_text("ED: 1\nES: 1"), "Info.cfg", "as ED and as ES", "two", 2),
    "another frame": (
        lambda f: (f / "Info.cfg").write_text("ED: 1\nES: 7"),
        "patient001", r"no frame 7 \(only 1, 5\)", "patient001_frame07.nii.gz, the frame that Info.cfg names as ES", 1,
    ),
    "another patient's file": (
        lambda f: (f / "patient001_frame01_gt.nii.gz").rename(f / "patient002_frame01_gt.nii.gz"),
        "patient002_frame01_gt.nii.gz", "a file of patient002 in the folder of patient001", "files of patient001", 2,
    ),
    "a frame twice": (
        lambda f: (f / "patient001_frame01.nii").write_bytes(b""),
        "patient001_frame01.nii.gz", "also as patient001_frame01.nii", "each frame once", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_folder_is_named_and_the_others_are_found(make_acdc: CohortMaker, kind: str) -> None:
    root = make_acdc(codes=(1, 2))
    breaker, name, found, expected, n_cases = BROKEN[kind]
    breaker(root / "training" / "patient001")
    scan = acdc.scan(root)
    first = scan.findings[0]
    assert {(f.level, f.subject) for f in scan.findings} == {("error", "patient001")}
    assert first.path.name == name and re.search(found, first.found) and expected in first.expected
    assert [len(s.cases) for s in scan.subjects] == [n_cases, 2]
    assert acdc.find(root) == scan.subjects  # one bad subject doesn't stop the others


def test_no_patients_and_one_twice(make_acdc: CohortMaker, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no patients of ACDC; expected folders named like training"):
        acdc.find(tmp_path)
    with pytest.raises(ValueError, match="found no such folder"):
        acdc.find(tmp_path / "absent")
    root = make_acdc(codes=(1,))
    make_acdc(codes=(1,), parts={1: "testing"})
    (finding,) = acdc.scan(root).findings
    assert (finding.level, finding.subject) == ("error", "patient001")
    assert "in test and in train" in finding.found


def test_the_description(make_acdc: CohortMaker) -> None:
    root = make_acdc(codes=(1, 2, 101, 102), without_truth=(101,), groups=("NOR", "RV", ""))
    lines = acdc.describe(acdc.find(root)).splitlines()
    assert lines[1].split() == ["train", "2", "4", "(4)", "NOR", "1,", "RV", "1"]
    assert lines[2].split() == ["test", "2", "4", "(2)", "unknown", "1,", "NOR", "1"]
    assert lines[3:] == ["test: 1 of 2 subjects without ground truth."]


def codes(subjects: tuple[Subject, ...]) -> list[str]:
    return [s.code for s in subjects]


def test_the_own_test_part_is_the_test(make_acdc: CohortMaker) -> None:
    root = make_acdc(codes=(*range(1, 11), 101, 102), groups=acdc.GROUPS)
    subjects = acdc.find(root)
    split = acdc.split(subjects, 0)
    assert codes(split.test) == ["patient101", "patient102"]
    assert (len(split.train), len(split.validation), split.note) == (8, 2, "")
    assert sorted(codes(split.train + split.validation)) == [f"patient{i:03d}" for i in range(1, 11)]
    assert acdc.split(subjects, 0) == acdc.split(subjects[::-1], 0) == split
    assert any(codes(acdc.split(subjects, seed).train) != codes(split.train) for seed in range(1, 4))


@pytest.mark.parametrize("with_test", [False, True])
def test_without_truth_in_the_test_part_the_training_part_makes_all_three(
    make_acdc: CohortMaker, with_test: bool
) -> None:
    numbers = (*range(1, 31), *([101] if with_test else []))
    root = make_acdc(codes=numbers, without_truth=(30, 101), groups=("DCM", "NOR"))
    split = acdc.split(acdc.find(root), 3)
    parts = (split.train, split.validation, split.test)
    assert [len(p) for p in parts] == [16, 4, 9]
    assert len(set(codes(split.train + split.validation + split.test))) == 29
    for part in parts:  # half of the subjects have each disease
        assert abs(Counter(s.disease for s in part)["DCM"] - len(part) / 2) <= 1
    assert split.note.startswith(
        f"The data set's own test part {'has no ground truth' if with_test else 'is missing'}: its training part"
    )
    assert "16 subjects for training, 4 for validation and 9 for the test" in split.note
    assert "without ground truth: subject patient030" in split.note


def test_one_patient_under_two_codes_is_in_one_part(make_acdc: CohortMaker) -> None:
    root = make_acdc(codes=(*range(1, 9), 101), groups=("NOR", "RV"))
    training = root / "training"

    def copy(source: Path, target: Path) -> None:  # the same voxels in a file with other bytes
        image = nib.load(source)
        header = image.header.copy()
        header["descrip"] = b"again"
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, header), target)

    copy(training / "patient001/patient001_frame05.nii.gz", training / "patient004/patient004_frame05.nii.gz")
    only_training = acdc.find(training)
    for seed in range(12):
        split = acdc.split(only_training, seed)
        assert all(len({"patient001", "patient004"} & set(codes(part))) != 1 for part in split[:3])

    copy(
        training / "patient007/patient007_frame01.nii.gz",
        root / "testing/patient101/patient101_frame01.nii.gz",
    )
    split = acdc.split(acdc.find(root), 0)
    assert codes(split.test) == ["patient101"]
    assert "patient007" not in codes(split.train + split.validation)
    assert len(split.train + split.validation) == 7
    assert "the test part has the same images: subject patient007" in split.note


def test_every_part_gets_a_patient_or_it_is_said(make_acdc: CohortMaker) -> None:
    subjects = acdc.find(make_acdc(codes=(1, 2, 3)))
    assert [len(p) for p in acdc.split(subjects, 0)[:3]] == [1, 1, 1]
    with pytest.raises(ValueError, match="found 2 labelled training patients; expected at least 3"):
        acdc.split(subjects[:2], 0)


def test_predictions(make_acdc: CohortMaker, heart: Callable[[str], np.ndarray], tmp_path: Path) -> None:
    root = make_acdc(codes=(101,))
    (subject,) = acdc.find(root)
    case = subject.cases[0]
    image = read_image(case.image_path)
    path = acdc.write_prediction(tmp_path / "unet", case, heart("SA"), image)
    assert path == tmp_path / "unet" / "patient101_ED.nii.gz"
    stored = np.asarray(nib.load(path).dataobj)
    assert np.array_equal(stored == 3, heart("SA") == 1) and np.array_equal(stored == 1, heart("SA") == 3)
    assert np.array_equal(read_labels(path, ACDC_LABELS, image).array, heart("SA"))
    assert read_grid(path).spacing_mm == image.spacing_mm
    assert case.label_path is not None
    assert np.array_equal(stored, np.asarray(nib.load(case.label_path).dataobj))
    with pytest.raises(ValueError, match=r"label values \[0, 4\] found|label values \[4\] found"):
        acdc.write_prediction(tmp_path, case, np.full(image.array.shape, 4), image)


def test_finding_predictions(tmp_path: Path) -> None:
    cases = [
        Case(f"patient{code}", "SA", phase, tmp_path / "image", None)
        for code in (101, 102)
        for phase in ("ED", "ES")
    ]
    names = (
        "patient101_ED.nii.gz",
        "patient102_ES.nii",
        "patient150_ED.nii.gz",
        ".patient101_ES.nii.gz",
        "x.txt",
    )
    folder = tmp_path / "unet"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"")
    found = acdc.find_predictions(folder, cases)
    assert found.paths == {
        "patient101_SA_ED": folder / "patient101_ED.nii.gz",
        "patient102_SA_ES": folder / "patient102_ES.nii",
    }
    assert found.missing == ("patient101_SA_ES", "patient102_SA_ED")
    assert found.unknown == (folder / "patient150_ED.nii.gz",)
    (folder / "patient101_ED.nii").write_bytes(b"")
    with pytest.raises(ValueError, match="expected one mask of patient101_ED"):
        acdc.find_predictions(folder, cases)
    with pytest.raises(ValueError, match="found no such folder; expected masks of 4 cases"):
        acdc.find_predictions(tmp_path / "absent", cases)
    with pytest.raises(ValueError, match="found 0 other NIfTI files"):
        acdc.find_predictions(tmp_path, cases)


@pytest.mark.skipif("QCJAX_DATA" not in os.environ, reason="needs QCJAX_DATA, a folder of real data")
def test_the_real_training_part() -> None:
    subjects = acdc.find(Path(os.environ["QCJAX_DATA"]) / "acdc")
    assert Counter(s.disease for s in subjects) == dict.fromkeys(acdc.GROUPS, 20)
    split = acdc.split(subjects, 0)
    assert [len(p) for p in split[:3]] == [56, 14, 30]
    twins = {"patient074", "patient076"}
    assert [len(twins & set(codes(p))) for p in split[:3]].count(0) == 2
