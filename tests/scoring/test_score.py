"""Scoring a folder: its tables and volumes, and the command with its exit codes."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from qcjax import cli
from qcjax.scoring.table import COLUMNS, largest_doubt
from tests.fake_monitor import KEYS, SPACING_MM, FakeMonitor, draw_mask, rows_of, save_mask, score


def test_a_row_per_case_and_structure_in_the_order_of_the_names(
    monitor: FakeMonitor, masks: Path, tmp_path: Path
) -> None:
    scores = score(monitor, masks, tmp_path / "out")
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert tuple(table[0]) == COLUMNS
    names = ["a/b/p3_ES", "a/p2_ED", "p1_ED", "p4_ED"]
    assert [row[:2] for row in table[1:]] == [[name, key] for name in names for key in KEYS]
    rows = rows_of(tmp_path / "out")
    sound, doubted, lost = rows["p1_ED", "rv"], rows["a/p2_ED", "rv"], rows["a/b/p3_ES", "rv"]
    assert (sound["verdict"], sound["pdc"], sound["phd_mm"], sound["error"]) == ("", "1.0", "0.0", "")
    assert doubted["verdict"] == "suspicious" and "pseudo Dice 0.29 is below 0.5" in doubted["reason"]
    assert float(doubted["pdc"]) == pytest.approx(4 / 14, abs=1e-6)
    assert float(doubted["phd_mm"]) == pytest.approx(15.0)
    assert rows["a/p2_ED", "lv"]["verdict"] == "" and float(rows["a/p2_ED", "lv"]["suspicion"]) > 1
    assert (lost["verdict"], lost["pdc"], lost["phd_mm"], lost["suspicion"]) == (
        "erroneous",
        "0.0",
        "",
        "inf",
    )
    assert {rows["p4_ED", key]["verdict"] for key in KEYS} == {"erroneous"}
    assert rows["p4_ED", "lv"]["worst_slice"] == ""
    assert [entry.name for entry in scores.flagged] == ["a/b/p3_ES", "p4_ED", "a/p2_ED"]


def test_a_monitor_that_measures_in_voxels_says_so(monitor: FakeMonitor, masks: Path, tmp_path: Path) -> None:
    monitor.unit = "voxels"
    score(monitor, masks, tmp_path / "out", hd_limit_mm=5.0)
    doubted = rows_of(tmp_path / "out")["a/p2_ED", "rv"]
    assert "phd_mm" not in doubted and "voxels is above 5 voxels" in doubted["reason"]
    assert float(doubted["phd_voxels"]) == pytest.approx(10.0)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "LV pHD (voxels)" in page and "above 5 voxels" in page and "mm" not in doubted["reason"]


def test_the_summary_counts_them(monitor: FakeMonitor, masks: Path, tmp_path: Path) -> None:
    (masks / "broken.nii.gz").write_bytes(b"no")
    score(monitor, masks, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    counts = {"cases": 5, "scored": 4, "errors": 1, "erroneous": 2, "suspicious": 1, "untouched": 1}
    assert {name: summary[name] for name in counts} == counts
    assert summary["structures"]["rv"] == {"erroneous": 2, "suspicious": 1}
    assert summary["structures"]["lv"] == {"erroneous": 1, "suspicious": 0}
    assert 0 < summary["seconds_median"] <= summary["seconds_p95"]
    assert summary["settings"]["labels"] == {"lv": 1, "myo": 2, "rv": 3}
    assert "qcjax" in summary["versions"]


def test_the_summary_says_what_was_left_out(monitor: FakeMonitor, tmp_path: Path) -> None:
    for name in ("a", "a_seg", "b"):
        save_mask(tmp_path / "masks" / f"{name}.nii.gz", draw_mask())
    score(monitor, tmp_path / "masks", tmp_path / "out", images=tmp_path / "masks")
    assert {name for name, _ in rows_of(tmp_path / "out")} == {"a_seg", "b"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["left_out"] == [f"{tmp_path / 'masks'}: left out, as no masks: 1 image (a)"]
    assert summary["without_image"] == 1  # that of a_seg is a


def test_limits_that_are_off_are_json_for_every_parser(
    monitor: FakeMonitor, masks: Path, images: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "out", {"images": images, "doubt_limit": np.inf, "hd_limit_mm": np.inf}
    score(monitor, masks, out, **options)
    kept = [(out / name).read_text() for name in ("score.json", "summary.json")]
    for text in kept:
        found = json.loads(text, parse_constant=pytest.fail)
        assert found.get("settings", found)["doubt_limit"] == "inf"
    shown = re.findall(
        r'<script type="application/json".*?>(.*?)</script>', (out / "report.html").read_text()
    )
    assert [json.loads(text, parse_constant=pytest.fail)["cases"] for text in shown]
    score(monitor, masks, out, **options)
    (out / "score.json").write_text(kept[0].replace('"inf"', "Infinity"))  # as it used to be
    score(monitor, masks, out, **options)
    with pytest.raises(ValueError, match=r"doubt_limit = inf \(now 1\.5\)"):
        score(monitor, masks, out, **options | {"doubt_limit": 1.5})


def test_the_worst_slice_is_counted_from_one(monitor: FakeMonitor, tmp_path: Path) -> None:
    labels = draw_mask(20)  # two of twelve rows get lost
    labels[:, 26:34, 1] = 0
    labels[28:40, 26:34, 1] = 3  # ten of twelve
    save_mask(tmp_path / "masks" / "a.nii.gz", labels)
    score(monitor, tmp_path / "masks", tmp_path / "out")
    assert rows_of(tmp_path / "out")["a", "rv"]["worst_slice"] == "2"


def test_volumes_lie_on_the_masks_grid_in_the_files_own_labels(monitor: FakeMonitor, tmp_path: Path) -> None:
    affine = np.array([[0, -1.5, 0, 10], [1.5, 0, 0, -20], [0, 0, 8, 5], [0, 0, 0, 1.0]])
    labels = draw_mask(28, rv=7, lv=200, myo=30)
    source = save_mask(tmp_path / "masks" / "a.nii.gz", labels, affine)
    score(monitor, source.parent, tmp_path / "out", labels={"lv": 200, "myo": 30, "rv": 7})
    row = rows_of(tmp_path / "out")["a", "rv"]
    assert row["mask_path"] == str(source)
    assert row["reconstruction_path"] == "maps/a_reconstruction.nii.gz"
    rebuilt, differs = (
        nibabel.load(tmp_path / "out" / row[f"{name}_path"]) for name in ("reconstruction", "inconsistency")
    )
    expected = labels.copy()
    expected[30:] = 0
    assert np.array_equal(np.asarray(rebuilt.dataobj), expected)
    assert np.array_equal(np.asarray(differs.dataobj), labels != expected)
    for image in (rebuilt, differs):
        assert np.allclose(image.affine, affine) and image.get_data_dtype() == np.uint8
        assert np.allclose(image.header.get_zooms(), SPACING_MM)


def test_the_limits_are_those_asked_for(monitor: FakeMonitor, masks: Path, tmp_path: Path) -> None:
    score(monitor, masks, tmp_path / "loose", dc_limit=0.2)
    assert rows_of(tmp_path / "loose")["a/p2_ED", "rv"]["verdict"] == ""
    score(monitor, masks, tmp_path / "strict", hd_limit_mm=14.0, dc_limit=0.2)
    assert "15.0 mm is above 14 mm" in rows_of(tmp_path / "strict")["a/p2_ED", "rv"]["reason"]


@pytest.fixture
def images(masks: Path, tmp_path: Path) -> Path:
    """Of the sound mask with the heart elsewhere, of the doubted one with it there, one that doesn't fit, and none."""
    rng = np.random.default_rng(0)

    def save(name: str, mask: np.ndarray) -> None:
        image = 100.0 * np.isin(mask, (1, 3)) + rng.normal(100, 20, mask.shape)
        save_mask(tmp_path / "images" / name, image.astype(np.float32))

    save("p1_ED.nii.gz", np.roll(draw_mask(), 8, axis=1))
    save("a/p2_ED.nii.gz", draw_mask(28))
    save("a/b/p3_ES.nii", draw_mask(32)[:, :, 1:])
    return tmp_path / "images"


