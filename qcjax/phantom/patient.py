"""Patients at random: how each disease of M&Ms-2 changes the shape of the heart and how it contracts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qcjax.data.subject import PHASES
from qcjax.phantom.heart import HeartShape, contract

Range = tuple[float, float]


@dataclass(frozen=True)
class Disease:
    """How a disease differs from a normal heart: factors on the shape, ranges of the ejection fractions."""

    lv_ef: Range = (0.56, 0.68)
    rv_ef: Range = (0.50, 0.62)
    factors: dict[str, Range] = field(default_factory=dict)  # field of HeartShape -> factor
    added_mm: dict[str, Range] = field(default_factory=dict)  # field of HeartShape -> mm


DISEASES = {
    "NOR": Disease(),
    "LV": Disease(
        lv_ef=(0.18, 0.36),
        rv_ef=(0.38, 0.55),
        factors={
            "lv_radius": (1.24, 1.42),
            "lv_apex": (1.04, 1.14),
            "wall": (0.78, 0.95),
            "septum": (0.75, 0.92),
            "rv_height": (1.08, 1.16),
        },
    ),
    "HCM": Disease(
        lv_ef=(0.62, 0.76),
        factors={"lv_radius": (0.84, 0.95), "wall": (1.15, 1.45), "papillary_radius": (1.15, 1.4)},
        added_mm={"septum": (4.5, 10.0)},
    ),
    "ARR": Disease(
        lv_ef=(0.46, 0.60),
        rv_ef=(0.34, 0.46),
        factors={"rv_width": (1.15, 1.35), "rv_height": (1.0, 1.1), "outflow_radius": (1.1, 1.3)},
    ),
    "FALL": Disease(
        rv_ef=(0.40, 0.52),
        factors={
            "rv_width": (1.25, 1.48),
            "rv_height": (1.0, 1.1),
            "rv_wall": (1.7, 2.4),
            "outflow_radius": (1.15, 1.4),
            "aorta_radius": (1.1, 1.3),
        },
        added_mm={"septal_flattening": (-0.12, -0.03)},
    ),
    "CIA": Disease(
        lv_ef=(0.55, 0.66),
        rv_ef=(0.46, 0.58),
        factors={
            "lv_radius": (0.88, 0.97),
            "rv_width": (1.15, 1.35),
            "rv_height": (1.02, 1.1),
            "ra_radius": (1.12, 1.3),
        },
        added_mm={"septal_defect": (5.0, 9.0), "septal_flattening": (-0.10, 0.0)},
    ),
    "RV": Disease(
        lv_ef=(0.45, 0.60),
        rv_ef=(0.20, 0.34),
        factors={
            "lv_radius": (0.82, 0.94),
            "rv_width": (1.45, 1.75),
            "rv_height": (1.12, 1.28),
            "rv_apex": (1.02, 1.08),
            "rv_wall": (1.3, 1.9),
            "ra_radius": (1.2, 1.4),
        },
        added_mm={"septal_flattening": (-0.36, -0.22)},
    ),
    "TRI": Disease(
        lv_ef=(0.48, 0.62),
        rv_ef=(0.34, 0.48),
        factors={
            "lv_radius": (0.86, 0.97),
            "rv_width": (1.28, 1.50),
            "rv_height": (1.08, 1.20),
            "ra_radius": (1.35, 1.65),
        },
        added_mm={"septal_flattening": (-0.24, -0.10)},
    ),
}


@dataclass(frozen=True)
class Patient:
    """A heart in both phases."""

    disease: str
    shapes: dict[str, HeartShape]  # phase -> shape
    lv_ef: float  # what the shape was contracted by
    rv_ef: float
    trabeculae: float  # 0 to 1


def sample_patient(
    disease: str, rng: np.random.Generator, diseases: Mapping[str, Disease] = DISEASES
) -> Patient:
    """A patient with this disease, one of `diseases`, at random.

    Raises:
      ValueError: an unknown disease.
    """
    if disease not in diseases:
        raise ValueError(f"disease {disease!r} found, expected one of {list(diseases)}")
    kind = diseases[disease]
    size = rng.normal(1, 0.045)
    radius = rng.normal(24.5, 1.4) * size
    wall = rng.normal(8.0, 0.8)
    values = {
        "lv_radius": radius,
        "lv_apex": rng.normal(86, 4) * size,
        "base": 0.0,
        "wall": wall,
        "septum": wall * rng.uniform(1.0, 1.15),
        "apical_wall": rng.uniform(0.45, 0.7),
        "septal_flattening": rng.uniform(0.93, 1.0),
        "rv_width": rng.normal(36, 2.0) * size,
        "rv_height": rng.normal(36, 1.8) * size,
        "rv_apex": 0.0,
        "rv_base": rng.normal(3, 2),
        "rv_wall": rng.uniform(2.2, 3.2),
        "outflow_radius": rng.normal(12.5, 0.9),
        "la_radius": rng.normal(23.5, 1.8) * size,
        "ra_radius": rng.normal(25, 1.8) * size,
        "aorta_radius": rng.normal(12.5, 1.0),
        "septal_defect": 0.0,
        "papillary_radius": rng.uniform(3.2, 4.4),
        "fat": rng.uniform(1.0, 5.0),
    }
    values["rv_apex"] = values["lv_apex"] * rng.uniform(0.86, 0.95)
    for name, bounds in kind.factors.items():
        values[name] *= rng.uniform(*bounds)
    for name, bounds in kind.added_mm.items():
        values[name] += rng.uniform(*bounds)
    diastole = HeartShape(**{name: float(value) for name, value in values.items()})
    lv_ef, rv_ef = float(rng.uniform(*kind.lv_ef)), float(rng.uniform(*kind.rv_ef))
    shapes = dict(zip(PHASES, (diastole, contract(diastole, lv_ef, rv_ef)), strict=True))
    return Patient(disease, shapes, lv_ef, rv_ef, float(rng.uniform(0.35, 1.0)))
