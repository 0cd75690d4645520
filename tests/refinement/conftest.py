"""A made-up run: plausible rows, small volumes of ellipses, and everything else that the report reads."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from qcjax.refinement.candidates import count_chosen
from qcjax.refinement.summary import summarise
from qcjax.refinement.table import NUMBER_COLUMNS, PATH_COLUMNS, STRUCTURES, CaseRow, write_cases

SHAPES = {"SA": (64, 56, 5), "LA": (64, 56, 1)}
SPACING_MM = {"SA": (2.0, 2.4, 9.0), "LA": (2.2, 2.2, 6.0)}
DISEASES = ("NOR", "HCM", "LV", "RV", "TRI")
VENDORS = ("SIEMENS", "GE", "Philips")
STAGES = ("segmenter", "selection", "control", "refined")


def make_row(**columns: Any) -> CaseRow:
    """A row with every column: what is not given is undefined, unflagged or empty."""
    row: CaseRow = {
        "segmenter": "nnunet", "view": "SA", "stage": "segmenter", "subject": "201", "phase": "ED",
        "part": "test", "disease": "NOR", "vendor": "GE", "candidate": "epoch 3", "ood": 0, "flag": "",
        "reason": "",
    }  # fmt: skip
    row |= dict.fromkeys(NUMBER_COLUMNS, math.nan) | dict.fromkeys(PATH_COLUMNS, "")
    return row | columns


def write_run(
    folder: Path,
    segmenters: Sequence[str] = ("nnunet",),
    views: Sequence[str] = ("SA", "LA"),
    truth: bool = True,
    ood: bool = True,
    n_test: int = 6,
    n_validation: int = 3,
    volumes: bool = True,
    n_resamples: int = 200,
) -> Path:
    """A run folder; its masks degrade by an amount drawn per case, less in the later stages."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    rows: list[CaseRow] = []
    subjects = [(str(161 + i), "validation") for i in range(n_validation)]
    subjects += [(str(201 + i), "test") for i in range(n_test)]
    for number, (subject, part) in enumerate(subjects):
        for view in views:
            for phase in ("ED", "ES"):
                case = f"{subject}_{view}_{phase}"
                difficulty = float(rng.beta(1.2, 6))
                heart = draw_heart(SHAPES[view], phase == "ES", 0.0)
                paths = {
                    "image_path": f"data/{case}.nii.gz",
                    "label_path": f"data/{case}_gt.nii.gz" if truth else "",
                }
                if volumes:
                    image = (
                        40 + 90 * np.isin(heart, (1, 3)) + 35 * (heart == 2) + rng.normal(0, 9, heart.shape)
                    )
                    save_volume(folder / paths["image_path"], image.astype(np.float32), view)
                    save_volume(folder / f"data/{case}_gt.nii.gz", heart, view)
                for segmenter in segmenters:
                    for stage in STAGES:
                        gain = {"segmenter": 0, "selection": 0.1, "control": 0.05, "refined": 0.35}[stage]
                        error = max(0.01, difficulty * (1 - gain) + rng.normal(0, 0.01))
                        lost = stage == "segmenter" and number == 0 and phase == "ES"
                        row = make_row(
                            segmenter=segmenter, view=view, stage=stage, subject=subject, phase=phase,
                            part=part, disease=DISEASES[number % 5], vendor=VENDORS[number % 3],
                            candidate="epoch 12",
                            ood=int(ood and (error > 0.35 or lost)),
                        )  # fmt: skip
                        if error > 0.3:
                            row |= {"flag": "suspicious", "reason": "pDC of the right ventricle is below 0.5"}
                        if lost:
                            row |= {"flag": "erroneous", "reason": "the right ventricle is absent"}
                        for key, scale in zip(STRUCTURES, (0.5, 0.8, 1.0), strict=True):
                            fill_measures(row, key, error * scale, truth, lost and key == "rv", phase, rng)
                        row |= {"image_path": paths["image_path"], "label_path": paths["label_path"]}
                        for name, worse in (("prediction", error), ("reconstruction", error / 3)):
                            row[f"{name}_path"] = f"{name}s/{stage}/{segmenter}/{case}.nii.gz"
                            if volumes and stage in ("segmenter", "refined"):
                                mask = draw_heart(SHAPES[view], phase == "ES", 0.99 if lost else worse)
                                save_volume(folder / row[f"{name}_path"], mask, view)
                        rows.append(row)
    write_cases(folder / "cases.csv", rows)
    results = summarise(rows, n_resamples=n_resamples) | run_record(rows, segmenters, views, ood)
    for segmenter in segmenters:
        for view in views:
            results["qc"][segmenter][view]["reconstruction_dice"] = {"lv": 0.91, "myo": 0.82, "rv": 0.87}
    (folder / "results.json").write_text(json.dumps(results, allow_nan=False))
    (folder / "config.json").write_text(json.dumps({"preset": "demo", "seed": 0, "epochs": 12}))
    write_curves(folder / "metrics.jsonl", segmenters, views, rng)
    return folder


