"""`qcjax refine`: what it leaves, that it goes on, what decides between both masks, and what it refuses."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcjax import cli, qc
from qcjax.config.adaptation import AdaptationConfig
from qcjax.config.segmentation import SegmentationConfig
from qcjax.data.batches import Slices
from qcjax.labels import CARDIAC, LV, RV
from qcjax.runtime.arrays import read_arrays
from qcjax.segmentation.export import export_model
from qcjax.segmentation.model import Model
from qcjax.segmentation.refine import Adaptation, training_options
from qcjax.segmentation.refined_cases import COLUMNS
from qcjax.segmentation.refining import Limits, RefinedNetwork
from qcjax.segmentation.run import Training
from qcjax.segmentation.segment import Segmentation
from qcjax.segmentation.training_slices import read_training_slices, write_training_slices
from qcjax.segmentation.turns import rv_direction
from qcjax.segmentation.unlabelled import framed, looked_at
from tests.report.pages import check_opening, check_pictures, check_sections


@pytest.fixture(scope="module")
def images(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four unlabelled images, and one that can't be read."""
    folder = tmp_path_factory.mktemp("unlabelled")
    for path in sorted((phantoms / "training").glob("*/*_frame??.nii.gz"))[:4]:
        shutil.copy(path, folder / path.name)
    (folder / "broken.nii.gz").write_text("no image")
    return folder


def options(images: Path, out: Path, **changed: Any) -> AdaptationConfig:
    given: dict[str, Any] = dict(
        images=images, out=out, cases="all", epochs=2, steps=2, labelled=4, unlabelled=4
    )
    return AdaptationConfig(**given | {"devices": 1} | changed)


