"""Finding, splitting, describing, checking EMIDEC; reading its clinical texts, writing predictions in its tree."""

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qcjax import cli
from qcjax.data.datasets import emidec
from qcjax.data.findings import InvalidFile
from qcjax.data.nifti import read_grid, read_image, read_labels
from qcjax.data.subject import Subject
from qcjax.data.validate import validate_emidec
from qcjax.labels import EMIDEC, EMIDEC_LABELS, EMIDEC_REGIONS

SPACING_MM = (1.5, 1.25, 13.0)
TEXT = (
    "{title}\r\n\r\nGap between slices\xa0: {gap} mm\r\nSex\xa0: F\r\nAge : 70\r\n"
    "ECG (ST +) : Y\r\nKillip Max: 1\r\n"
)

Maker = Callable[..., Path]


def heart(infarcted: bool) -> np.ndarray:
    labels = np.zeros((24, 20, 6), np.uint8)
    labels[7:17, 5:15] = 2
    labels[9:15, 7:13] = 1
    if infarcted:
        labels[7:9, 5:15, 2:4] = 3
        labels[8, 8:11, 2:4] = 4
    return labels


@pytest.fixture
def make(tmp_path: Path, save_nifti: Callable[..., None]) -> Maker:
    """A function that writes cases by their folders' names and returns the data set's folder."""

    def maker(*codes: str, root: str = "emidec", suffix: str = ".nii.gz", gap: str = "13") -> Path:
        folder = tmp_path / root
        for code in codes:
            labels = heart("P" in code)
            seed = int(re.sub(r"\D", "", code))
            noise = np.random.default_rng(seed).integers(1, 100, labels.shape)
            place = folder / code
            save_nifti(
                place / "Images" / f"{code}{suffix}",
                (noise + 200 * labels.astype(int)).astype(np.int16),
                SPACING_MM,
            )
            if "N" in code or "P" in code:
                save_nifti(place / "Contours" / f"{code}{suffix}", labels.astype(np.float64), SPACING_MM)
            title = code.replace("_", " ")
            (folder / f"{title}.txt").write_bytes(TEXT.format(title=title, gap=gap).encode("latin-1"))
        return folder

    return maker


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("above", [False, True])
def test_the_layout(make: Maker, suffix: str, above: bool) -> None:
    root = make("Case_P010", "Case_N009", "Case_101", root="emidec-dataset-1.0.1", suffix=suffix)
    subjects = emidec.find(root.parent if above else root)
    assert [(s.code, s.part, s.disease, s.vendor) for s in subjects] == [
        ("Case_101", "test", "", ""),
        ("Case_N009", "train", "normal", ""),
        ("Case_P010", "train", "pathological", ""),
    ]
    (case,) = subjects[2].cases
    assert case.name == "Case_P010_SA_LGE"
    assert case.image_path == root / "Case_P010" / "Images" / f"Case_P010{suffix}"
    assert case.label_path == root / "Case_P010" / "Contours" / f"Case_P010{suffix}"
    assert emidec.clinical_path(case) == root / "Case P010.txt"
    assert subjects[0].cases[0].label_path is None
    assert validate_emidec(root) == []


def test_names_and_folders_as_they_are_found(make: Maker) -> None:
    root = make("Case_P001", "Case_P002", "Case_N003")
    (root / "Case_P002").rename(root / "samplePositive")
    inner = (
        root / "Case_N003" / "Images" / "Case_N003.nii.gz"
    )  # a folder of that name, as some unpackers make
    inner.rename(inner.with_name("x"))
    inner.mkdir()
    inner.with_name("x").rename(inner / "0_Case.nii.gz")
    (root / "Case_P001" / "Images" / "._Case_P001.nii.gz").write_bytes(b"")
    (root / "Readme.txt").write_text("")
    scan = emidec.scan(root)
    found = [(f.level, f.path.name, f.found) for f in scan.findings]
    assert found == [
        ("warning", "0_Case.nii.gz", "the file name 0_Case.nii.gz"),
        ("warning", "Case_P002.nii.gz", "the file name Case_P002.nii.gz"),
        ("warning", "Case_P002.nii.gz", "the file name Case_P002.nii.gz"),
        ("warning", "emidec", "no group for subject samplePositive"),
        ("warning", "Case P002.txt", "a clinical text without its case"),
    ]
    assert [s.code for s in scan.subjects] == ["Case_N003", "Case_P001", "samplePositive"]
    assert emidec.clinical_path(scan.subjects[0].cases[0]) == root / "Case N003.txt"
    assert emidec.clinical_path(scan.subjects[2].cases[0]) is None
    assert read_image(scan.subjects[0].cases[0].image_path).array.shape == (24, 20, 6)