def fill_measures(
    row: CaseRow, key: str, error: float, truth: bool, absent: bool, phase: str, rng: np.random.Generator
) -> None:
    """Pseudo and real measures that follow from one error between 0 and 1."""
    row[f"pdc_{key}"] = 0.0 if absent else float(np.clip(0.97 - error * 0.9 + rng.normal(0, 0.015), 0, 1))
    row[f"phd_{key}_mm"] = math.nan if absent else 4 + 45 * error + float(rng.gamma(2, 0.6))
    row[f"volume_{key}_ml"] = (140 if phase == "ED" else 70) * (1 - error / 2)
    if truth:
        row[f"truth_volume_{key}_ml"] = 140.0 if phase == "ED" else 65.0
        row[f"dc_{key}"] = 0.0 if absent else float(np.clip(0.95 - error, 0, 1))
        for name, scale in (("hd", 1.0), ("hd95", 0.7), ("assd", 0.2)):
            row[f"{name}_{key}_mm"] = (
                math.nan if absent else scale * (5 + 50 * error + float(rng.gamma(2, 0.8)))
            )


def run_record(
    rows: Sequence[CaseRow], segmenters: Sequence[str], views: Sequence[str], ood: bool
) -> dict[str, Any]:
    """What the experiment adds to the tables."""

    def names(segmenter: str, view: str, stage: str) -> list[str]:
        return [
            f"{row['subject']}_{view}_{row['phase']}"
            for row in rows
            if (row["segmenter"], row["view"], row["stage"]) == (segmenter, view, stage) and row["ood"]
        ]

    def chosen(segmenter: str, view: str, stage: str) -> list[dict[str, Any]]:
        own = [r for r in rows if (r["segmenter"], r["view"], r["stage"]) == (segmenter, view, stage)]
        epochs = (12,) if stage == "segmenter" else (12, 9, 11)
        return count_chosen([{"name": f"epoch {e}", "validation_loss": 0.2 + e / 99} for e in epochs], own)

    detection: dict[str, Any] = {
        segmenter: {
            view: {
                "thresholds": {phase: {"low": 0.72, "up_mm": 21.5} for phase in ("ED", "ES")},
                "cases_after_k": [names(segmenter, view, stage) for stage in STAGES] if ood else [[]],
                "looked_at": 18,
            }
            for view in views
        }
        for segmenter in segmenters
    }
    cohort = [
        {"part": part, "subjects": n, "diseases": {"NOR": n - 2, "HCM": 2}, "vendors": {"GE": n},
         "views": list(views), "with_truth": n}
        for part, n in (("train", 12), ("validation", 3), ("test", 6))
    ]  # fmt: skip
    return {
        "candidates": {
            segmenter: {view: {stage: chosen(segmenter, view, stage) for stage in STAGES} for view in views}
            for segmenter in segmenters
        },
        "ood": detection, "cohort": cohort, "preset": "demo", "seed": 0, "n_skipped": 1, "skipped": ["007"],
        "versions": {"qcjax": "0.1.0", "jax": "0.10.2"},
        "seconds": {"autoencoder": 31.2, "segmenter": {"SA": 210.4, "LA": 70.0}, "refined": 88.1},
    }  # fmt: skip


def write_curves(
    path: Path, segmenters: Sequence[str], views: Sequence[str], rng: np.random.Generator
) -> None:
    """Falling losses and rising Dice."""
    lines: list[dict[str, Any]] = []
    for view in views:
        for segmenter in segmenters:
            for stage, epochs in (("autoencoder", 30), ("segmenter", 25), ("control", 5), ("refined", 5)):
                for epoch in range(1, epochs + 1):
                    loss = 1.5 * math.exp(-epoch / 8) + 0.2 + float(rng.normal(0, 0.02))
                    line = {
                        "stage": stage, "segmenter": segmenter, "view": view, "epoch": epoch,
                        "train_loss": loss, "validation_loss": loss + 0.08, "seconds": 3.1,
                        "validation_dice_rv": None if stage == "autoencoder" else 0.9 - loss / 3,
                    }  # fmt: skip
                    lines.append(line | ({"k": epoch, "ood": 5 - epoch} if stage == "refined" else {}))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def draw_heart(shape: tuple[int, int, int], systole: bool, error: float) -> np.ndarray:
    """Ellipses for RV, MYO and LV; `error` shrinks and shifts the RV, and beyond 0.9 removes it."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    scale = (0.8 if systole else 1.0) * (1 - 0.08 * z)

    def ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
        return ((x - centre[0]) / (radii[0] * scale)) ** 2 + ((y - centre[1]) / (radii[1] * scale)) ** 2 <= 1

    labels = np.zeros(shape, np.uint8)
    if error < 0.9:
        labels[ellipse((22 - 8 * error, 28 + 14 * error), (11 * (1 - 0.6 * error), 13))] = 3
    labels[ellipse((36, 28), (11, 10))] = 2
    labels[ellipse((36, 28), (7.5, 6.5))] = 1
    return labels


def save_volume(path: Path, array: np.ndarray, view: str) -> None:
    """Write a volume with its spacing, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*SPACING_MM[view], 1.0])), path)


@pytest.fixture
def new_row() -> Callable[..., CaseRow]:
    return make_row


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: write_run(tmp_path / "run", **options)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def trained(make_arm):
    """(original) -> arm, R, checkpoints of M."""
    from qcjax.refinement.autoencoder import train_autoencoder
    from qcjax.train.segmenter import train_segmenter

    opened = []

    def trained(original=False):
        arm = make_arm(original=original)
        result = arm, train_autoencoder(arm), train_segmenter(arm)
        opened.append(result[2])
        return result

    yield trained
    for checkpoints in opened:
        checkpoints.close()
