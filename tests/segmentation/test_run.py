"""A training from end to end: what it leaves, that it goes on, and what it refuses."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from qcjax.config.segmentation import SegmentationConfig
from qcjax.data.subject import Volume
from qcjax.runtime.arrays import read_arrays
from qcjax.segmentation.dataset import find_labelled
from qcjax.segmentation.fold import Fold
from qcjax.segmentation.model import Model
from qcjax.segmentation.run import Training
from qcjax.segmentation.segment import Segmentation
from qcjax.segmentation.weights import network_of
from tests.headers import set_pixdim
from tests.report.pages import check_opening
from tests.segmentation.conftest import TINY


def test_the_folder_holds_a_model_its_card_and_its_page(
    model_folder: Path, config: SegmentationConfig
) -> None:
    assert config.data is not None
    found = json.loads((model_folder / "model.json").read_text())
    assert found["labels"] == {"lv": 3, "myo": 2, "rv": 1}
    assert found["networks"] == 2
    assert found["trained"]["subjects"] == 4
    assert found["cross_validated"]["rv"]["dice"]["n"] == 8
    card = (model_folder / "README.md").read_text()
    page = (model_folder / "report.html").read_text()
    assert "4 subjects, 8 labelled images" in card
    assert "By fold" in page
    check_opening(model_folder / "report.html")
    # what is handed on names no subject and no place
    for text in (card, json.dumps(found), (model_folder / "monitor" / "monitor.json").read_text()):
        assert not re.search(r"patient\d", text)
        assert str(config.data) not in text


def test_weights_are_float16_and_no_subject_is_in_two_folds(model_folder: Path) -> None:
    weights = read_arrays(model_folder / "weights.safetensors")
    assert {x.dtype for x in weights.values()} == {np.dtype(np.float16)}
    folds = json.loads((model_folder / "training" / "folds.json").read_text())["record"]
    assert sorted(folds[0] + folds[1]) == [f"patient00{i}" for i in range(1, 5)]


def test_held_out_masks_are_on_the_images_grid_with_the_files_values(
    model_folder: Path, phantoms: Path
) -> None:
    image = nib.load(next((phantoms / "training" / "patient001").glob("*frame01.nii.gz")))
    mask = nib.load(model_folder / "held_out" / "patient001_SA_ED.nii.gz")
    assert mask.shape == image.shape
    assert np.array_equal(mask.affine, image.affine)
    assert set(np.unique(mask.dataobj)) <= {0, 1, 2, 3}


def test_started_again_it_trains_nothing_and_leaves_the_same(
    model_folder: Path, config: SegmentationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (model_folder / "weights.safetensors").read_bytes()
    monkeypatch.setattr(Fold, "step", lambda *args: pytest.fail("a step was taken"))
    Training(replace(config, keep=False)).run()
    assert (model_folder / "weights.safetensors").read_bytes() == before


def test_the_model_is_the_mean_of_its_networks_each_of_which_sees_another_mirror_image(
    model_folder: Path,
) -> None:
    model, image = Model.load(model_folder, 1), np.random.default_rng(0).normal(size=(64, 48, 2))
    volume = Volume(image.astype(np.float32), (3.6, 3.6, 8), np.eye(4), Path("image"))
    prepared = model.prepare(volume)
    network, stack = network_of(model.description), prepared.stack[..., None]
    first, second = model._variables
    each = [network.apply(first, stack), np.flip(network.apply(second, np.flip(stack, 1)), 1)]
    assert np.abs(each[0] - each[1]).max() > 0.01
    assert model.predict([prepared])[0].probabilities.astype(np.float64) == pytest.approx(
        np.mean(each, 0), abs=2e-3
    )


def test_options_that_name_unknown_structures_are_refused(config: SegmentationConfig) -> None:
    with pytest.raises(ValueError, match="--may-be-absent: scar found, expected some of lv, myo, rv"):
        find_labelled(replace(config, may_be_absent=("scar",)))


def test_fewer_subjects_than_folds_are_refused(config: SegmentationConfig) -> None:
    with pytest.raises(ValueError, match="4 labelled subjects found, expected at least 5"):
        find_labelled(replace(config, folds=5))


def test_data_and_two_folders_together_are_refused(config: SegmentationConfig) -> None:
    with pytest.raises(ValueError, match="expected one of these"):
        find_labelled(replace(config, images=config.data, masks=config.data))


@pytest.mark.parametrize(("axis", "value"), [(0, np.inf), (2, np.nan)])
def test_a_spacing_that_is_no_number_is_refused_with_the_figure(
    phantoms: Path, tmp_path: Path, axis: int, value: float
) -> None:
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    damaged = next((data / "training" / "patient003").glob("*frame01.nii.gz"))
    set_pixdim(damaged, axis, value)
    config = replace(TINY, data=data, out=tmp_path / "model")
    said = f"{damaged.name}.*spacing.*{value:g}.*; expected positive, finite"
    with pytest.raises(ValueError, match=said):
        Training(config).run()
    assert not (tmp_path / "model" / "model.json").exists()
    assert not list((tmp_path / "model" / "training").glob("checkpoints*"))


def test_a_model_of_nnunets_layout_whose_masks_another_program_reads(phantoms: Path, tmp_path: Path) -> None:
    data = tmp_path / "Dataset001_Heart"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (data / part).mkdir(parents=True)
    for mask in sorted((phantoms / "training").glob("*/*_gt.nii.gz")):
        name = mask.name.removesuffix("_gt.nii.gz")
        shutil.copy(mask, data / "labelsTr" / f"{name}.nii.gz")
        shutil.copy(mask.with_name(f"{name}.nii.gz"), data / "imagesTr" / f"{name}_0000.nii.gz")
    shutil.copy(data / "imagesTr" / f"{name}_0000.nii.gz", data / "imagesTs" / "new_0000.nii.gz")
    labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    information = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
    (data / "dataset.json").write_text(json.dumps(information))
    Training(replace(TINY, data=data, out=tmp_path / "model")).run()
    model = Model.load(tmp_path / "model", 1)
    assert model.labels == {"rv": 1, "myo": 2, "lv": 3}
    Segmentation.open(model, data / "imagesTs", tmp_path / "out").run(0)
    image = SimpleITK.ReadImage(data / "imagesTs" / "new_0000.nii.gz")
    mask = SimpleITK.ReadImage(tmp_path / "out" / "masks" / "new.nii.gz")
    for ours, theirs in ((mask.GetOrigin(), image.GetOrigin()), (mask.GetSpacing(), image.GetSpacing())):
        assert ours == pytest.approx(theirs)
    assert mask.GetDirection() == pytest.approx(image.GetDirection())
    assert mask.GetSize() == image.GetSize()
    assert set(np.unique(SimpleITK.GetArrayFromImage(mask))) <= {0, 1, 2, 3}


def test_the_card_has_the_command_that_trains_such_a_model(model_folder: Path) -> None:
    card = (model_folder / "README.md").read_text()
    line = next(line for line in card.splitlines() if line.startswith("qcjax train"))
    assert line.startswith("qcjax train --data DATA --out MODEL --preset fast --seed 0 --folds 2 --epochs 1 ")
    assert line.endswith("--width 4 --size 64 --patch 32 --spacing-mm 3.6 --monitor-epochs 1")
