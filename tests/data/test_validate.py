"""The integrity check: everything that goes wrong in real data sets, caused for real."""

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qcjax import cli
from qcjax.data.findings import Finding
from qcjax.data.validate import validate_acdc, validate_mnms2

CohortMaker = Callable[..., Path]
Breaker = Callable[[Path], object]  # of the folder of subject 001


def rewrite(
    name: str, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None
) -> Breaker:
    """Load, change and store an image of subject 001."""

    def breaker(folder: Path) -> None:
        source = nib.load(folder / name)
        array = change(np.asarray(source.dataobj))
        nib.save(nib.Nifti1Image(array, source.affine if affine is None else affine), folder / name)

    return breaker


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[array == 3] = value
        array[0, 0, 0] = value
        return array

    return change


def spacing(*zooms: float) -> Breaker:
    """Spacing in the header of the image at ED, past nibabel's checks, the affine as it was."""

    def breaker(folder: Path) -> None:
        data = gzip.decompress((folder / "001_SA_ED.nii.gz").read_bytes())
        header = nib.Nifti1Header(data[:348], check=False)
        header["pixdim"][1:4] = zooms
        (folder / "001_SA_ED.nii.gz").write_bytes(gzip.compress(header.binaryblock + data[348:]))

    return breaker


def both_phases(change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> Breaker:
    def breaker(folder: Path) -> None:
        for name in ("001_SA_ED", "001_SA_ED_gt", "001_SA_ES", "001_SA_ES_gt"):
            rewrite(f"{name}.nii.gz", change, affine)(folder)

    return breaker


def truncate(folder: Path) -> None:
    path = folder / "001_SA_ED.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])


def mirror_es(folder: Path) -> None:
    for name in ("001_SA_ES.nii.gz", "001_SA_ES_gt.nii.gz"):
        rewrite(name, lambda a: a[::-1].copy(), nib.load(folder / name).affine @ np.diag([-1, 1, 1, 1]))(
            folder
        )


BROKEN: dict[str, tuple[Breaker, str, str, str, str]] = {  # -> level, file, found, expected
    "truncated": (truncate, "error", "001_SA_ED.nii.gz", "truncated|damaged", "voxels|sound gzip"),
    "no gzip": (
        lambda f: (f / "001_SA_ED.nii.gz").write_bytes(b"<html>"),
        "error",
        "001_SA_ED.nii.gz",
        "no gzip data",
        "gzip file",
    ),
    "empty file": (
        lambda f: (f / "001_SA_ED_gt.nii.gz").write_bytes(b""),
        "error",
        "001_SA_ED_gt.nii.gz",
        "0 bytes",
        "gzip file",
    ),
    "mask of another shape": (
        rewrite("001_SA_ED_gt.nii.gz", lambda a: a[..., :-1]),
        "error",
        "001_SA_ED_gt.nii.gz",
        r"shape \(24, 20, 5\)",
        r"shape \(24, 20, 6\), as 001_SA_ED.nii.gz",
    ),
    "mask of another affine": (
        rewrite("001_SA_ED_gt.nii.gz", lambda a: a, np.diag([1.5, 1.25, 10, 1])),
        "error",
        "001_SA_ED_gt.nii.gz",
        "an affine that lies up to",
        "the affine of 001_SA_ED.nii.gz",
    ),
    "unexpected label": (
        rewrite("001_SA_ED_gt.nii.gz", put(5)),
        "error",
        "001_SA_ED_gt.nii.gz",
        "label values from 0 to 5",
        r"labels \[0, 1, 2, 3\]",
    ),
    "float labels": (
        rewrite("001_SA_ED_gt.nii.gz", put(2.9999)),
        "warning",
        "001_SA_ED_gt.nii.gz",
        "float labels, up to 0.0001",
        "integers",
    ),
    "labels between": (
        rewrite("001_SA_ED_gt.nii.gz", put(2.5)),
        "error",
        "001_SA_ED_gt.nii.gz",
        "label value 2.5",
        r"labels \[0, 1, 2, 3\]",
    ),
    "NaN": (
        rewrite("001_SA_ES.nii.gz", put(np.nan)),
        "error",
        "001_SA_ES.nii.gz",
        r"\d+ NaN or inf",
        "finite",
    ),
    "infinite": (
        rewrite("001_SA_ES.nii.gz", put(np.inf)),
        "error",
        "001_SA_ES.nii.gz",
        r"\d+ NaN or inf",
        "finite",
    ),
    "constant": (
        rewrite("001_SA_ES.nii.gz", lambda a: np.full_like(a, 7)),
        "error",
        "001_SA_ES.nii.gz",
        r"a constant image \(every voxel is 7\)",
        "vary",
    ),
    "spacing 0": (spacing(1.5, 0, 10), "error", "001_SA_ED.nii.gz", "spacing 1.5 x 0 x 10 mm", "positive"),
    "infinite spacing": (
        spacing(1.5, np.inf, 10),
        "error",
        "001_SA_ED.nii.gz",
        "spacing 1.5 x inf x 10 mm",
        "positive, finite",
    ),
    "a spacing that is no number": (
        spacing(1.5, 1.25, np.nan),
        "error",
        "001_SA_ED.nii.gz",
        "spacing 1.5 x 1.25 x nan mm",
        "positive, finite",
    ),
    "negative spacing": (spacing(1.5, 1.25, -10), "error", "001_SA_ED.nii.gz", "x -10 mm", "positive"),
    "absurd spacing": (
        rewrite("001_SA_ED.nii.gz", lambda a: a, np.diag([1500.0, 1250, 10000, 1])),
        "error",
        "001_SA_ED.nii.gz",
        "spacing 1500 x 1250 x 1e[+]04 mm",
        "0.05-10 mm in plane",
    ),
    "improbable spacing": (
        rewrite("001_SA_ED.nii.gz", lambda a: a, np.diag([0.1, 0.1, 10, 1])),
        "error",
        "001_SA_ED.nii.gz",
        "spacing 0.1 x 0.1 x 10 mm",
        "0.2-10 mm in plane",
    ),
    "absurd pixdim": (
        spacing(1500, 1250, 10000),
        "warning",
        "001_SA_ED.nii.gz",
        "1.5 x 1.25 x 10 mm, count; pixdim has 1500 x",
        "the affine's counts",
    ),
    "two spacings": (
        spacing(1.5, 1.25, 8),
        "warning",
        "001_SA_ED.nii.gz",
        "1.5 x 1.25 x 10 mm, count; pixdim has 1.5 x 1.25 x 8 mm",
        "the affine's counts",
    ),
    "no ES": (
        lambda f: [(f / f"001_SA_ES{s}.nii.gz").unlink() for s in ("", "_gt")],
        "error",
        "001",
        "001_SA_ED without 001_SA_ES",
        "both ED and ES",
    ),
    "mask without image": (
        lambda f: (f / "001_SA_ES.nii.gz").unlink(),
        "error",
        "001_SA_ES_gt.nii.gz",
        "a mask without its image",
        "both",
    ),
    "slice counts": (
        lambda f: [rewrite(f"001_SA_ES{s}.nii.gz", lambda a: a[..., 1:])(f) for s in ("", "_gt")],
        "warning",
        "001_SA_ES.nii.gz",
        "5 slices",
        "6, as in 001_SA_ED.nii.gz",
    ),
    "pixels": (
        lambda f: [rewrite(f"001_SA_ES{s}.nii.gz", lambda a: a[1:])(f) for s in ("", "_gt")],
        "warning",
        "001_SA_ES.nii.gz",
        "23 x 20 pixels",
        "24 x 20",
    ),
    "4-D": (
        rewrite("001_SA_ES.nii.gz", lambda a: np.stack([a, a], -1)),
        "error",
        "001_SA_ES.nii.gz",
        "a 4-D volume",
        "a 3-D volume",
    ),
    "slices along the first axis": (
        both_phases(lambda a: a.transpose(2, 0, 1).copy()),
        "error",
        "001_SA_ED.nii.gz",
        r"shape \(6, 24, 20\)",
        "slices along the last axis",
    ),
    "slice spacing along the first axis": (
        both_phases(lambda a: a, np.diag([10, 1.25, 1.5, 1])),
        "error",
        "001_SA_ED.nii.gz",
        r"shape \(20, 6, 24\)",
        "slices along the last axis",
    ),
    "slices nearer than pixels": (
        both_phases(lambda a: a, np.diag([1.5, 1.25, 1.0, 1])),
        "warning",
        "001_SA_ED.nii.gz",
        "spacing 1.5 x 1.25 x 1 mm",
        "farther apart",
    ),
    "ED and ES in other orientations": (
        mirror_es,
        "error",
        "001_SA_ES.nii.gz",
        "orientation [A-Z]{3}",
        "as in 001_SA_ED",
    ),
    "several long-axis slices": (
        lambda f: [
            rewrite(f"001_LA_ES{s}.nii.gz", lambda a: np.concatenate([a, a], -1))(f) for s in ("", "_gt")
        ],
        "warning",
        "001_LA_ES.nii.gz",
        "2 slices",
        "one long-axis slice",
    ),
    "empty mask": (
        rewrite("001_SA_ES_gt.nii.gz", lambda a: a * 0),
        "error",
        "001_SA_ES_gt.nii.gz",
        "no foreground",
        "at least one structure",
    ),
    "absent structure": (
        rewrite("001_SA_ES_gt.nii.gz", lambda a: a * (a < 3)),
        "warning",
        "001_SA_ES_gt.nii.gz",
        "no right ventricular cavity",
        "all three",
    ),
    "training without truth": (
        lambda f: (f / "001_SA_ES_gt.nii.gz").unlink(),
        "error",
        "001_SA_ES.nii.gz",
        "no mask beside it",
        "ground truth for training",
    ),
    "the same image twice": (
        lambda f: (f / "001_SA_ES.nii.gz").write_bytes((f / "001_SA_ED.nii.gz").read_bytes()),
        "warning",
        "001_SA_ES.nii.gz",
        "the same image as in 001_SA_ED",
        "another image",
    ),
    "unreadable cine": (
        lambda f: (f / "001_SA_CINE.nii.gz").write_bytes(b""),
        "warning",
        "001_SA_CINE.nii.gz",
        "no gzip data",
        "readable CINE",
    ),
}


def matching(findings: list[Finding], level: str, name: str, found: str, expected: str) -> list[Finding]:
    return [
        f
        for f in findings
        if f.level == level
        and f.path.name == name
        and re.search(found, f.found)
        and re.search(expected, f.expected)
    ]


def test_a_sound_data_set_has_no_findings(make_cohort: CohortMaker) -> None:
    assert validate_mnms2(make_cohort(without_truth=(161, 201))) == []


@pytest.mark.parametrize("kind", BROKEN)
def test_what_goes_wrong_is_found_and_the_others_are_checked_on(make_cohort: CohortMaker, kind: str) -> None:
    root = make_cohort(codes=(1, 2))
    breaker, level, name, found, expected = BROKEN[kind]
    breaker(root / "dataset" / "001")
    rewrite("002_LA_ES_gt.nii.gz", lambda a: a * 0)(root / "dataset" / "002")
    findings = validate_mnms2(root)
    (hit,) = matching(findings, level, name, found, expected)
    assert hit.subject in ("001", "")
    assert [f.path.name for f in findings if f.subject == "002"] == ["002_LA_ES_gt.nii.gz"]
    assert {f.subject for f in findings if f.level == "error" and f.subject} == (
        {"001", "002"} if level == "error" else {"002"}
    )


def test_one_subject_under_two_codes(make_cohort: CohortMaker) -> None:
    folder = make_cohort(codes=(1, 2, 161), views=("SA",)) / "dataset"
    first = (folder / "001" / "001_SA_ED.nii.gz").read_bytes()
    (folder / "161" / "161_SA_ED.nii.gz").write_bytes(first)
    (folder / "002" / "002_SA_ED.nii.gz").write_bytes(first)
    findings = validate_mnms2(folder.parent)
    assert [(f.level, f.subject) for f in findings] == [("error", "161"), ("warning", "002")]
    assert "001_SA_ED.nii.gz: one subject in train and in validation" in findings[0].found


def test_the_same_code_in_two_places_and_a_second_table(make_cohort: CohortMaker) -> None:
    root = make_cohort(codes=(1,), views=("SA",))
    copy = root / "copy" / "001_SA_ED.nii.gz"
    copy.parent.mkdir()
    copy.write_bytes((root / "dataset" / "001" / "001_SA_ED.nii.gz").read_bytes())
    (root / "copy" / "dataset_information.csv").write_text("SUBJECT_CODE,DISEASE,VENDOR\n1,NOR,GE\n")
    found = [(f.level, f.subject, f.found.split(" ")[0:3]) for f in validate_mnms2(root)]
    assert ("error", "001", ["the", "same", "volume"]) in found
    assert ("error", "", ["a", "second", "table"]) in found


def test_cohort_wide_warnings(make_cohort: CohortMaker) -> None:
    table = "SUBJECT_CODE,DISEASE,VENDOR\n1,NOR,GE MEDICAL SYSTEMS\n2,XYZ,Acme\n400,,Siemens\n5,NOR,GE\n"
    root = make_cohort(codes=(1, 2, 400), views=("SA",), table=table)
    for name in ("400_SA_ED", "400_SA_ED_gt", "400_SA_ES", "400_SA_ES_gt"):
        path = root / "dataset" / "400" / f"{name}.nii.gz"
        rewrite(path.name, lambda a: a, np.diag([-1.5, 1.25, 10, 1]))(path.parent)
    findings = validate_mnms2(root)
    assert {f.level for f in findings} == {"warning"}
    texts = " | ".join(f.found for f in findings)
    for text in (
        "disease 'XYZ' for 1",
        "vendor 'Acme'",
        "no disease for 1 subject(s): 400",
        "no files of subject 005",
    ):
        assert text in texts
    assert "subject code 400" in texts
    assert "mixed orientation: in 1 of 3 SA subjects (400)" in texts


def test_an_empty_folder_and_a_split(make_cohort: CohortMaker, tmp_path: Path) -> None:
    (only,) = validate_mnms2(tmp_path)
    assert (only.level, only.path, only.found) == ("error", tmp_path, "no images of M&Ms-2")
    root = make_cohort(codes=(1, 2), views=("SA",), without_truth=(2,))
    split = tmp_path / "split.csv"
    split.write_text("SUBJECT_CODE,PART\n1,train\n2,test\n")
    assert validate_mnms2(root, split) == []
    split.write_text("SUBJECT_CODE,PART\n1,train\n1,test\n2,test\n")
    assert any(
        f.level == "error" and "subject 001 in train and in test" in f.found
        for f in validate_mnms2(root, split)
    )


def test_the_command(make_cohort: CohortMaker, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_cohort(codes=(1, 2), views=("SA",))
    with pytest.raises(SystemExit) as end:
        cli.main(["validate", str(root), "--dataset", "mnms2"])
    assert end.value.code == 0
    assert "2 subjects checked: 0 errors (in 0 subjects), 0 warnings." in capsys.readouterr().out

    truncate(root / "dataset" / "001")
    with pytest.raises(SystemExit) as end:
        cli.main(["validate", str(root)])
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(f"error  {root / 'dataset' / '001' / '001_SA_ED.nii.gz'}  (subject 001)")
    assert lines[at + 1].startswith("  found     ") and lines[at + 2].startswith("  expected  ")
    assert lines[-1] == "2 subjects checked: 1 error (in 1 subject), 0 warnings."


@pytest.mark.skipif("QCJAX_DATA" not in os.environ, reason="needs QCJAX_DATA, a folder of real data")
def test_the_real_subject_001_is_sound() -> None:
    findings = validate_mnms2(Path(os.environ["QCJAX_DATA"]) / "mnms2_subject_001")
    assert [f.found.split(" for ")[0] for f in findings] == [
        "no disease",
        "no vendor",
    ]  # there is no csv beside it


ACDC_NAMES = {
    "001_SA_ED": "patient001_frame01",
    "001_SA_ES": "patient001_frame05",
    "001_SA_CINE": "patient001_4d",
}
ACDC_EXPECTATIONS = {  # of BROKEN, where ACDC's differ
    "no ES": ("error", "patient001", r"no frame 5 \(only 1\)", "patient001_frame05.nii.gz"),
    "mask without image": ("error", "patient001_frame05_gt.nii.gz", "a mask without its image", "both"),
    "absent structure": (
        "warning",
        "patient001_frame05_gt.nii.gz",
        "no left ventricular cavity",
        "all three",
    ),
}


def as_acdc(text: str) -> str:
    for ours, theirs in ACDC_NAMES.items():
        text = text.replace(ours, theirs)
    return text


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if "long-axis" not in kind])
def test_what_goes_wrong_in_acdc(make_acdc: CohortMaker, kind: str) -> None:
    root = make_acdc(codes=(1, 2))
    folder = root / "training" / "patient001"
    breaker, *expectations = BROKEN[kind]
    for ours, theirs in ACDC_NAMES.items():  # the files of ACDC under the names that are broken, and back
        for end in (".nii.gz", "_gt.nii.gz"):
            if (folder / f"{theirs}{end}").exists():
                (folder / f"{theirs}{end}").rename(folder / f"{ours}{end}")
    breaker(folder)
    for path in sorted(folder.glob("001_*")):
        path.rename(folder / as_acdc(path.name))
    other = "patient002_frame05_gt.nii.gz"
    rewrite(other, lambda a: a * 0)(root / "training" / "patient002")
    findings = validate_acdc(root)
    level, name, found, expected = ACDC_EXPECTATIONS.get(kind, [as_acdc(text) for text in expectations])
    (hit,) = matching(findings, level, name, found, expected)
    assert hit.subject in ("patient001", "")
    assert [f.path.name for f in findings if f.subject == "patient002"] == [other]
    assert ("patient001" in {f.subject for f in findings if f.level == "error" and f.subject}) == (
        level == "error"
    )