def test_the_clinical_text(make: Maker, tmp_path: Path) -> None:
    path = make("Case_P001") / "Case P001.txt"
    values = emidec.read_clinical(path)
    assert values == {
        "gap between slices": "13 mm", "sex": "F", "age": "70", "ecg (st +)": "Y", "killip max": "1"
    }  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().decode("latin-1").encode("utf-8"))  # saved again
    assert emidec.read_clinical(path) == values
    path.write_text("nothing")
    with pytest.raises(InvalidFile, match="Case P001.txt: found no key among 7 bytes"):
        emidec.read_clinical(path)
    with pytest.raises(InvalidFile, match="no readable file"):
        emidec.read_clinical(tmp_path / "absent.txt")


def test_the_description(make: Maker) -> None:
    root = make("Case_N001", "Case_P002", "Case_P003", "Case_101")
    (root / "Case P002.txt").unlink()
    subjects = emidec.find(root)
    assert emidec.describe(subjects).splitlines() == [
        "part   subjects  with truth  clinical text  groups",
        "train  3         3           2              normal 1, pathological 2",
        "test   1         0           1              unknown 1",
    ]
    assert emidec.describe(subjects[1:]).endswith("There is no test part.")


def test_no_cases_and_one_twice(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no cases of EMIDEC; expected folders named like Case_P001"):
        emidec.find(tmp_path)
    with pytest.raises(ValueError, match="found no such folder"):
        emidec.find(tmp_path / "absent")
    make("Case_P001")
    make("Case_P001", root="copy")
    (finding,) = emidec.scan(tmp_path).findings
    assert (finding.level, finding.subject) == ("error", "Case_P001")
    assert finding.found == f"Case_P001 also in {tmp_path / 'copy' / 'Case_P001'}"


def dummies(make: Maker, n_normal: int, n_pathological: int) -> list[Subject]:
    codes = [f"Case_{'N' if i < n_normal else 'P'}{i:03d}" for i in range(n_normal + n_pathological)]
    return emidec.find(make(*codes))


def test_folds_are_stratified_disjoint_and_repeatable(make: Maker) -> None:
    subjects = dummies(make, 4, 8)
    folds = emidec.folds(subjects, 4, seed=3)
    assert sorted(s.code for part in folds for s in part) == sorted(s.code for s in subjects)
    assert [Counter(s.disease for s in part) for part in folds] == [{"normal": 1, "pathological": 2}] * 4
    assert emidec.folds(subjects[::-1], 4, seed=3) == folds
    assert emidec.folds(subjects, 4, seed=4) != folds
    uneven = emidec.folds(subjects, 5, seed=0)
    assert {len(part) for part in uneven} == {2, 3}
    with pytest.raises(ValueError, match="12 labelled training patients; expected at least 13"):
        emidec.folds(subjects, 13, seed=0)
    with pytest.raises(ValueError, match="--folds: 1 found, expected at least 2"):
        emidec.folds(subjects, 1, seed=0)


def test_folds_keep_the_same_images_together_and_leave_out_the_test(make: Maker) -> None:
    root = make("Case_N001", "Case_P002", "Case_P003", "Case_P004", "Case_101")
    image = (root / "Case_P002" / "Images" / "Case_P002.nii.gz").read_bytes()
    (root / "Case_P004" / "Images" / "Case_P004.nii.gz").write_bytes(image)
    for seed in range(6):
        folds = emidec.folds(emidec.find(root), 3, seed)
        codes = sorted([s.code for s in part] for part in folds)
        assert codes == [["Case_N001"], ["Case_P002", "Case_P004"], ["Case_P003"]]


def test_a_prediction_lies_on_the_input_s_grid(make: Maker, tmp_path: Path) -> None:
    (subject,) = emidec.find(make("Case_P001"))
    path = subject.cases[0].image_path
    image = nib.Nifti1Image(np.ones((24, 20, 6)), np.diag([-1.0, -1.0, 1.0, 1.0]))  # as EMIDEC's: no spacing
    image.header.set_qform(None, 0)
    image.header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), 2)
    image.header["pixdim"][1:4] = SPACING_MM
    nib.save(image, path)
    like = read_image(path)
    written = emidec.write_prediction(tmp_path / "out", subject.cases[0], heart(True), like)
    assert written == tmp_path / "out" / "Case_P001" / "Contours" / "Case_P001.nii.gz"
    grid = read_grid(written)
    assert grid.spacing_mm == read_grid(path).spacing_mm == SPACING_MM
    assert np.array_equal(grid.affine, like.affine)
    assert (int(grid.header["qform_code"]), int(grid.header["sform_code"])) == (0, 2)
    assert np.array_equal(read_labels(written, EMIDEC_LABELS, like).array, heart(True))
    with pytest.raises(ValueError, match="label values"):
        emidec.write_prediction(tmp_path, subject.cases[0], heart(True) + np.uint8(1), like)


