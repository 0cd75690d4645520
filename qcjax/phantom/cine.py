"""A synthetic heart that beats: frames of one heartbeat with the curve of its volumes known."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from qcjax.phantom.cohort import scan_patient
from qcjax.phantom.heart import contract
from qcjax.phantom.patient import Patient
from qcjax.phantom.scanner import Scanner

SYSTOLE = 0.35  # of the heartbeat


@dataclass(frozen=True)
class PhantomCine:
    """A short-axis cine that starts at end-diastole, as one triggered by the R wave does."""

    image: np.ndarray  # (x, y, slices, frames) int16
    label: np.ndarray  # (x, y, slices, frames) uint8
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray  # (4, 4), voxel indices -> mm


def contraction(frames: int) -> Float[np.ndarray, " t"]:
    """How far the heart has contracted in each frame: 0 at end-diastole, the first, and 1 at end-systole."""
    t = np.arange(frames) / frames
    return np.where(
        t <= SYSTOLE,
        (1 - np.cos(np.pi * t / SYSTOLE)) / 2,
        (1 + np.cos(np.pi * (t - SYSTOLE) / (1 - SYSTOLE))) / 2,
    )


def scan_cine(
    patient: Patient, scanner: Scanner, rng: np.random.Generator, frames: int = 30, matrix_scale: float = 1.0
) -> PhantomCine:
    """A patient's heart over one heartbeat, in short-axis slices.

    Args:
      matrix_scale: factor on the pixels along each side; the field of view stays.
    """
    ed = patient.shapes["ED"]
    later = {
        str(t): contract(ed, patient.lv_ef * part, patient.rv_ef * part)
        for t, part in enumerate(contraction(frames)[1:], start=1)
    }
    beating = replace(patient, shapes={"ED": ed, **later})
    of = list(scan_patient(beating, scanner, rng, matrix_scale, views=("SA",)).values())
    image, label = (np.stack(parts, -1) for parts in ([p.image for p in of], [p.label for p in of]))
    return PhantomCine(image, label, of[0].spacing_mm, of[0].affine)
