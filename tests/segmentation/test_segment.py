"""A folder of images from end to end: what is left, what is refused and why, that it goes on, and the Python side."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import qcjax
from qcjax.data.nifti import read_image
from qcjax.runtime.cluster import Cluster
from qcjax.segmentation.model import Model
from qcjax.segmentation.segment import Outcome, Segmentation
from qcjax.segmentation.settings import Limits
from qcjax.segmentation.table import COLUMNS
from qcjax.segmentation.views import Segmented, view
from tests.browser import browser, check_widths, page
from tests.cluster_work import one_killed_after
from tests.headers import set_pixdim


@pytest.fixture(scope="session")
def model(model_folder: Path) -> Model:
    return qcjax.load(model_folder, 1)


def save(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (3.6, 3.6, 8.0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([*spacing[:3], 1.0]))
    image.header.set_zooms(spacing[: array.ndim])
    nib.save(image, path)
    return path


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def segmented(model: Model, images: Path, out: Path, pictures: int = 0) -> Outcome:
    return Segmentation.open(model, images, out).run(pictures)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound images of several kinds among broken ones."""
    folder = tmp_path_factory.mktemp("mixed")
    save(folder / "stack.nii.gz", drawn(40, 48, 3))
    save(folder / "sub" / "slice.nii", drawn(40, 48))
    save(folder / "cine.nii.gz", drawn(40, 48, 2, 3), (3.6, 3.6, 8.0, 30.0))
    save(folder / "case_0000.nii.gz", drawn(40, 48, 2))
    save(folder / "case_gt.nii.gz", np.zeros((40, 48, 2), np.uint8))
    save(folder / "constant.nii.gz", np.full((40, 48, 2), 7, np.float32))
    save(folder / "zeros.nii.gz", np.zeros((40, 48, 2), np.float32))
    save(folder / "nan.nii.gz", np.full((40, 48, 2), np.nan, np.float32))
    set_pixdim(save(folder / "infinite.nii.gz", drawn(40, 48, 2)), 1, np.inf)
    set_pixdim(save(folder / "no_spacing.nii.gz", drawn(40, 48, 2)), 2, np.nan)
    save(folder / "five.nii.gz", drawn(8, 8, 2, 2, 2), (3.6, 3.6, 8.0, 1.0, 1.0))
    whole = save(folder / "cut.nii", drawn(40, 48, 2)).read_bytes()
    (folder / "cut.nii").write_bytes(whole[:-100])
    (folder / "text.nii.gz").write_text("no image")
    save(folder / "001_LA_ED.nii.gz", drawn(40, 48, 1))
    labels = np.zeros((40, 48, 2), np.float32)
    labels[9:30, 9:30], labels[15:20, 15:20, 1] = 200, 500
    save(folder / "contours.nii.gz", labels)
    (folder / "notes.txt").write_text("beside")
    return folder


