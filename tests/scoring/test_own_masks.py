"""A monitor of somebody's own masks, from the command line to a score."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from qcjax import cli
from qcjax.config import AutoencoderConfig, MonitorConfig
from qcjax.data.datasets.masks import SUBJECT
from qcjax.data.mask_cohort import MaskCase
from qcjax.inference.monitor import Monitor
from qcjax.scoring.own_masks import split_by_subject, train_on_folder
from tests.headers import set_pixdim
from tests.seeds import seed

TINY = MonitorConfig(
    size=64,
    spacing_mm=2.0,
    autoencoder=AutoencoderConfig(width=4, latent=8, dropout=0.0, epochs=1, steps=2, batch=4),
)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Organs numbered 5 and 9 in slices of several sizes, one of them a single slice."""
    folder = tmp_path_factory.mktemp("organs")
    for i, shape in enumerate([(40, 50, 3), (64, 64, 1), (90, 30, 2), (50, 40, 3)]):
        mask = np.zeros(shape, np.int16)
        mask[10:25, 8:20] = 5
        mask[14:20, 12:16] = 9
        path = folder / f"p{i}" / f"p{i}_seg.nii.gz"
        path.parent.mkdir()
        nib.save(nib.Nifti1Image(mask, np.diag((2.0, 2.0, 5.0, 1.0))), path)
    return folder