@pytest.fixture(scope="module")
def refined(
    quality_folder: Path, phantoms: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("refined") / "model"
    config = options(images, out, data=phantoms, learning_rate_factor=1.0, gain=0.0)
    Adaptation(Model.load(quality_folder, 1), config).run()
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_both_sets_of_networks_are_kept_and_they_differ(refined: Path, quality_folder: Path) -> None:
    assert (refined / "weights.safetensors").read_bytes() == (
        quality_folder / "weights.safetensors"
    ).read_bytes()
    source, after = read_arrays(refined / "weights.safetensors"), read_arrays(refined / "refined.safetensors")
    assert source.keys() == after.keys()
    for network in ("0/params", "1/params"):
        assert any((source[k] != after[k]).any() for k in source if k.startswith(network))
    found = json.loads((refined / "model.json").read_text())["refined"]
    assert (found["images"], found["cases"], found["learnt_from"]) == (5, 4, 4)
    card = (refined / "README.md").read_text()
    assert "## Adapted" in card and card.index("## Adapted") < card.index("## Limits")
    assert "on 5 unlabelled images" in card and not re.search(r"patient\d", card)


def test_the_table_says_what_changed_and_why_and_names_what_could_not_be_used(refined: Path) -> None:
    rows = rows_of(refined / "cases.csv")
    assert tuple(rows[0]) == COLUMNS
    (broken,) = [row for row in rows if row["image"] == "broken"]
    assert broken["accepted"] == "0" and broken["reason"].startswith("not used: ")
    used = [row for row in rows if row["structure"]]
    assert len(used) == 4 * 3
    for row in used:
        assert 0 <= float(row["dice_between"]) <= 1
        bound_passed = row["gain"] != "" and float(row["gain"]) > 0
        assert row["reason"]
        assert row["accepted"] == "0" or bound_passed


def test_the_page_begins_with_picture_and_plot(refined: Path) -> None:
    from qcjax.segmentation.refined_page import SECTIONS

    page = refined / "report.html"
    check_opening(page)
    check_sections(page, SECTIONS)
    check_pictures(page, 3)


def test_segment_takes_the_mask_that_the_table_says(refined: Path, images: Path, tmp_path: Path) -> None:
    model = Model.load(refined, 1)
    Segmentation.open(model, images, tmp_path / "out").run(0)
    accepted = {row["image"]: row["accepted"] for row in rows_of(refined / "cases.csv") if row["structure"]}
    found = {Path(row["image"]).name.removesuffix(".nii.gz"): row["networks"]
             for row in rows_of(tmp_path / "out" / "cases.csv") if row["structure"]}  # fmt: skip
    assert found == {name: "refined" if yes == "1" else "source" for name, yes in accepted.items()}


@pytest.mark.parametrize(("gains", "taken"), [((0.05, 0.05, 0.05), "refined"), ((0.05, 0.05, -0.03), "source"),
                                              ((0.01, 0.01, 0.01), "source")])  # fmt: skip
def test_the_gate_decides_by_predicted_dice(
    refined: Path, images: Path, monkeypatch: pytest.MonkeyPatch, gains: tuple[float, ...], taken: str
) -> None:
    model = Model.load(refined, 1)
    model.description["refined"]["gain"] = 0.02
    predicted = iter([np.full((1, 3), 0.7), 0.7 + np.array([gains])])
    monkeypatch.setattr(Model, "predicted", lambda self, frames: next(predicted))
    (result,) = model.segment_file(sorted(images.glob("p*"))[0])
    assert result.networks == taken
    source = Model.load(refined, 1)
    source._refined = None
    (own,) = source.segment_file(sorted(images.glob("p*"))[0])
    assert (own.labels == result.labels).all() == (taken == "source")


def test_started_again_it_takes_no_step(
    refined: Path, quality_folder: Path, phantoms: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (refined / "refined.safetensors").read_bytes()
    monkeypatch.setattr(RefinedNetwork, "step", lambda *args: pytest.fail("a step was taken"))
    config = options(images, refined, data=phantoms, learning_rate_factor=1.0, gain=0.0)
    Adaptation(Model.load(quality_folder, 1), config).run()
    assert (refined / "refined.safetensors").read_bytes() == before


def test_with_other_images_an_earlier_run_is_not_gone_on_with(
    refined: Path, quality_folder: Path, phantoms: Path, images: Path
) -> None:
    more = images / "more.nii.gz"
    shutil.copy(sorted(images.glob("p*"))[0], more)
    config = options(images, refined, data=phantoms, learning_rate_factor=1.0, gain=0.0)
    try:
        with pytest.raises(ValueError, match="other images found than when refinement began"):
            Adaptation(Model.load(quality_folder, 1), config)
    finally:
        more.unlink()


def test_it_goes_on_with_the_cases_of_the_last_pass() -> None:
    shared = type("Shared", (), {"cohort": type("Cohort", (), {"names": ("a", "b", "c")})})
    stage: Any = object.__new__(RefinedNetwork)
    stage.shared, stage.checkpoints = (
        shared,
        type("Kept", (), {"metrics": lambda self, k: {"ood_cases": ["c"]}})(),
    )
    stage.cases = np.ones(3, bool)
    RefinedNetwork.resume(stage, 0)
    assert stage.cases.all()
    RefinedNetwork.resume(stage, 2)
    assert stage.cases.tolist() == [False, False, True]


def test_a_strange_cohort_is_found_by_what_the_models_own_subjects_had() -> None:
    pdc = np.array([[0.5], [0.52], [0.54], [0.56], [0.95]])
    measured = [(pdc, np.full_like(pdc, 5.0))]
    assert not Limits.of(measured, [0], {}).outside(measured)[:4].any()
    known = {0: [0.86, 0.88, 0.9, 0.92]}
    assert Limits.of(measured, [0], known).of_structures[0].low == pytest.approx(0.875 - 1.5 * 0.03)
    assert Limits.of(measured, [0], known).outside(measured).tolist() == [True] * 4 + [False]


def test_a_case_is_out_where_every_network_fails_in_one_structure() -> None:
    limits = Limits({0: qc.Thresholds(0.8, 10.0), 1: qc.Thresholds(0.8, 10.0)})
    good, near = np.array([[0.9, 0.9]] * 3), np.full((3, 2), 4.0)
    bad = good.copy()
    bad[0, 0], bad[1, 1] = 0.5, 0.5
    other = good.copy()
    other[1, 1] = 0.5
    assert limits.outside([(bad, near), (other, near)]).tolist() == [False, True, False]
    far = near.copy()
    far[2, 1] = np.nan  # the structure is absent
    assert limits.outside([(good, far)]).tolist() == [False, False, True]


def test_images_lie_as_the_monitors_masks_do() -> None:
    mask = np.zeros((2, 32, 32), np.uint8)
    mask[:, 4:8, 4:8], mask[:, 4:8, 8:10] = LV.id, RV.id
    turned = framed(mask.astype(np.float32), mask, CARDIAC, 1j, True).astype(np.uint8)
    found = rv_direction(turned.T, CARDIAC)
    assert found == pytest.approx(1j)
    _, rows, columns = np.nonzero(turned)
    assert abs(np.median(rows) - 16) <= 1 and abs(np.median(columns) - 16) <= 1
    assert (turned > 0).sum() == (mask > 0).sum()
    empty = np.zeros_like(mask)
    image = np.arange(2 * 32 * 32, dtype=np.float32).reshape(2, 32, 32)
    assert (framed(image, empty, CARDIAC, 1j, True) == image).all()


def test_of_a_cine_two_frames_are_learnt_from() -> None:
    assert (looked_at(1), looked_at(2), looked_at(30)) == ([0], [0], [0, 10])


def test_training_slices_come_back_in_another_order_and_name_nobody(tmp_path: Path) -> None:
    image = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    slices = Slices(image, image.astype(np.uint8))
    write_training_slices(tmp_path, slices)
    found = read_training_slices(tmp_path)
    assert found is not None and (found.image == found.label).all()
    assert sorted(found.label[:, 0, 0]) == list(range(12)) and (found.image != image).any()
    write_training_slices(tmp_path, None)
    assert read_training_slices(tmp_path) is None


def test_a_model_that_carries_its_slices_says_so_and_needs_no_data(
    config: SegmentationConfig, quality_folder: Path, model_folder: Path, images: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(model_folder, kept)
    Training(replace(config, out=kept, keep_training_slices=True)).run()
    assert "## Images of patients" in (kept / "README.md").read_text()
    shutil.copyfile(quality_folder / "quality.json", kept / "quality.json")
    one = Adaptation(Model.load(kept, 1), options(images, tmp_path / "out"))
    again = Adaptation(Model.load(kept, 1), options(images, tmp_path / "other", data=config.data))
    carried, read = one.labelled(), again.labelled()
    assert sorted(x.tobytes() for x in carried.label) == sorted(x.tobytes() for x in read.label)
    assert np.sort(carried.image.sum((1, 2))) == pytest.approx(np.sort(read.image.sum((1, 2))), abs=1)
    one.write([dict(w) for w in one.model._variables], 102, 4, 4)
    one.tell([])
    assert not (tmp_path / "out" / "training_slices.safetensors").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "which the model carried" in card and "## Images of patients" not in card
    Training(replace(config, out=kept)).run()
    assert not (kept / "training_slices.safetensors").exists()


def test_the_command_hands_on_what_is_asked_for(
    quality_folder: Path,
    phantoms: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for mask in sorted((phantoms / "training").glob("*/*_gt.nii.gz")):
        shutil.copy(mask, tmp_path / "masks" / mask.name)
        image = mask.name.replace("_gt", "")
        shutil.copy(mask.with_name(image), tmp_path / "images" / image)
    asked: list[Adaptation] = []
    monkeypatch.setattr(Adaptation, "run", lambda self: asked.append(self) or [])
    folders = [f"--labelled-{name}={tmp_path / name}" for name in ("images", "masks")]
    numbers = [
        "--cases=all",
        "--epochs=3",
        "--steps=5",
        "--learning-rate-factor=0.5",
        "--gain=0.1",
        "--seed=4",
    ]
    with pytest.raises(SystemExit) as end:
        cli.main(
            [
                "refine",
                f"--model={quality_folder}",
                f"--images={images}",
                f"--out={tmp_path / 'out'}",
                "--devices=1",
            ]
            + folders
            + numbers
        )
    assert end.value.code == 0
    assert "0 of 0 images: the refined mask is taken" in capsys.readouterr().out
    config = asked[0].config
    assert (config.cases, config.epochs, config.steps, config.seed) == ("all", 3, 5, 4)
    assert (config.learning_rate_factor, config.gain) == (0.5, 0.1)
    found = asked[0].labelled()
    read = Adaptation(
        Model.load(quality_folder, 1), options(images, tmp_path / "b", data=phantoms)
    ).labelled()
    assert sorted(x.tobytes() for x in found.label) == sorted(x.tobytes() for x in read.label)


def test_the_options_of_training_are_those_of_the_description(quality_folder: Path) -> None:
    found = training_options(Model.load(quality_folder, 1))
    assert (found.size, found.patch, found.width, found.stages, found.intensity) == (64, 32, 4, 3, False)


def test_what_is_refused(
    model_folder: Path, quality_folder: Path, refined: Path, phantoms: Path, images: Path, tmp_path: Path
) -> None:
    model, out = Model.load(quality_folder, 1), tmp_path / "out"
    with pytest.raises(ValueError, match="found no labelled data, expected the training data again"):
        Adaptation(model, options(images, out))
    with pytest.raises(ValueError, match="expected one of these"):
        Adaptation(model, options(images, out, labelled_images=images))
    with pytest.raises(ValueError, match="found no quality.json, expected it"):
        Adaptation(Model.load(model_folder, 1), options(images, out, data=phantoms))
    both = Model.load(refined, 1)
    with pytest.raises(ValueError, match="a refined model found, expected the one that it came from"):
        Adaptation(both, options(images, out, data=phantoms))
    with pytest.raises(ValueError, match="a refined model found, expected one set of networks"):
        export_model(both, out, "stablehlo")
    with pytest.raises(ValueError, match="found the model itself as --out"):
        Adaptation(model, options(images, quality_folder, data=phantoms))
    with pytest.raises(FileNotFoundError, match="found no such folder"):
        Adaptation(model, options(images, out, data=tmp_path / "absent"))
    assert not out.exists()


def test_refined_networks_without_predicted_quality_are_refused(refined: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(refined, copy, ignore=shutil.ignore_patterns("quality.json"))
    with pytest.raises(ValueError, match="refined networks without quality.json found"):
        Model.load(copy, 1)
