"""A made-up run of the monitoring experiment: methods of different quality, and the files that its page reads."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from qcjax.monitoring.summary import summarise_monitoring
from qcjax.monitoring.table import COLUMNS, NUMBER_COLUMNS, MeasureRow, write_measures

KEYS = ("lv", "myo", "rv")
METHODS = ("unet wide", "unet narrow", "unet short", "acdc wide", "acdc short", "threshold")
FILE_LABELS = {"lv": 3, "myo": 2, "rv": 1}


def make_measure_row(**columns: Any) -> MeasureRow:
    """A row with every column: what is not given is undefined, unflagged or empty."""
    row: MeasureRow = {column: math.nan if column in NUMBER_COLUMNS else "" for column in COLUMNS}
    row |= {"method": "unet", "subject": "patient101", "phase": "ED", "structure": "lv", "n_rules": 0}
    row["distance_unit"] = "mm"
    return row | {"pdc": 0.9, "phd": 5.0} | columns


def make_rows(
    methods: Sequence[str] = METHODS,
    n_subjects: int = 8,
    truth: bool = True,
    n_rca_subjects: int = 4,
    structures: Sequence[str] = KEYS,
) -> list[MeasureRow]:
    """Rows whose pseudo measures follow the real ones; the last method fails often, and misses structures."""
    rng = np.random.default_rng(5)
    rows = []
    for subject in range(n_subjects):
        for phase in ("ED", "ES"):
            for rank, method in enumerate(methods):
                for key in structures:
                    error = float(np.clip(rng.gamma(1.4, 0.03 + 0.035 * rank), 0, 0.95))
                    absent = rng.random() < 0.015 * rank
                    dc = 0.0 if absent else float(np.clip(0.96 - error, 0.02, 1))
                    hd = math.nan if absent else 4 + 90 * error + float(rng.gamma(2, 1))
                    pdc = 0.0 if absent else float(np.clip(0.93 - 0.8 * error + rng.normal(0, 0.03), 0.02, 1))
                    phd = math.nan if absent else 3 + 60 * error + float(rng.gamma(2, 1))
                    bad = "erroneous" if absent else "suspicious" if pdc < 0.5 or phd > 50 else ""
                    rca = subject < n_rca_subjects
                    rows.append(
                        make_measure_row(
                            method=method,
                            subject=f"patient{101 + subject}",
                            phase=phase,
                            disease=("NOR", "DCM", "HCM", "MINF", "RV")[subject % 5],
                            structure=key,
                            dc=dc if truth else math.nan,
                            hd=hd if truth else math.nan,
                            pdc=pdc,
                            phd=phd,
                            flag=bad,
                            reason=f"the {key} is {'absent' if absent else 'suspect'}" if bad else "",
                            agreement=math.nan
                            if len(methods) < 2
                            else float(np.clip(0.9 - error + rng.normal(0, 0.06), 0, 1)),
                            n_rules=int(absent) + int(error > 0.25),
                            rules="in two pieces" if error > 0.25 else "",
                            rca_dc=float(np.clip(0.85 - 0.4 * error + rng.normal(0, 0.05), 0, 1))
                            if rca
                            else math.nan,
                            rca_hd=(12 + 40 * error + float(rng.gamma(2, 2))) if rca else math.nan,
                            suspicion=math.inf if absent else 8 * error,
                            doubt=math.inf
                            if absent
                            else float(np.clip(2 * error + rng.normal(0, 0.3), 0, 3)),
                        )
                    )
    return rows


def write_monitoring_run(
    folder: Path, extras: bool = True, volumes: bool = True, n_resamples: int = 100, **options: Any
) -> Path:
    """A run folder; with `extras` all that the experiment may add to the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows(**options)
    if volumes:
        for row in rows:
            _name_files(folder, row)
    write_measures(folder / "measures.csv", rows)
    results = summarise_monitoring(rows, seed=1, n_resamples=n_resamples) | {"preset": "demo"}
    if extras:
        lines = [
            {
                "stage": "autoencoder", "epoch": e, "train_loss": 2 * math.exp(-e / 15) + 0.2,
                "validation_loss": 2 * math.exp(-e / 15) + 0.25,
            }
            | {f"validation_dice_{key}": 0.8 * (1 - math.exp(-e / (9 + i))) for i, key in enumerate(KEYS)}
            for e in range(1, 61)
        ]  # fmt: skip
        results |= {
            "data": "phantoms in ACDC's layout",
            "split": "No test part: the training part was split by patient.",
            "n_skipped": 1,
            "skipped": ["patient042"],
            "monitor": {"epoch": 57, "reference_masks": 28},
            "reconstruction": [
                {"epoch": line["epoch"]} | {key: line[f"validation_dice_{key}"] for key in KEYS}
                for line in lines
            ],
            "seconds": {"train": 812.4, "per_case": 0.041, "rca_per_case": 38.2},
            "damage": {
                "lv_removed": {"auc": 1.0, "detection_2pct": 1.0, "n": 40},
                "shifted": {"auc": 0.55, "detection_2pct": 0.04, "n": 40, "auc_with_image": 0.99}
                | {"detection_2pct_with_image": 0.98},
                "eroded": {"auc": 0.71, "detection_2pct": 0.12, "n": 40},
            },
            "false_alarms_untouched": {"flagged": 0, "image": 1, "n": 40},
            "seed": 1,
            "versions": {"qcjax": "0.1.0", "jax": "0.10.2"},
        }
        (folder / "config.json").write_text(json.dumps({"preset": "demo", "epochs": 60}))
        segmenter = {"stage": "segmenter", "segmenter": "nnunet", "view": "SA", "epoch": 1, "train_loss": 2.2}
        (folder / "metrics.jsonl").write_text(json.dumps(segmenter) + "\n")
        (folder / "monitor").mkdir(exist_ok=True)
        (folder / "monitor" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "results.json").write_text(json.dumps(results, allow_nan=False))
    return folder


