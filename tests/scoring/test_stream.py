"""Scoring that meets broken files, stops and starts again, and doesn't grow."""

import csv
import gzip
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from qcjax.inference.monitor import WEIGHTS
from qcjax.scoring.score import ScoringRun
from qcjax.scoring.stream import GROUP
from qcjax.scoring.table import ScoreJournal, output_paths
from tests.fake_monitor import (
    KEYS,
    SHAPE,
    SPACING_MM,
    FakeMonitor,
    draw_mask,
    rows_of,
    save_mask,
    score,
)
from tests.headers import set_pixdim


def _header_of(labels: np.ndarray) -> bytearray:
    return bytearray(nibabel.Nifti1Image(labels, np.diag([*SPACING_MM, 1.0])).to_bytes())


def _zero_spacing(path: Path) -> None:
    data = _header_of(draw_mask())
    data[80:84] = struct.pack("<f", 0.0)  # pixdim[1]
    path.write_bytes(gzip.compress(data))


def _rgb(path: Path) -> None:
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), path)


def _float(value: float) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        labels = draw_mask().astype(np.float32)
        labels[labels == 3] = value
        save_mask(path, labels)

    return write


def _cut(path: Path) -> None:
    rng = np.random.default_rng(0)
    save_mask(path, rng.integers(0, 4, SHAPE).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:600])


def _flipped_bits(path: Path) -> None:
    save_mask(path, draw_mask())
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # of the checksum
    path.write_bytes(data)


def _spacing(axis: int, value: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save_mask(path, draw_mask())
        set_pixdim(path, axis, value)

    return write


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "infinite spacing": (_spacing(0, np.inf), "spacing inf x "),
    "no spacing": (_spacing(2, np.nan), " x nan mm"),
    "truncated": (_cut, "truncated"),
    "checksum": (_flipped_bits, "damaged gzip data"),
    "text": (lambda path: path.write_text("not a mask\n"), "no gzip data"),
    "series": (lambda path: save_mask(path, np.zeros((*SHAPE, 2), np.uint8)), "4-D"),
    "nan": (_float(float("nan")), "NaN"),
    "unexpected": (lambda path: save_mask(path, draw_mask(rv=9)), "label values from 0 to 9"),
    "between": (_float(2.5), "label value 2.5"),
    "empty": (lambda path: path.write_bytes(b""), "0 bytes"),
    "headless": (lambda path: path.write_bytes(gzip.compress(b"\x00" * 2000)), "no NIfTI header"),
    "rgb": (_rgb, "voxels of type"),
    "flat": (_zero_spacing, "spacing 0 x"),
    "gone": (lambda path: path.symlink_to("nowhere.nii.gz"), "FileNotFoundError"),
}


