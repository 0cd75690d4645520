"""Images and geometry of scored masks: one anatomy stored in any way gives one row; a check not made is told of."""

import json
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qcjax import cli
from qcjax.data.geometry import Orientation
from tests.fake_monitor import SPACING_MM, FakeMonitor, draw_mask, rows_of, save_mask, score
from tests.headers import set_pixdim


@pytest.fixture
def command(monitor: FakeMonitor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """The command on tmp_path's masks, with its exit code."""
    monkeypatch.setattr("qcjax.inference.monitor.Monitor.load", lambda run, devices=None: monitor)

    def run(out: str, *args: str | Path) -> int:
        places = ["--masks", tmp_path / "masks", "--out", tmp_path / out, "--pictures", "0"]
        with pytest.raises(SystemExit) as stop:
            cli.main(["score", "--monitor", str(monitor.run), *map(str, (*places, *args))])
        return int(stop.value.code or 0)

    return run


def bright(mask: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(100, 20, mask.shape)
    return (100.0 * np.isin(mask, (1, 3)) + noise).astype(np.float32)


def test_images_with_nnunets_names_are_found(monitor: FakeMonitor, tmp_path: Path) -> None:
    save_mask(tmp_path / "masks" / "case_1.nii.gz", draw_mask())
    save_mask(tmp_path / "images" / "case_1_0000.nii.gz", np.roll(bright(draw_mask()), 8, axis=1))
    scores = score(monitor, tmp_path / "masks", tmp_path / "out", images=tmp_path / "images")
    row = rows_of(tmp_path / "out")["case_1", "rv"]
    assert "not where the image shows it" in row["reason"] and scores.summary["without_image"] == 0


def test_a_mask_that_kept_the_affine_alone_is_measured_by_its_image(
    monitor: FakeMonitor, tmp_path: Path
) -> None:
    unit = np.diag([-1.0, -1, 1, 1])
    for name, array in (("masks", draw_mask()), ("images", bright(draw_mask()))):
        (tmp_path / name).mkdir()
        nib.save(nib.Nifti1Image(array, unit), tmp_path / name / "a.nii")
    for axis, value in enumerate(SPACING_MM):
        set_pixdim(tmp_path / "images" / "a.nii", axis, value)
    save_mask(tmp_path / "whole" / "a.nii", draw_mask())
    score(monitor, tmp_path / "whole", tmp_path / "of_whole", images=tmp_path / "images")
    scores = score(monitor, tmp_path / "masks", tmp_path / "out", images=tmp_path / "images", pictures=1)
    row, expected = (rows_of(tmp_path / out)["a", "rv"] for out in ("out", "of_whole"))
    assert row["volume_ml"] == expected["volume_ml"] and row["phd_mm"] == expected["phd_mm"]
    assert scores.summary["without_image"] == 0 and row["image_error"] == ""
    assert "The image can't be shown" not in (tmp_path / "out" / "report.html").read_text()


def test_a_mask_without_a_usable_image_fails_unless_allowed(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        save_mask(tmp_path / "masks" / f"{name}.nii.gz", draw_mask())
    save_mask(tmp_path / "images" / "a.nii.gz", bright(draw_mask()))
    save_mask(tmp_path / "images" / "b.nii.gz", np.full((48, 40, 3), 7, np.float32))
    asked = ("--images", tmp_path / "images", "--fail-on", "erroneous")
    assert command("out", *asked) == 2
    assert "2 masks judged without an image" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["without_image"] == 2
    rows = rows_of(tmp_path / "out")
    assert "constant image (every voxel is 7)" in rows["b", "lv"]["image_error"]
    assert rows["b", "lv"]["reason"] == ""
    assert command("out", *asked, "--allow-missing-images") == 0
    assert command("out", "--images", tmp_path / "images") == 0  # nobody asked for a failure
    assert command("other", "--fail-on", "erroneous") == 0  # nobody asked for images


def test_no_image_at_all_is_an_error(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_mask(tmp_path / "masks" / "case_1.nii.gz", draw_mask())
    save_mask(tmp_path / "images" / "other.nii.gz", bright(draw_mask()))
    assert command("out", "--images", tmp_path / "images") == 1
    assert "found no image of any of 1 masks; expected names like case_1.nii.gz" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--dc-limit", "--hd-limit-mm", "--doubt-limit"])
def test_a_limit_that_is_no_number_is_refused(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    save_mask(tmp_path / "masks" / "a.nii.gz", draw_mask())
    assert command("out", option, "nan") == 1
    assert f"{option}: nan found, expected a number" in capsys.readouterr().err


def test_results_of_an_earlier_run_beside_the_masks_are_no_masks(
    monitor: FakeMonitor, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        save_mask(tmp_path / "masks" / f"{name}.nii.gz", draw_mask())
    score(monitor, tmp_path / "masks", tmp_path / "masks" / "scores")
    scores = score(monitor, tmp_path / "masks", tmp_path / "again")
    assert scores.summary["cases"] == 2
    assert "1 folder of our own results (scores)" in scores.summary["left_out"][0]


def test_one_anatomy_stored_in_any_way_gives_the_same_row(monitor: FakeMonitor, tmp_path: Path) -> None:
    labels = draw_mask(20)  # a part of the right ventricle gets lost
    labels[28:40, 26:34, 0] = 3  # and most of it in the first slice
    affine = np.diag([*SPACING_MM, 1.0])
    monitor.orientation = Orientation(np.eye(3))
    units = (("mm", 1.0), ("micron", 1e3), ("meter", 1e-3))
    storages = list(product(permutations(range(3)), product((1, -1), repeat=3)))
    for i, (order, signs) in enumerate(storages):
        ornt = np.array([[order.index(k), signs[k]] for k in range(3)], float)
        array = nib.orientations.apply_orientation(labels, ornt)
        there = affine @ nib.orientations.inv_ornt_aff(ornt, labels.shape)
        unit, factor = units[i % 3]
        there[:3] *= factor
        image = nib.Nifti1Image(array, there)
        image.set_sform(there, (i // 3) % 5)
        image.set_qform(there, 0 if (i // 3) % 5 else 1 + i % 4)
        image.header.set_xyzt_units(unit)
        (tmp_path / "masks").mkdir(exist_ok=True)
        nib.save(image, tmp_path / "masks" / f"s{i:02d}.nii.gz")
    score(monitor, tmp_path / "masks", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    first = rows["s00", "rv"]
    assert first["worst_slice"] == "1" and float(first["phd_mm"]) > 0 and first["geometry"] == ""
    for i, (_order, signs) in enumerate(storages):
        row = rows[f"s{i:02d}", "rv"]
        assert [row[c] for c in ("verdict", "pdc", "suspicion", "geometry")] == [
            first[c] for c in ("verdict", "pdc", "suspicion", "geometry")
        ], i
        assert float(row["phd_mm"]) == pytest.approx(float(first["phd_mm"]), rel=1e-5)
        backwards = signs[2] < 0
        assert row["worst_slice"] == ("3" if backwards else "1"), i
        rebuilt = nib.load(tmp_path / "out" / row["reconstruction_path"])
        source = nib.load(tmp_path / "masks" / f"s{i:02d}.nii.gz")
        assert rebuilt.shape == source.shape
        np.testing.assert_array_equal(rebuilt.header["xyzt_units"], source.header["xyzt_units"])
        np.testing.assert_allclose(rebuilt.affine, source.affine)


def test_where_left_and_right_are_not_known_it_is_said(
    command: Callable[..., int], monitor: FakeMonitor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_mask(tmp_path / "masks" / "a.nii.gz", draw_mask())
    image = nib.load(path)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(nib.Nifti1Image(draw_mask(), None, image.header), path)
    assert command("out") == 0
    assert "1 mask of unusual geometry" in capsys.readouterr().err
    assert "left and right" in rows_of(tmp_path / "out")["a", "lv"]["geometry"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["with_unusual_geometry"] == 1


def test_masks_in_another_label_order_are_told_of(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_mask(tmp_path / "masks" / "a.nii.gz", draw_mask())
    save_mask(tmp_path / "masks" / "b.nii.gz", draw_mask(lv=3, rv=1))
    assert command("out") == 0
    assert "1 mask with rv within the myocardium and lv beside it" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["seem_swapped"] == 1
