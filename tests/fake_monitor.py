"""A monitor without a network: it rebuilds what lies in the first `KEPT` rows of x, and nothing else."""

import csv
import json
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from qcjax import qc
from qcjax.inference.monitor import DESCRIPTION, WEIGHTS, Score, slice_dice
from qcjax.labels import Structure, structures_named
from qcjax.qc.suspicion import features
from qcjax.scoring.score import Outcome, ScoringRun

KEYS = ("lv", "myo", "rv")
KEPT = 30
SHAPE = (48, 40, 3)
SPACING_MM = (1.5, 1.5, 8.0)


@dataclass(frozen=True, eq=False)
class FakePrepared:
    stack: np.ndarray
    mask: np.ndarray
    spacing_mm: tuple[float, float, float]


class FakeMonitor:
    """Counts what it is given, so that tests see what is alive and in which groups it came."""

    def __init__(self, run: Path, keys: Sequence[str] = KEYS, delay: float = 0.0) -> None:
        run.mkdir(parents=True, exist_ok=True)
        (run / DESCRIPTION).write_text(json.dumps({"structures": list(keys)}))
        (run / WEIGHTS).write_bytes(b"weights")
        self.run, self.size, self.spacing_mm, self.delay = run, 48, 1.5, delay
        self.unit = "mm"
        self.orientation = None
        self.structures: tuple[Structure, ...] = structures_named(keys)
        self.labels = {key: i for i, key in enumerate(keys, start=1)}
        self.groups: list[int] = []
        self.threads: set[int] = set()
        self.prepared = self.alive = self.most_alive = 0
        self.poison: int | None = None  # a number of label voxels at which it fails
        self._lock = threading.Lock()

    def prepare(self, mask: np.ndarray, spacing_mm: Sequence[float]) -> FakePrepared:
        prepared = FakePrepared(mask.transpose(2, 1, 0), mask, tuple(spacing_mm))  # type: ignore[arg-type]
        with self._lock:
            self.prepared += 1
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(prepared, self._gone)
        return prepared

    def _gone(self) -> None:
        self.alive -= 1

    def reconstruct(self, prepared: Sequence[FakePrepared]) -> list[np.ndarray]:
        self.groups.append(len(prepared))
        self.threads.add(threading.get_ident())
        time.sleep(self.delay)
        if any((p.mask > 0).sum() == self.poison for p in prepared):
            raise RuntimeError("the device refuses")
        rebuilt = [p.stack.copy() for p in prepared]
        for stack in rebuilt:
            stack[:, :, KEPT:] = 0
        return rebuilt

    def score_all(self, masks: Sequence[np.ndarray], spacing_mm: Sequence[float]) -> list[Score]:
        prepared = [self.prepare(mask, spacing_mm) for mask in masks]
        return [self.assess(p, r) for p, r in zip(prepared, self.reconstruct(prepared), strict=True)]

    def assess(self, prepared: FakePrepared, rebuilt: np.ndarray) -> Score:
        spacing_mm = prepared.spacing_mm[::-1] if self.unit == "mm" else (1.0, 1.0, 1.0)
        pdc, phd = qc.pseudo_measures(prepared.stack, rebuilt, spacing_mm, self.structures)
        suspicion = float("inf") if np.isnan(phd).any() else float(2 * (1 - pdc.min()))
        flags = qc.flags(pdc, phd, self.structures, unit=self.unit)
        by_slice = slice_dice(prepared.stack, rebuilt, self.structures)
        return Score(
            structures=self.structures,
            pdc=pdc,
            phd=phd,
            slice_pdc=by_slice,
            flags=flags,
            measured=features(prepared.stack, rebuilt, spacing_mm, pdc, phd, self.structures),
            suspicion=suspicion,
            reconstruction=rebuilt.transpose(2, 1, 0),
            unit=self.unit,
        )


def draw_mask(rv_at: int = 18, rv: int = 3, lv: int = 1, myo: int = 2) -> np.ndarray:
    """A box in a box for LV and MYO, and 12 rows of RV from `rv_at`: sound to 18, doubted at 28, lost from 30."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:16, 10:24] = myo
    labels[7:13, 13:21] = lv
    labels[rv_at : rv_at + 12, 26:34] = rv
    return labels


def save_mask(path: Path, labels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write a volume with `SPACING_MM`, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(labels, np.diag([*SPACING_MM, 1.0]) if affine is None else affine)
    nibabel.save(image, path)
    return path


def score(monitor: FakeMonitor, masks: Path, out: Path, pictures: int = 0, **options: object) -> Outcome:
    """Open the folder and run; `options` are those of `ScoringRun.open`."""
    return ScoringRun.open(monitor, masks, out, **options).run(pictures)  # type: ignore[arg-type]


def rows_of(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of `scores.csv` by case and structure."""
    with (out / "scores.csv").open(newline="") as file:
        return {(row["case"], row["structure"]): row for row in csv.DictReader(file)}


def save_four(folder: Path) -> Path:
    """A sound mask, one to doubt, one in which a structure gets lost, and an empty one, in nested folders."""
    save_mask(folder / "p1_ED.nii.gz", draw_mask())
    save_mask(folder / "a" / "p2_ED.nii", draw_mask(28))
    save_mask(folder / "a" / "b" / "p3_ES.nii.gz", draw_mask(32))
    save_mask(folder / "p4_ED.nii.gz", np.zeros(SHAPE, np.uint8))
    return folder