def test_broken_files_become_rows_and_the_rest_goes_on(monitor: FakeMonitor, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, (write, _) in BROKEN.items():
        write(folder / f"{name}.nii.gz")
    save_mask(folder / "sound.nii.gz", draw_mask())
    _float(2.9999)(folder / "rounded.nii.gz")
    scores = score(monitor, folder, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert set(rows) == {(name, key) for name in (*BROKEN, "sound", "rounded") for key in KEYS}
    for name, (_, found) in BROKEN.items():
        for key in KEYS:
            row = rows[name, key]
            assert found in row["error"], f"{name}: {row['error']}"
            assert row["pdc"] == row["verdict"] == row["reconstruction_path"] == ""
            assert row["mask_path"].endswith(f"{name}.nii.gz")
    for name in ("sound", "rounded"):
        assert rows[name, "rv"]["pdc"] == "1.0" and rows[name, "rv"]["error"] == ""
    assert scores.summary["errors"] == len(BROKEN) and scores.summary["untouched"] == 2
    assert len(list((tmp_path / "out" / "maps").iterdir())) == 4


def test_whatever_fails_in_one_case_is_named_and_tried_again(
    monitor: FakeMonitor, masks: Path, tmp_path: Path
) -> None:
    labels = draw_mask()
    labels[0, 0, 0] = 1
    save_mask(masks / "poisoned.nii.gz", labels)
    monitor.poison = int((labels > 0).sum())
    assert score(monitor, masks, tmp_path / "out").summary["errors"] == 1
    rows = rows_of(tmp_path / "out")
    assert rows["poisoned", "lv"]["error"] == "RuntimeError: the device refuses"
    assert all(row["error"] == "" for (name, _), row in rows.items() if name != "poisoned")
    monitor.poison = None
    again = score(monitor, masks, tmp_path / "out")
    assert again.summary["errors"] == 0 and again.summary["cases_in_this_run"] == 1


def test_what_is_done_is_not_done_again(monitor: FakeMonitor, masks: Path, tmp_path: Path) -> None:
    (masks / "broken.nii.gz").write_bytes(b"no")
    out = tmp_path / "out"
    score(monitor, masks, out)
    table = (out / "scores.csv").read_bytes()
    (out / "scores.csv").unlink()
    assert monitor.prepared == 4
    assert score(monitor, masks, out).summary["cases_in_this_run"] == 0
    assert (monitor.prepared, (out / "scores.csv").read_bytes()) == (4, table)

    os.utime(masks / "p1_ED.nii.gz", ns=(1, 1))
    save_mask(masks / "p0.nii.gz", draw_mask())
    (out / "maps" / "a" / "p2_ED_inconsistency.nii.gz").unlink()
    assert score(monitor, masks, out).summary["cases_in_this_run"] == 3
    assert (out / "maps" / "a" / "p2_ED_inconsistency.nii.gz").is_file()
    assert {name for name, _ in rows_of(out)} == {"p0", "p1_ED", "a/p2_ED", "a/b/p3_ES", "p4_ED", "broken"}

    (masks / "p1_ED.nii.gz").unlink()
    score(monitor, masks, out)
    assert "p1_ED" not in {name for name, _ in rows_of(out)}


def test_a_mask_that_broke_leaves_no_old_volumes(monitor: FakeMonitor, masks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score(monitor, masks, out)
    assert (out / "maps" / "p1_ED_reconstruction.nii.gz").is_file()
    (masks / "p1_ED.nii.gz").write_bytes(b"no")
    score(monitor, masks, out)
    assert not (out / "maps" / "p1_ED_reconstruction.nii.gz").exists()
    assert rows_of(out)["p1_ED", "lv"]["error"]


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_run_that_was_killed_gives_the_same_table(
    monitor: FakeMonitor, masks: Path, tmp_path: Path, kept: int
) -> None:
    out = tmp_path / "out"
    score(monitor, masks, out)
    table = (out / "scores.csv").read_bytes()
    lines = (out / "scores.jsonl").read_bytes().splitlines(keepends=True)
    (out / "scores.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:25])
    (out / "scores.csv").unlink()
    assert score(monitor, masks, out).summary["cases_in_this_run"] == 4 - kept
    assert (out / "scores.csv").read_bytes() == table
    assert len(ScoreJournal(out / "scores.jsonl").entries) == 4


def test_a_damaged_line_in_the_middle_costs_its_case_alone(
    monitor: FakeMonitor, masks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    score(monitor, masks, out)
    lines = (out / "scores.jsonl").read_bytes().splitlines(keepends=True)
    lines[1] = b"\x00" * 40 + b"\n"
    (out / "scores.jsonl").write_bytes(b"".join(lines))
    assert score(monitor, masks, out).summary["cases_in_this_run"] == 1
    assert len(rows_of(out)) == 12


def test_other_settings_are_refused_with_what_differs(
    monitor: FakeMonitor, masks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    score(monitor, masks, out)
    with pytest.raises(ValueError, match=r"dc_limit = 0\.5 \(now 0\.6\); choose another --out"):
        ScoringRun.open(monitor, masks, out, dc_limit=0.6)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"labels = .*'rv': 3.*now.*'rv': 1"):
        ScoringRun.open(monitor, masks, out, {"lv": 3, "myo": 2, "rv": 1})  # type: ignore[arg-type]
    other = FakeMonitor(tmp_path / "other")
    ScoringRun.open(other, masks, out)  # type: ignore[arg-type]  # the same weights, moved
    (other.run / WEIGHTS).write_bytes(b"others")
    with pytest.raises(ValueError, match="monitor_sha256"):
        ScoringRun.open(other, masks, out)  # type: ignore[arg-type]


def test_results_within_the_folder_of_masks_are_no_masks(
    monitor: FakeMonitor, masks: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        assert score(monitor, masks, masks).summary["cases"] == 4
    shutil.rmtree(masks / "a")
    for path in masks.glob("*.nii.gz"):
        path.unlink()
    with pytest.raises(ValueError, match="found no masks but those in"):
        score(monitor, masks, masks)


def test_memory_is_bounded_and_device_batches_are_shared(tmp_path: Path) -> None:
    monitor = FakeMonitor(tmp_path / "monitor", delay=0.002)
    source = save_mask(tmp_path / "source.nii.gz", draw_mask())
    (tmp_path / "masks").mkdir()
    for i in range(150):
        shutil.copy(source, tmp_path / "masks" / f"{i:03}.nii.gz")
    scores = score(monitor, tmp_path / "masks", tmp_path / "out")
    assert scores.summary["scored"] == monitor.prepared == 150
    workers = max(2, min(16, os.cpu_count() or 2))
    assert GROUP < monitor.most_alive <= 2 * (workers + GROUP) + workers
    assert monitor.alive == 0
    assert len(monitor.threads) == 1
    assert monitor.groups.count(GROUP) >= 150 // GROUP - 1


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/a", "..", ""])
def test_no_output_leaves_the_folder(name: str) -> None:
    with pytest.raises(ValueError, match="stays inside"):
        output_paths(name)


def test_names_that_are_no_text_survive(monitor: FakeMonitor, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    save_mask(folder / "a.nii.gz", draw_mask(28))
    names = [b"caf\xe9.nii.gz", 'a, "b" [bold]ü.nii.gz'.encode(), b"a..b.nii.gz"]
    for name in names:
        shutil.copy(folder / "a.nii.gz", os.fsencode(folder) + b"/" + name)
    assert score(monitor, folder, tmp_path / "out", pictures=1).summary["suspicious"] == 4
    with (tmp_path / "out" / "scores.csv").open(newline="", errors="surrogateescape") as file:
        cases = {row["case"] for row in csv.DictReader(file)}
    assert cases == {"a", 'a, "b" [bold]ü', os.fsdecode(b"caf\xe9"), "a..b"}
