"""Predicted quality in `qcjax segment`: a given quality model, its columns, decisions and counts."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcjax.inference.signals import signals_of
from qcjax.quality.model import PREDICTED, KnownCase
from qcjax.segmentation.model import Model
from qcjax.segmentation.segment import Segmentation
from qcjax.segmentation.settings import Limits


@pytest.fixture(scope="module")
def model(quality_folder: Path) -> Model:
    return Model.load(quality_folder, 1)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def image_folder(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for path in (phantoms / "training" / "patient001").glob("*_frame??.nii.gz"):
        shutil.copy(path, folder)
    return folder


def test_every_structure_has_a_prediction_with_bounds_and_a_decision(
    model: Model, image_folder: Path, tmp_path: Path
) -> None:
    outcome = Segmentation.open(model, image_folder, tmp_path / "out").run(0)
    rows = rows_of(tmp_path / "out")
    present = [r for r in rows if float(r["volume_ml"]) > 0]
    assert present
    expected = {"lv": 0.9, "myo": 0.85, "rv": 0.6}
    for row in rows:
        if float(row["volume_ml"]) == 0:
            assert row["predicted_dice"] == "" and row["decision"] == "reject"
            continue
        dice, low, hd, high = (float(row[c]) for c in PREDICTED[:4])
        assert dice == pytest.approx(expected[row["structure"]], abs=0.03)
        assert low < dice and high > hd
        assert row["decision"] == ("reject" if row["structure"] == "rv" else "accept")
    decisions = json.loads((tmp_path / "out" / "summary.json").read_text())["decisions"]
    assert decisions == {"accept": 0, "review": 0, "reject": 2}
    assert outcome.summary["settings"]["accept"] == "0.8"


def test_the_limit_decides_and_is_a_setting(model: Model, image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Segmentation.open(model, image_folder, out, limits=Limits(accept=0.5)).run(0)
    assert {r["decision"] for r in rows_of(out) if float(r["volume_ml"]) > 0} == {"accept"}
    with pytest.raises(ValueError, match="holds masks with accept = 0.5 [(]now 0.8[)]"):
        Segmentation.open(model, image_folder, out)
    with pytest.raises(ValueError, match="--coverage: 1.0 found, expected a probability between 0 and 1"):
        Limits(coverage=1.0)
    with pytest.raises(ValueError, match="--accept: 90 found, expected a Dice, 0 to 1"):
        Limits(accept=90)


def test_a_model_of_few_subjects_predicts_nothing(
    model_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    assert not (model_folder / "quality.json").exists()
    outcome = Segmentation.open(Model.load(model_folder, 1), image_folder, tmp_path / "out").run(0)
    assert all(row[c] == "" for row in rows_of(tmp_path / "out") for c in PREDICTED)
    assert outcome.summary["decisions"] == {"accept": 0, "review": 0, "reject": 0}


def test_held_out_subjects_and_new_images_have_the_same_signals(
    model: Model, image_folder: Path, known_cases: list[KnownCase]
) -> None:
    result = model.segment_file(sorted(image_folder.iterdir())[0])[0]
    mask = np.zeros(result.labels.shape, np.uint8)
    for structure in model.structures:
        mask[result.labels == model.labels[structure.key]] = structure.id
    prepared = model.prepare(result.volume)
    found = signals_of(mask, prepared.spacing_mm, result.score, model.predict([prepared])[0].sums)
    assert set(found) == set(known_cases[0].signals)
    assert {x.shape for x in found.values()} == {(3,)}
    assert model.predict([prepared])[0].sums.inside.shape == (2, len(prepared.stack), 3)


def test_a_cohort_that_parts_from_training_is_told_of(
    model: Model, image_folder: Path, tmp_path: Path
) -> None:
    """Ten copies of an image, against a reference of other volumes: said in the summary and on the page."""
    images = tmp_path / "images"
    images.mkdir()
    source = sorted(image_folder.iterdir())[0]
    for i in range(10):
        shutil.copy(source, images / f"p{i}.nii.gz")
    assert model.quality is not None
    key = next(k for k, m in model.segment_file(source)[0].measures.items() if m.volume_ml > 0)
    here = replace(model.quality, reference={"volume_ml": {key: [5000.0 + i for i in range(100)]}})
    other = Model(model.folder, model.description, list(model._variables), model.monitor, model.devices, here)
    outcome = Segmentation.open(other, images, tmp_path / "out").run(0)
    (drift,) = outcome.summary["drift"]
    assert drift["parts"] and drift["structure"] == key
    sentence = "These images part from those that the model has learnt from"
    assert sentence in (tmp_path / "out" / "report.html").read_text()