def train(masks: Path, out: Path, *options: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setitem(cli.MONITORS, "small", TINY)
        if "--seed" not in options:
            options = ("--seed", str(seed()), *options)
        cli.main(["monitor", "train", "--masks", str(masks), "--out", str(out), "--devices", "1", *options])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def trained(masks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own") / "monitor"
    assert train(masks, out, "--labels", "liver=5,lesion=9", "--centre", "mask") == 0
    return out


def test_any_labels_make_a_monitor_that_knows_them(trained: Path, masks: Path) -> None:
    monitor = Monitor.load(trained, 1)
    assert [(s.key, s.id) for s in monitor.structures] == [("liver", 1), ("lesion", 2)]
    assert monitor.labels == {"liver": 5, "lesion": 9} and monitor.centre == "mask"
    score = monitor.score(np.pad(np.ones((9, 9, 2), np.uint8), ((20, 20), (20, 20), (0, 0))), (2.0, 2.0, 5.0))
    assert score.pdc.shape == (2,) and score.verdict == "erroneous"  # there is no lesion


def test_started_again_with_other_settings_it_refuses(
    trained: Path, masks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(masks, trained, "--labels", "liver=5,lesion=9", "--seed", str(seed(3))) == 1
    assert f"seed = {seed()} (now {seed(3)})" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "liver=5"), "label values"),
        (("--labels", "liver"), "expected name=value"),
        (("--size", "100"), "expected a multiple of 64"),
        (("--validation", "0"), "expected a share"),
        (("--preset", "original", "--dice", "soft"), "--dice: soft found, expected none"),
    ],
)
def test_what_makes_no_sense_is_refused(
    masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert train(masks, tmp_path / "monitor", *options) == 1
    assert message in capsys.readouterr().err


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments of every training, none of which runs, though each leaves a result."""
    trainings: list[tuple[Any, ...]] = []

    class Begun:
        description = {"epoch": 1}

        def __init__(self, *args: Any) -> None:
            trainings.append(args)
            (args[4] / "metrics.jsonl").touch()

        def run(self) -> Any:
            return self

    monkeypatch.setattr("qcjax.scoring.own_masks.MonitorTraining", Begun)
    return trainings


def test_without_labels_every_value_is_a_structure(
    masks: Path, tmp_path: Path, begun: list[tuple[Any, ...]]
) -> None:
    assert train(masks, tmp_path / "monitor") == 0
    assert begun[0][1] == {"label5": 5, "label9": 9}


def test_going_on_keeps_the_subjects(
    masks: Path, tmp_path: Path, begun: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "monitor"
    assert train(masks, out, "--subject", "p([0-9])") == train(masks, out) == 0
    assert "3 masks of 3 subjects and 1 mask of 1 subject" in capsys.readouterr().out
    assert {case.group for args in begun for part in args[2:4] for case in part.cases} == set("0123")
    assert train(masks, out, "--subject", "p[0-9]") == 1
    assert "subject = p([0-9]) (now p[0-9])" in capsys.readouterr().err
    assert train(masks, tmp_path / "other") == 0
    assert json.loads((tmp_path / "other" / "config.json").read_text())["subject"] == SUBJECT


def test_masks_with_errors_are_left_out_if_wanted(
    masks: Path, tmp_path: Path, begun: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "masks"
    shutil.copytree(masks, folder)
    (folder / "p7.nii.gz").write_bytes(b"no")
    for out, labels in (("any", ()), ("own", ("--labels", "liver=5,lesion=9"))):
        options = (folder, tmp_path / out, *labels)
        assert train(*options) == 1
        assert "p7.nii.gz: found no gzip data" in capsys.readouterr().err
        assert not (tmp_path / out).exists()
        assert train(*options, "--skip-invalid") == 0
        told = capsys.readouterr().out
        assert "error: " in told and "Left out, because of errors: 1 mask (p7)" in told
        assert json.loads((tmp_path / out / "config.json").read_text())["left_out"] == ["p7"]
        assert sum(len(part.cases) for part in begun[-1][2:4]) == 4
    assert train(folder, tmp_path / "new", "--labels", "liver=7", "--skip-invalid") == 1
    assert "masks: 5 masks found, expected any that can be used" in capsys.readouterr().err
    (folder / "p7.nii.gz").unlink()
    assert train(folder, tmp_path / "any") == 1
    assert "left_out = ['p7'] (now [])" in capsys.readouterr().err


@pytest.mark.parametrize(("axis", "value"), [(0, np.inf), (2, np.nan)])
@pytest.mark.parametrize("labels", [(), ("--labels", "liver=5,lesion=9")])
def test_a_spacing_that_is_no_number_is_refused_with_the_figure(
    masks: Path,
    tmp_path: Path,
    begun: list[tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
    labels: tuple[str, ...],
    axis: int,
    value: float,
) -> None:
    folder = Path(shutil.copytree(masks, tmp_path / "masks"))
    set_pixdim(folder / "p2" / "p2_seg.nii.gz", axis, value)
    assert train(folder, tmp_path / "monitor", *labels) == 1
    said = capsys.readouterr().err
    assert "p2_seg.nii.gz: found spacing" in said and f"{value:g}" in said and not begun


@pytest.mark.parametrize("subject", [(), ("--subject", "(seg)")])
@pytest.mark.parametrize(
    "labels", [(), ("--labels", "liver=5,lesion=9"), ("--labels", "liver=5,lesion=9,none=7")]
)
def test_one_damaged_file_among_many_is_told_of_before_anything_else(
    masks: Path,
    tmp_path: Path,
    begun: list[tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
    labels: tuple[str, ...],
    subject: tuple[str, ...],
) -> None:
    """Also where all are of one subject, or no mask has one of the structures."""
    folder = Path(shutil.copytree(masks, tmp_path / "masks"))
    damaged = folder / "p3" / "p3_seg.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    assert train(folder, tmp_path / "monitor", *labels, *subject) == 1
    said = capsys.readouterr().err
    assert "p3_seg.nii.gz: found " in said and "subject" not in said and "none" not in said and not begun


def test_batches_that_are_not_finite_are_left_out_if_wanted(
    masks: Path, tmp_path: Path, begun: list[tuple[Any, ...]]
) -> None:
    assert train(masks, tmp_path / "monitor") == 0
    assert train(masks, tmp_path / "monitor", "--on-nonfinite", "skip") == 0
    assert [args[-1] for args in begun] == ["stop", "skip"]


def test_a_subjects_masks_stay_together() -> None:
    cases = [MaskCase(f"p{i}_{phase}", f"p{i}", Path("x")) for i in range(10) for phase in ("ED", "ES")]
    training, held_out = split_by_subject(cases, 0.2, seed=0)
    assert len(training) == 16 and len(held_out) == 4
    assert not {c.group for c in training} & {c.group for c in held_out}
    assert split_by_subject(cases, 0.2, seed=0) == (training, held_out)


def test_masks_of_one_subject_alone_cant_be_split() -> None:
    with pytest.raises(
        ValueError, match=r"2 masks of one subject \(ED\) found, .*at least two \(--subject REGEX"
    ):
        split_by_subject([MaskCase("ED_1", "ED", Path("x")), MaskCase("ED_2", "ED", Path("y"))], 0.2, 0)


def test_train_on_folder_names_a_folder_that_isnt_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train_on_folder(tmp_path / "nowhere", tmp_path / "out", None, TINY, "small")