def _name_files(folder: Path, row: MeasureRow) -> None:
    """Paths of the row's image and masks, made where they aren't there yet."""
    case = f"{row['subject']}_{row['phase']}"
    method = row["method"].replace(" ", "_")
    heart = draw_heart(0.0)
    wanted = {
        "image_path": (f"data/{case}.nii.gz", None),
        "label_path": (f"data/{case}_gt.nii.gz", 0.0),
        "mask_path": (f"predictions/{method}/{case}.nii.gz", 1 - min(1.0, row["pdc"])),
        "reconstruction_path": (f"reconstructions/{method}/{case}.nii.gz", (1 - min(1.0, row["pdc"])) / 3),
    }
    for column, (name, error) in wanted.items():
        row[column] = name
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(2).normal(0, 9, heart.shape)
            array = (
                (40 + 90 * np.isin(heart, (1, 3)) + 35 * (heart == 2) + noise).astype(np.float32)
                if error is None
                else draw_heart(error)
            )
            nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2.4, 9.0, 1.0])), folder / name)


def draw_heart(error: float) -> np.ndarray:
    """ACDC's labels in ellipses; `error` moves the RV."""
    x, y, _ = np.meshgrid(np.arange(48), np.arange(44), np.arange(3), indexing="ij")
    labels = np.zeros(x.shape, np.uint8)
    labels[((x - 14 + 8 * error) / 8) ** 2 + ((y - 21 - 14 * error) / 10) ** 2 <= 1] = FILE_LABELS["rv"]
    labels[((x - 28) / 9) ** 2 + ((y - 21) / 8.5) ** 2 <= 1] = FILE_LABELS["myo"]
    labels[((x - 28) / 5.5) ** 2 + ((y - 21) / 5) ** 2 <= 1] = FILE_LABELS["lv"]
    return labels