def test_a_sound_acdc_data_set_and_what_shows_between_its_subjects(make_acdc: CohortMaker) -> None:
    root = make_acdc(without_truth=(101,))
    done: list[None] = []
    assert validate_acdc(root, on_subject=lambda: done.append(None)) == []
    assert len(done) == 3

    image = (root / "training" / "patient001" / "patient001_frame01.nii.gz").read_bytes()
    (root / "testing" / "patient101" / "patient101_frame01.nii.gz").write_bytes(image)
    (root / "training" / "patient002" / "Info.cfg").write_text("ED: 1\nES: 5\nGroup: DMD\n")
    leak, group = validate_acdc(root)
    assert (leak.level, leak.subject) == ("error", "patient101")
    assert "patient001_frame01.nii.gz: one subject in train and in test" in leak.found
    assert (group.level, group.found) == ("warning", "disease 'DMD' for 1 subject(s): patient002")
    assert group.expected == "one of NOR, MINF, DCM, HCM, RV"


def test_the_command_for_acdc(make_acdc: CohortMaker, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_acdc(codes=(1, 2))
    with pytest.raises(SystemExit) as end:
        cli.main(["validate", str(root), "--dataset", "acdc"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "There is no test part." in out
    assert out.splitlines()[-1] == "2 subjects checked: 0 errors (in 0 subjects), 0 warnings."
    with pytest.raises(SystemExit) as end:
        cli.main(["validate", str(root), "--dataset", "acdc", "--split", "split.csv"])
    assert end.value.code == 2
    assert "found --split for ACDC" in capsys.readouterr().err


@pytest.mark.skipif("QCJAX_DATA" not in os.environ, reason="needs QCJAX_DATA, a folder of real data")
def test_the_real_acdc_has_one_patient_twice() -> None:
    findings = validate_acdc(Path(os.environ["QCJAX_DATA"]) / "acdc")
    assert [(f.level, f.subject) for f in findings] == [
        ("warning", ""),  # steps of the affine against pixdim
        ("warning", "patient076"),
        ("warning", "patient076"),
    ]
