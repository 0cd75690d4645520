"""A made-up run of the uncertainty experiment: cases of different difficulty, and the files that its page reads."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from qcjax.report.columns import Row
from qcjax.uncertainty.summary import summarise_uncertainty
from qcjax.uncertainty.table import COLUMNS, PATH_COLUMNS, write_cases

ARMS = ("baseline", "control", "proposed")
STRUCTURES = ("myocardium", "infarction", "no_reflow")
POSITIONS = ("all", "apical", "mid", "basal")
EASE = {"myocardium": 0.88, "infarction": 0.7, "no_reflow": 0.75}
GAIN = {"baseline": 0.0, "control": 0.005, "proposed": 0.04}
SHAPE = (44, 40, 6)


def make_case_row(**columns: Any) -> Row:
    """A row with every column: what is not given is undefined or empty."""
    texts = ("arm", "subject", "group", "prediction", "position", "structure", *PATH_COLUMNS)
    row: Row = {column: "" if column in texts else math.nan for column in COLUMNS}
    row |= {"arm": "baseline", "fold": 0, "subject": "Case_P001", "group": "pathological"}
    row |= {"prediction": "deterministic", "position": "all", "structure": "infarction"}
    return row | columns


def make_rows(
    arms: Sequence[str] = ARMS,
    n_normal: int = 3,
    n_pathological: int = 6,
    structures: Sequence[str] = STRUCTURES,
    truth: bool = True,
    autoencoder: bool = True,
) -> list[Row]:
    """Rows in which certainty follows the real Dice; apical slices are the hardest, the last arm is the best."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(n_normal + n_pathological):
        normal = number < n_normal
        subject = f"Case_{'N' if normal else 'P'}{number:03d}"
        hard = float(rng.gamma(2.0, 0.06))
        for arm in arms:
            whole = _whole(rng, hard, arm)
            for prediction in ("deterministic", "mean"):
                for position in POSITIONS:
                    for key in structures:
                        scores = _scores(rng, key, position, hard, arm, normal)
                        if not truth:
                            scores |= dict.fromkeys(("dc", "hd_mm", "brier", "true_volume_ml"), math.nan)
                        if not autoencoder or position != "all" or prediction == "mean":
                            scores |= {"pdc": math.nan, "phd_mm": math.nan}
                        rows.append(
                            make_case_row(
                                arm=arm,
                                fold=number % 3,
                                subject=subject,
                                group="normal" if normal else "pathological",
                                prediction=prediction,
                                position=position,
                                structure=key,
                                **scores,
                                **whole,
                            )
                        )
    return rows


def _whole(rng: np.random.Generator, hard: float, arm: str) -> dict[str, float]:
    variance = 0.001 * (1 + 6 * hard) * (0.5 if arm == "proposed" else 1) * float(rng.uniform(0.9, 1.1))
    return {
        "variance": variance,
        "variance_foreground": 6 * variance,
        "variance_interior": 2 * variance,
        "entropy": 12 * variance,
        "expected_entropy": 10 * variance,
        "mutual_information": 2 * variance,
        "ece": 0.01 + 0.05 * hard,
    }


def _scores(
    rng: np.random.Generator, key: str, position: str, hard: float, arm: str, normal: bool
) -> dict[str, float]:
    harder = {"apical": 1.6, "basal": 1.2}.get(position, 1.0)
    dc = (
        EASE[key] + GAIN[arm] - harder * hard * (1 if key == "myocardium" else 3) + float(rng.normal(0, 0.02))
    )
    dc = min(max(dc, 0.05), 0.97)
    true_ml = {
        "myocardium": 110.0,
        "infarction": 0.0 if normal else 25.0,
        "no_reflow": 0.0 if normal or hard < 0.1 else 4.0,
    }[key]
    ml = true_ml * (1.4 - 0.4 * dc)
    if true_ml == 0:
        false = key == "infarction" and rng.random() < 0.4
        dc, ml = (0.0, 1.7) if false else (1.0, 0.0)
    certainty = min(1.0, 0.7 + 0.3 * dc + float(rng.normal(0, 0.01)))
    return {
        "dc": dc,
        "hd_mm": math.nan if dc == 0 else 0.0 if dc == 1 else 5 + 25 * (1 - dc),
        "volume_ml": ml,
        "true_volume_ml": true_ml,
        "volume_error_ml": abs(ml - true_ml),
        "volume_error_percent": math.nan if key == "myocardium" else abs(ml - true_ml) / 1.1,
        "brier": 0.06 * (1.2 - dc),
        "brier_volume": 0.006 * (1.2 - dc),
        "dice_within_samples": certainty,
        "pairwise_dice": certainty - 0.01,
        "pdc": math.nan if dc == 0 else 0.4 + 0.5 * dc,
        "phd_mm": math.nan if dc == 0 else 20 - 15 * dc,
    }