@pytest.fixture(scope="session")
def outcome(model: Model, mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return segmented(model, mixed, tmp_path_factory.mktemp("masks"), 3)


def test_workers_leave_what_one_process_does_though_one_is_killed(
    model: Model, mixed: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    for i in range(4):
        shutil.copytree(mixed, images / str(i))
    one, two = tmp_path / "one", tmp_path / "two"
    segmented(model, images, one)
    with one_killed_after(two / "cases.jsonl") as killed:
        found = Segmentation.open(model, images, two).run(0, Cluster(workers=2), 1)
    assert killed and found.summary["images_in_this_run"] == 56
    for table in ("cases.csv", "subjects.csv"):
        assert (two / table).read_bytes() == (one / table).read_bytes()
    names = [json.loads(line)["name"] for line in (two / "cases.jsonl").read_text().splitlines()]
    assert len(names) == len(set(names)) == 56
    masks = {path.relative_to(one): nib.load(path).get_fdata() for path in (one / "masks").rglob("*.nii.gz")}
    assert len(masks) == 16
    for name, mask in masks.items():
        assert np.array_equal(nib.load(two / name).get_fdata(), mask)


def test_every_image_becomes_rows_a_broken_one_a_row_that_says_why(outcome: Outcome) -> None:
    with (outcome.folder / "cases.csv").open() as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    rows = rows_of(outcome.folder)
    of = {name: [r for r in rows if r["image"] == name] for name in {r["image"] for r in rows}}
    assert [r["structure"] for r in of["stack.nii.gz"]] == ["lv", "myo", "rv"]
    assert {r["frame"] for r in of["stack.nii.gz"]} == {""}
    assert [r["frame"] for r in of["cine.nii.gz"]] == ["1"] * 3 + ["2"] * 3 + ["3"] * 3
    assert of["case_0000.nii.gz"][0]["mask"] == "masks/case.nii.gz"
    assert of["sub/slice.nii"][0]["mask"] == "masks/sub/slice.nii.gz"
    reasons = {r["image"]: r["reason"] for r in rows if r["flag"] == "error"}
    assert reasons.keys() == {
        *("constant.nii.gz", "zeros.nii.gz", "nan.nii.gz", "five.nii.gz"),
        *("infinite.nii.gz", "no_spacing.nii.gz", "contours.nii.gz"),
        *("cut.nii", "text.nii.gz", "001_LA_ED.nii.gz"),
    }
    assert "a constant image" in reasons["constant.nii.gz"]
    assert "an image of zeros" in reasons["zeros.nii.gz"]
    assert "NaN or infinite voxels" in reasons["nan.nii.gz"]
    assert "spacing 3.6 x inf x 8 mm" in reasons["infinite.nii.gz"]
    assert "spacing 3.6 x 3.6 x nan mm" in reasons["no_spacing.nii.gz"]
    assert "a 5-D volume" in reasons["five.nii.gz"]
    assert "truncated" in reasons["cut.nii"]
    assert "no gzip data" in reasons["text.nii.gz"]
    assert "a long-axis view by its name; expected short-axis images" in reasons["001_LA_ED.nii.gz"]
    found = "found no values but 0, 200, 500, as a mask has; expected the intensities of an image"
    assert found in reasons["contours.nii.gz"]
    assert outcome.summary["images"] == 14
    assert outcome.summary["segmented"] == 4
    assert outcome.summary["errors"] == 10
    assert "1 mask" in outcome.summary["left_out"]
    assert not outcome.fails(None)
    assert outcome.fails("erroneous")


def test_masks_lie_on_the_images_own_grid_with_the_trained_values(outcome: Outcome, mixed: Path) -> None:
    for image, mask in (
        ("stack.nii.gz", "stack.nii.gz"),
        ("cine.nii.gz", "cine.nii.gz"),
        ("sub/slice.nii", "sub/slice.nii.gz"),
    ):
        theirs, ours = nib.load(mixed / image), nib.load(outcome.folder / "masks" / mask)
        assert ours.shape == theirs.shape
        assert np.array_equal(ours.affine, theirs.affine)
        assert ours.header.get_zooms() == theirs.header.get_zooms()
        assert set(np.unique(ours.dataobj)) <= {0, 1, 2, 3}


def test_the_page_shows_the_doubtful_and_the_refused(outcome: Outcome) -> None:
    shown = (outcome.folder / "report.html").read_text()
    assert shown.count("data:image/png;base64") == shown.count("data:image/jpeg;base64") == 3
    assert shown.index('id="viewer"') < shown.index('id="findings"') < shown.index('id="run"')
    assert "a constant image" in shown
    assert json.loads((outcome.folder / "summary.json").read_text())["frames"] == 6


def test_what_a_browser_shows_of_the_page(model: Model, mixed: Path, tmp_path: Path) -> None:
    """As the command writes it: a cine's frames and curve, the refused images, a decision, on three screens."""
    path = segmented(model, mixed, tmp_path / "out", 9).folder / "report.html"
    cine = [r for r in rows_of(tmp_path / "out") if r["image"] == "cine.nii.gz" and r["structure"] == "myo"]
    with browser() as started:
        with page(started, accept_downloads=True) as shown:
            shown.goto(path.as_uri())
            assert shown.locator("tbody[data-part=rows] tr").count() == 13
            shown.fill("[data-part=filter]", "not segmented")
            assert shown.inner_text("[data-part=shown]") == "9 of 13 cases"
            shown.click("tbody >> text=zeros")
            assert "an image of zeros" in shown.inner_text("[data-part=text]")
            assert not shown.is_visible("canvas")
            shown.fill("[data-part=filter]", "cine")
            shown.click("tbody >> text=cine")
            shown.wait_for_function(
                "document.querySelector('[data-part=place]').textContent.includes('of 3')"
            )
            begun = shown.inner_text("[data-part=place]")
            assert f"Frame {begun.split()[-3]}, the most doubtful" in shown.inner_text("[data-part=text]")
            shown.fill("[data-part=frame]", "2")
            assert shown.inner_text("[data-part=place]").endswith("frame 2 of 3")
            curve = shown.get_attribute("[data-curve=myo]", "d").replace("L", "M").split("M")[1:]
            heights = [float(point.split()[1]) for point in curve]
            volumes = [float(row["volume_ml"]) for row in cine]
            assert np.argsort(heights, kind="stable").tolist() == np.argsort(np.negative(volumes)).tolist()
            plots = shown.locator("[data-part=cohort] svg").evaluate_all("all => all.map(p => p.ariaLabel)")
            assert [text.split(":")[0] for text in plots][-3:] == ["LV (ml)", "MYO (ml)", "RV (ml)"]
            shown.focus("canvas")
            shown.keyboard.press("r")
            with shown.expect_download() as download:
                shown.click("[data-part=save]")
            download.value.save_as(tmp_path / "review.csv")
            assert '"cine",' in (tmp_path / "review.csv").read_text()
        check_widths(started, path)


def test_an_image_that_was_changed_since_has_no_picture(model: Model, tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.nii.gz", drawn(40, 48, 2))
    segmentation = Segmentation.open(model, tmp_path / "images", tmp_path / "out")
    segmentation.run(0)
    save(tmp_path / "images" / "a.nii.gz", drawn(40, 48, 3))
    (line,) = segmentation.journal.lines([segmentation.journal.entries["a"].offset])
    made = Segmented(tmp_path / "out", model, {}, {}, segmentation.journal, [], [])
    shown = view(made, line, True)
    assert not shown.tiles and "shape (40, 48, 2) found, expected those of the image" in shown.unseen


def test_arrays_in_arrays_out_as_the_files(model: Model, outcome: Outcome, mixed: Path) -> None:
    image = read_image(mixed / "stack.nii.gz")
    result = model.segment(image.array, image.spacing_mm)
    stored = np.asarray(nib.load(outcome.folder / "masks" / "stack.nii.gz").dataobj)
    assert np.array_equal(result.labels, stored)
    assert result.probabilities.shape == (3, 64, 64, 4)
    assert result.probabilities.astype(np.float32).sum(-1) == pytest.approx(1, abs=5e-3)
    rows = [r for r in rows_of(outcome.folder) if r["image"] == "stack.nii.gz"]
    voxel_ml = 3.6 * 3.6 * 8 / 1000
    for row in rows:
        value = model.labels[row["structure"]]
        assert float(row["volume_ml"]) == pytest.approx(
            np.count_nonzero(stored == value) * voxel_ml, abs=1e-3
        )
        assert result.measures[row["structure"]].volume_ml == pytest.approx(float(row["volume_ml"]), abs=1e-3)
    frames = model.segment_file(mixed / "cine.nii.gz")
    assert len(frames) == 3


@pytest.mark.parametrize(
    ("image", "spacing", "said"),
    [
        (np.zeros((4, 4)), (1, 1, 1), "expected numbers"),
        (np.full((4, 4, 1), np.inf), (1, 1, 1), "NaN or infinite"),
        (np.ones((4, 4, 1)), (1, 1, 0), "three positive lengths"),
        (np.ones((4, 4, 1)), (1, 1), "three positive lengths"),
        (np.ones((4, 4, 1)), (1, 1, 1), "constant image"),
    ],
)
def test_arrays_that_are_no_image_are_refused(
    model: Model, image: np.ndarray, spacing: tuple[float, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        model.segment(image, spacing)


def test_a_run_goes_on_with_what_is_missing_or_changed_alone(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for name in ("a", "b", "c"):
        save(images / f"{name}.nii.gz", drawn(40, 48, 1, seed=ord(name)))
    segmented(model, images, out)
    first = (out / "cases.csv").read_bytes()
    (out / "masks" / "b.nii.gz").unlink()
    journal = (out / "cases.jsonl").read_bytes().splitlines(keepends=True)
    (out / "cases.jsonl").write_bytes(b"".join(journal[:2]) + journal[2][:30])  # killed while it wrote
    read = Model.prepare
    seen: list[str] = []
    monkeypatch.setattr(Model, "prepare", lambda self, v: (seen.append(v.path.name), read(self, v))[1])
    segmented(model, images, out)
    assert sorted(seen) == ["b.nii.gz", "c.nii.gz"]
    assert (out / "cases.csv").read_bytes() == first
    assert (out / "masks" / "b.nii.gz").is_file()


def test_a_folder_of_other_results_is_refused_and_results_are_no_images(model: Model, tmp_path: Path) -> None:
    images = tmp_path / "images"
    save(images / "a.nii.gz", drawn(40, 48, 1))
    segmented(model, images, images / "out")
    again = segmented(model, images, images / "second")
    assert again.summary["images"] == 1
    with pytest.raises(ValueError, match="holds masks with hd_limit_mm = 50.0 [(]now 9"):
        Segmentation.open(model, images, images / "out", limits=Limits(9))


def test_pairs_give_ejection_fractions(model: Model, phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms / "training" / "patient001", tmp_path / "images" / "patient001")
    outcome = segmented(model, tmp_path / "images", tmp_path / "out")
    assert outcome.summary["pairs"] == 1
    with (tmp_path / "out" / "subjects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["structure"] for row in rows] == ["lv", "rv"]
    volumes = {(r["image"], r["structure"]): float(r["volume_ml"]) for r in rows_of(tmp_path / "out")}
    for row in rows:
        edv, esv = (volumes[f"{row[p]}.nii.gz", row["structure"]] for p in ("ed", "es"))
        assert float(row["ejection_fraction"]) == pytest.approx(100 * (edv - esv) / edv, abs=0.01)


def test_models_that_do_not_fit_are_refused_in_words(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="found no model.json; expected the folder of a trained model"
    ):
        Model.load(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(model_folder, other, ignore=shutil.ignore_patterns("training", "held_out"))
    description = json.loads((other / "model.json").read_text())
    description["network"]["width"] = 5
    (other / "model.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="doesn't fit the network in model.json"):
        Model.load(other)
    (other / "model.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(ValueError, match="format 99 found, expected 1"):
        Model.load(other)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_monitor_judges_a_turned_mask_as_the_mask_itself(
    model: Model, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((40, 48, 2), np.uint8)
    mask[18:30, 16:30], mask[20:28, 18:28], mask[9:17, 18:27] = 2, 1, 3
    monkeypatch.setattr(model, "direction", -1 + 0j)
    spacing = (3.6, 3.6, 8.0)
    first, turned = model.judge(mask, spacing), model.judge(np.rot90(mask, turns, (0, 1)), spacing)
    assert turned.pdc == pytest.approx(first.pdc)
    assert np.array_equal(turned.reconstruction, np.rot90(first.reconstruction, turns, (0, 1)))