def test_a_mask_is_doubted_where_its_image_shows_something_else(
    monitor: FakeMonitor, masks: Path, images: Path, tmp_path: Path
) -> None:
    scores = score(monitor, masks, tmp_path / "out", images=images)
    rows = rows_of(tmp_path / "out")
    elsewhere, there, none = rows["p1_ED", "rv"], rows["a/p2_ED", "rv"], rows["p4_ED", "lv"]
    assert elsewhere["verdict"] == "suspicious" and "not where the image shows it" in elsewhere["reason"]
    assert float(elsewhere["doubt"]) > 1.5 and elsewhere["suspicion"] == "0.0"
    assert there["doubt"] == "0.0" and there["reason"].startswith("right ventricular cavity: pseudo")
    assert none["doubt"] == "" and "no image of this name" in none["image_error"] and none["error"] == ""
    assert "found shape (48, 40, 2)" in rows["a/b/p3_ES", "lv"]["image_error"]
    assert scores.summary["without_image"] == 2 and scores.summary["suspicious"] == 2
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "or a doubt by the image above 1.5" in page
    score(monitor, masks, tmp_path / "loose", images=images, doubt_limit=float("inf"))
    passed = rows_of(tmp_path / "loose")["p1_ED", "rv"]
    assert passed["verdict"] == "" and passed["doubt"] == elsewhere["doubt"]


