"""`qcjax calibrate`: a model for a site from its own cases, what it leaves, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from qcjax import cli
from qcjax.data.datasets.masks import find_masks
from qcjax.quality.model import QualityModel
from qcjax.segmentation.calibration import calibrate, paired
from qcjax.segmentation.model import Model


@pytest.fixture(scope="module")
def site(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten subjects, copies of four, with their truth and another tool's masks: the truth moved by two pixels."""
    folder = tmp_path_factory.mktemp("site")
    sources = sorted((phantoms / "training").glob("patient*"))
    for name in ("images", "truth", "masks"):
        (folder / name).mkdir()
    for i in range(10):
        image = sorted(sources[i % len(sources)].glob("*_frame??.nii.gz"))[0]
        truth = image.with_name(image.name.replace(".nii", "_gt.nii"))
        shutil.copy(image, folder / "images" / f"p{i}_ED.nii.gz")
        shutil.copy(truth, folder / "truth" / f"p{i}_ED_gt.nii.gz")
        moved(truth, folder / "masks" / f"p{i}_ED_pred.nii.gz", 1 + i % 2)
    return folder


def moved(source: Path, target: Path, pixels: int) -> None:
    import nibabel

    mask = nibabel.load(source)
    array = np.roll(np.asarray(mask.dataobj).astype(np.uint8), pixels, 0)
    nibabel.save(nibabel.Nifti1Image(array, mask.affine, mask.header), target)


def test_both_kinds_are_calibrated_and_the_model_is_left_alone(
    quality_folder: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (quality_folder / "quality.json").read_bytes()
    out = tmp_path / "here"
    folders = [f"--{name}={site / name}" for name in ("images", "masks", "truth")]
    with pytest.raises(SystemExit) as end:
        cli.main(["calibrate", f"--model={quality_folder}", *folders, f"--out={out}", "--devices=1"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "Masks from elsewhere:" in said and "LV, calibrated on the others: predicted Dice off by" in said
    assert "10 masks of 10 subjects" in said
    assert (quality_folder / "quality.json").read_bytes() == before
    record = json.loads((out / "calibration.json").read_text())
    assert [case["subject"] for case in record["mask"]["cases"]] == list(range(10))
    assert "p1_ED" not in (out / "calibration.json").read_text() + (out / "quality.json").read_text()
    rows = {(r["structure"], r["calibrated"]): r for r in record["mask"]["checked"]}
    assert abs(rows["rv", True]["bias"]) < abs(rows["rv", False]["bias"])
    found = Model.load(out, 1)
    assert found.quality is not None and found.quality.predictors["mask"]["lv"].subjects == 10
    old = QualityModel.load(quality_folder)
    assert (
        old is not None
        and found.quality.predictors["mask"]["lv"].dice.mean == old.predictors["mask"]["lv"].dice.mean
    )


def test_masks_that_are_the_truth_have_a_dice_of_1(quality_folder: Path, site: Path, tmp_path: Path) -> None:
    model = Model.load(quality_folder, 1)
    copies = tmp_path / "copies"
    shutil.copytree(site / "truth", copies)
    calibrate(model, site / "truth", tmp_path / "out", masks=copies)
    cases = json.loads((tmp_path / "out" / "calibration.json").read_text())["mask"]["cases"]
    assert {value for case in cases for value in case["dice"]} == {1.0}
    assert {value for case in cases for value in case["hd_mm"]} == {0.0}


def test_files_are_found_by_the_name_of_the_truth(tmp_path: Path) -> None:
    for name in (
        "truth/a_gt",
        "truth/sub/b_gt",
        "other/a_0000",
        "other/sub/b",
        "masks/a_seg",
        "masks/sub/b_gt",
    ):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    truths = find_masks(tmp_path / "truth", subject="[ab]")
    assert [p.path.name for p in paired(truths, tmp_path / "other", ("", "_0000"))] == [
        "a_0000.nii.gz",
        "b.nii.gz",
    ]
    found = paired(truths, tmp_path / "masks", ("", "_gt", "_pred", "_seg"))
    assert [p.path.name for p in found] == ["a_seg.nii.gz", "b_gt.nii.gz"]
    with pytest.raises(
        FileNotFoundError, match="found no file for a_gt.nii.gz; expected a.nii.gz or the like"
    ):
        paired(truths, tmp_path / "other", ("",))


def test_what_is_refused(model_folder: Path, quality_folder: Path, site: Path, tmp_path: Path) -> None:
    model, truth = Model.load(quality_folder, 1), site / "truth"
    with pytest.raises(ValueError, match="found neither --images nor --masks"):
        calibrate(model, truth, tmp_path / "out")
    with pytest.raises(ValueError, match="found no quality.json; expected a model of at least 9 subjects"):
        calibrate(Model.load(model_folder, 1), truth, tmp_path / "out", masks=truth)
    with pytest.raises(ValueError, match="found a folder that holds something; expected a new one"):
        calibrate(model, truth, site, masks=truth)
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(truth.iterdir())[:8]:
        shutil.copy(path, few)
    with pytest.raises(ValueError, match="8 subjects with masks of known quality found, expected at least 9"):
        calibrate(model, few, tmp_path / "out", masks=site / "masks")
    assert not (tmp_path / "out").exists()