def test_the_regions_are_the_unions_that_emidec_scores() -> None:
    labels = np.arange(5)
    inside = {r.key: np.flatnonzero(r.inside(labels)).tolist() for r in EMIDEC_REGIONS}
    assert inside == {"myocardium": [2, 3, 4], "infarction": [3, 4], "no_reflow": [4], "cavity": [1]}
    assert [s.id for s in EMIDEC] == [1, 2, 3, 4]
    assert len({s.colour for s in EMIDEC}) == 4


def change(
    name: str, function: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None
) -> Callable:
    def breaker(root: Path) -> None:
        path = root / "Case_P001" / name / "Case_P001.nii.gz"
        source = nib.load(path)
        array = function(np.asarray(source.dataobj))
        nib.save(nib.Nifti1Image(array, source.affine if affine is None else affine), path)

    return breaker


def swapped(old: int, new: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: np.where(a == old, new, a.astype(np.float64))


def cut(root: Path) -> None:
    path = root / "Case_P001" / "Images" / "Case_P001.nii.gz"
    path.write_bytes(path.read_bytes()[:300])


def text(content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / "Case P001.txt").write_bytes(content)


MASK, IMAGE = ("Contours", "Case_P001.nii.gz"), ("Images", "Case_P001.nii.gz")
BROKEN: dict[str, tuple[Callable[[Path], object], str, tuple[str, ...], str]] = {  # -> level, path's end, found
    "truncated": (cut, "error", IMAGE, "truncated"),
    "other shape": (change("Contours", lambda a: a[..., :5]), "error", MASK, r"shape \(24, 20, 5\)"),
    "other affine": (change("Contours", lambda a: a, np.diag([1.5, 1.25, 13, 1.0])), "error", MASK, "an affine"),
    "unknown label": (change("Contours", swapped(4, 5)), "error", MASK, "label values from 0 to 5"),
    "half a label": (change("Contours", swapped(3, 2.5)), "error", MASK, r"label value 2\.5"),
    "float label": (change("Contours", swapped(3, 2.9999)), "warning", MASK, "float labels, up to 0.0001"),
    "NaN": (change("Images", lambda a: np.where(a > 700, np.nan, a)), "error", IMAGE, "NaN or infinite"),
    "constant": (change("Images", lambda a: a * 0), "error", IMAGE, "constant"),
    "4-D": (change("Images", lambda a: np.stack([a, a], 3)), "error", IMAGE, "a 4-D volume"),
    "slices first": (
        lambda root: [change(n, lambda a: np.moveaxis(a, 2, 0))(root) for n in ("Images", "Contours")],
        "error", IMAGE, r"spacing|shape",
    ),
    "no foreground": (change("Contours", lambda a: a * 0), "error", MASK, "no foreground"),
    "no cavity": (change("Contours", swapped(1, 0)), "warning", MASK, "no left ventricular cavity"),
    "no infarction": (
        change("Contours", lambda a: np.minimum(a, 2)), "warning", MASK, r"no infarction in a case .* \(P\)",
    ),
    "no-reflow alone": (change("Contours", swapped(3, 2)), "warning", MASK, "no-reflow without infarction"),
    "base first": (
        change("Contours", lambda a: np.where((np.arange(6) > 4) & (np.arange(20)[:, None] < 11), 0, a)),
        "warning", MASK, "a cavity of 36 voxels in the first slice and of 12 in the last",
    ),
    "no mask": (
        lambda r: (r / "Case_P001" / "Contours" / "Case_P001.nii.gz").unlink(),
        "warning", ("Case_P001",), "no mask of Case_P001: taken for a test case",
    ),
    "no image": (
        lambda r: (r / "Case_P001" / "Images" / "Case_P001.nii.gz").unlink(),
        "error", ("Case_P001",), "no image beside Case_P001.nii.gz",
    ),
    "two images": (
        lambda r: (r / "Case_P001" / "Images" / "Case_P001.nii").write_bytes(b""),
        "error", ("Case_P001", "Images"), "2 volumes: Case_P001.nii, Case_P001.nii.gz",
    ),
    "another gap": (text(b"Gap between slices\xa0: 10 mm"), "warning", ("Case P001.txt",), "10 mm apart, 13 mm in"),
    "an empty text": (text(b""), "warning", ("Case P001.txt",), "no key among 0 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_goes_wrong_is_found_and_the_others_are_checked_on(make: Maker, kind: str) -> None:
    root = make("Case_P001", "Case_N002")
    breaker, level, end, found = BROKEN[kind]
    breaker(root)
    bad = root / "Case_N002" / "Contours" / "Case_N002.nii.gz"
    nib.save(nib.Nifti1Image(heart(True), nib.load(bad).affine), bad)
    findings = validate_emidec(root)
    hits = [
        f
        for f in findings
        if f.level == level and f.path.parts[-len(end) :] == end and re.search(found, f.found)
    ]
    assert [f.subject for f in hits] == ["Case_P001"]
    (other,) = [f for f in findings if f.subject == "Case_N002"]
    assert (other.level, other.found) == ("warning", "an infarction in a case named normal (N)")
    assert {f.subject for f in findings if f.level == "error" and f.subject} == (
        {"Case_P001"} if level == "error" else set()
    )


def test_the_same_image_in_two_parts(make: Maker) -> None:
    root = make("Case_P001", "Case_P002", "Case_101")
    image = (root / "Case_P001" / "Images" / "Case_P001.nii.gz").read_bytes()
    (root / "Case_101" / "Images" / "Case_101.nii.gz").write_bytes(image)
    (finding,) = validate_emidec(root)
    assert (finding.level, finding.subject) == ("error", "Case_P001")
    assert "one subject in test and in train" in finding.found


def test_the_command(make: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    root = make("Case_P001", "Case_N002")
    with pytest.raises(SystemExit) as end:
        cli.main(["validate", str(root), "--dataset", "emidec"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split("  ")[-1] == "normal 1, pathological 1"
    assert lines[-1] == "2 subjects checked: 0 errors (in 0 subjects), 0 warnings."
    with pytest.raises(SystemExit) as end:
        cli.main(["validate", str(root), "--dataset", "emidec", "--split", "split.csv"])
    assert end.value.code == 2
    assert "found --split for EMIDEC" in capsys.readouterr().err


@pytest.mark.skipif("QCJAX_DATA" not in os.environ, reason="needs QCJAX_DATA, a folder of real data")
def test_the_real_samples_come_back_on_their_own_grid(tmp_path: Path) -> None:
    folder = Path(os.environ["QCJAX_DATA"]) / "emidec_samples"
    assert {f.level for f in validate_emidec(folder)} == {"warning"}  # no group; affines without the spacing
    negative, positive = emidec.find(folder)
    assert (positive.code, positive.part) == ("samplePositive", "train")
    (case,) = positive.cases
    image = read_image(case.image_path)
    assert image.spacing_mm[2] == 13
    assert case.label_path is not None
    labels = read_labels(case.label_path, EMIDEC_LABELS, image)
    assert set(np.unique(labels.array)) == {0, 1, 2, 3, 4}
    written = emidec.write_prediction(tmp_path, case, labels.array, image)
    again = read_labels(written, EMIDEC_LABELS, image)
    assert np.array_equal(again.array, labels.array) and again.spacing_mm == image.spacing_mm


@pytest.mark.skipif("QCJAX_DATA" not in os.environ, reason="needs QCJAX_DATA, a folder of real data")
def test_the_real_folder_of_67_cases() -> None:
    subjects = emidec.find(Path(os.environ["QCJAX_DATA"]) / "emidec_like")
    assert Counter((s.part, s.disease) for s in subjects) == {
        ("train", "normal"): 22,
        ("train", "pathological"): 45,
    }