def test_an_image_that_comes_later_is_asked_then(
    monitor: FakeMonitor, masks: Path, images: Path, tmp_path: Path
) -> None:
    hidden = (images / "p1_ED.nii.gz").rename(tmp_path / "hidden")
    assert score(monitor, masks, tmp_path / "out", images=images).summary["suspicious"] == 1
    hidden.rename(images / "p1_ED.nii.gz")
    assert score(monitor, masks, tmp_path / "out", images=images).summary["suspicious"] == 2
    row = rows_of(tmp_path / "out")["p1_ED", "rv"]
    assert float(row["doubt"]) > 1.5 and row["image_error"] == ""


def test_an_absence_is_no_doubt_of_the_image() -> None:
    line = {"structures": {"lv": {"doubt": 0.5}, "rv": {"doubt": "inf"}, "scar": {"doubt": None}, "old": {}}}
    assert largest_doubt(line) == 0.5
    assert np.isnan(largest_doubt({"structures": {"rv": {"doubt": "inf"}}}))


def test_two_reasons_stand_beside_each_other(monitor: FakeMonitor, tmp_path: Path) -> None:
    save_mask(tmp_path / "masks" / "a.nii.gz", draw_mask(28))
    noise = np.random.default_rng(0).normal(100, 20, (48, 40, 3)).astype(np.float32)
    save_mask(tmp_path / "images" / "a.nii.gz", noise)
    score(monitor, tmp_path / "masks", tmp_path / "out", images=tmp_path / "images")
    row = rows_of(tmp_path / "out")["a", "rv"]
    assert row["verdict"] == "suspicious" and "below 0.5; " in row["reason"]
    assert row["reason"].endswith("not where the image shows it (doubt 1.5 is above 1.5)")


def test_scores_with_images_are_not_mixed_with_scores_without(
    monitor: FakeMonitor, masks: Path, images: Path, tmp_path: Path
) -> None:
    score(monitor, masks, tmp_path / "out")
    with pytest.raises(ValueError, match=r"images = None \(now .*images\)"):
        score(monitor, masks, tmp_path / "out", images=images)


@pytest.fixture
def command(monitor: FakeMonitor, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command, with its exit code."""
    monkeypatch.setattr("qcjax.inference.monitor.Monitor.load", lambda run, devices=None: monitor)

    def run(*args: str | Path) -> int:
        with pytest.raises(SystemExit) as stop:
            cli.main(["score", "--monitor", str(monitor.run), *map(str, args)])
        return int(stop.value.code or 0)

    return run


def test_exit_codes(
    command: Callable[..., int], masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def out(name: str, *args: str, source: Path = masks) -> int:
        return command("--masks", source, "--out", tmp_path / name, "--pictures", "0", *args)

    assert out("any") == 0
    printed = capsys.readouterr()
    assert "a/b/p3_ES" in printed.out and "report.html" in printed.out and "2 erroneous" in printed.out
    assert printed.err == ""
    assert out("any", "--fail-on", "suspicious") == out("any", "--fail-on", "erroneous") == 2
    sound, doubted, broken = tmp_path / "sound", tmp_path / "doubted", tmp_path / "broken"
    save_mask(sound / "a.nii.gz", draw_mask())
    save_mask(doubted / "a.nii.gz", draw_mask(28))
    save_mask(broken / "a.nii.gz", draw_mask(rv=9))
    assert out("sound", "--fail-on", "suspicious", source=sound) == 0
    assert out("doubted", "--fail-on", "suspicious", source=doubted) == 2
    assert out("doubted", "--fail-on", "erroneous", source=doubted) == 0
    capsys.readouterr()
    assert out("broken", source=broken) == 0
    assert "1 mask couldn't be scored" in capsys.readouterr().err
    assert out("broken", "--fail-on", "erroneous", source=broken) == 2
    assert out("relabelled", "--labels", "lv=1,myo=2,rv=9", "--fail-on", "suspicious", source=broken) == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--masks", "nowhere"], "nowhere"),
        (["--masks", "empty"], "found no masks"),
        (["--masks", "masks", "--labels", "lv=1"], "expected lv, myo, rv"),
        (["--masks", "masks", "--labels", "lv"], "expected name=value"),
        (["--masks", "masks", "--images", "nowhere"], "nowhere"),
        (["--masks", "masks", "--out", "masks/p1_ED.nii.gz"], "p1_ED.nii.gz"),
        (["--masks", "masks", "--workers", "0"], "--workers: 0 found, expected at least 1"),
        (
            ["--masks", "masks", "--workers", "2", "--scheduler", "tcp://a:1"],
            "both --workers and --scheduler found",
        ),
    ],
)
def test_a_run_that_cannot_start_exits_with_1(
    command: Callable[..., int],
    masks: Path,
    tmp_path: Path,
    args: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert command("--out", "out", *args) == 1
    assert told in capsys.readouterr().err


def test_no_monitor_exits_with_1(masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["score", "--monitor", str(masks), "--masks", str(masks), "--out", str(tmp_path / "out")])
    assert stop.value.code == 1
    assert "expected the folder of a trained monitor" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