def write_uncertainty_run(
    folder: Path, extras: bool = True, volumes: bool = True, n_resamples: int = 100, **options: Any
) -> Path:
    """A run folder; with `extras` all that the experiment may add to the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows(**options)
    if volumes:
        name_files(folder, rows)
    write_cases(folder / "cases.csv", rows)
    results: dict[str, Any] = {"preset": "demo", "tables": summarise_uncertainty(rows, 1, n_resamples)}
    if extras:
        results |= {
            "data": "LGE phantoms in EMIDEC's layout",
            "seed": 1,
            "folds": 3,
            "arms": list(ARMS),
            "samples": 5,
            "alpha": 3.0,
            "mc_samples": 10,
            "seconds": {"prepare": 3.2, "train": {arm: 130.0 for arm in ARMS}, "predict_per_case": 0.8},
            "n_skipped": 1,
            "skipped": ["Case_P099: no contours"],
            "versions": {"qcjax": "0.1.0", "jax": "0.10.2"},
            "reliability": {arm: {key: _reliability(arm) for key in STRUCTURES} for arm in ARMS},
        }
        (folder / "config.json").write_text(json.dumps({"preset": "demo", "alpha": 3.0}))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _lines()))
    (folder / "results.json").write_text(json.dumps(results, allow_nan=False))
    return folder


def _reliability(arm: str) -> dict[str, list[Any]]:
    confidence = [(i + 0.5) / 10 for i in range(10)]
    bend = {"baseline": 1.6, "control": 1.45, "proposed": 1.2}[arm]
    return {
        "confidence": [*confidence, None],
        "frequency": [*(c**bend for c in confidence), None],
        "count": [*(int(20000 * (abs(c - 0.5) ** 2 + 0.01)) for c in confidence), 0],
    }


def _lines() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "stage": "segmenter", "arm": arm, "fold": fold, "epoch": epoch, "seconds": 1.0,
            "train_loss": 1.4 * math.exp(-epoch / 8) + 0.3 - GAIN[arm],
            "validation_loss": 1.4 * math.exp(-epoch / 8) + 0.4 + float(rng.normal(0, 0.02)),
            **{f"validation_dice_{key}": EASE[key] * (1 - math.exp(-epoch / 6)) + float(rng.normal(0, 0.02))
               for key in STRUCTURES[:2]},
        }
        for arm in ARMS
        for fold in range(3)
        for epoch in range(1, 25)
    ]  # fmt: skip


def name_files(folder: Path, rows: Sequence[Row]) -> None:
    """Paths of the rows' image, label, masks and maps, made where they aren't there yet."""
    for row in rows:
        subject, arm = row["subject"], row["arm"]
        error = 0.02 if arm == "proposed" else 0.08
        pathological = row["group"] == "pathological"
        wanted = {
            "image_path": f"data/{subject}.nii.gz",
            "label_path": f"data/{subject}_gt.nii.gz",
            "mask_path": f"predictions/{arm}/{subject}.nii.gz",
            "variance_path": f"variance/{arm}/{subject}.nii.gz",
        }
        for column, name in wanted.items():
            row[column] = name
            if not (folder / name).exists():
                array = {
                    "image_path": lambda p=pathological: draw_image(draw_heart(0.0, p)),
                    "label_path": lambda p=pathological: draw_heart(0.0, p),
                    "mask_path": lambda p=pathological, e=error: draw_heart(e, p),
                    "variance_path": lambda p=pathological, e=error: draw_variance(e, p),
                }[column]()
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                nibabel.save(nibabel.Nifti1Image(array, np.diag([1.5, 1.5, 10.0, 1.0])), folder / name)


def draw_heart(error: float, pathological: bool) -> np.ndarray:
    """EMIDEC's labels as rings that taper to the apex at slice 0; `error` moves and shrinks the infarction."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    radius = np.hypot(x - 22, y - 20)
    outer = 8.5 + z * 1.1
    angle = np.arctan2(y - 20, x - 22)
    wall = (radius <= outer) & (z < SHAPE[2])
    labels = np.zeros(SHAPE, np.uint8)
    labels[wall] = 2
    labels[radius <= outer - 5] = 1
    if pathological:
        scar = (labels == 2) & (np.abs(angle - 0.5 - 3 * error) < 0.9 - 3 * error) & (radius < outer - 1)
        labels[scar] = 3
        labels[scar & (np.abs(angle - 0.5) < 0.3) & (radius > outer - 4) & (radius < outer - 2)] = 4
    return labels


def draw_image(labels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(2).normal(0, 12, labels.shape)
    return (np.array([60.0, 150, 40, 190, 70])[labels] + noise).astype(np.float32)


def draw_variance(error: float, pathological: bool) -> np.ndarray:
    """Large where a mask of such an error is wrong."""
    wrong = draw_heart(error, pathological) != draw_heart(0.0, pathological)
    edge = np.abs(np.diff(draw_heart(error, pathological).astype(int), axis=0, prepend=0)) > 0
    return (0.01 * edge + 0.6 * error * wrong).astype(np.float32)
