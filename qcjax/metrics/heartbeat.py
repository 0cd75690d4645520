"""What end-diastole and end-systole say together: stroke volume, ejection fraction, mass, and how far models agree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from qcjax.metrics.clinical import ejection_fraction, myocardial_mass_g

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and where a further model's would lie with a probability of 0.95; NaN where nothing is known."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Ventricle:
    """A ventricle over one heartbeat; NaN where a phase lacks it."""

    edv_ml: Interval
    esv_ml: Interval
    ejection_fraction: Interval  # in %
    stroke_volume_ml: float
    mass_g: float  # of its wall at end-diastole; NaN where the wall isn't segmented


def model_interval(value: float, of_models: Sequence[float], least: float = -math.inf) -> Interval:
    """A value with the interval for one further model like those that made it: value ± t s √(1 + 1/K).

    It tells how far K models agree, not how far they err together.

    Args:
      value: of all models together.
      of_models: each model's own; of fewer than two, or where one has none (NaN), nothing is known.
      least: what the value can't be below.
    """
    k, found = len(of_models), np.asarray(of_models, float)
    if k < 2 or not (np.isfinite(found).all() and math.isfinite(value)):
        return Interval(value)
    half = float(stats.t.ppf((1 + LEVEL) / 2, k - 1) * found.std(ddof=1) * math.sqrt(1 + 1 / k))
    return Interval(value, max(value - half, least), value + half)


def ventricle(
    edv_ml: float,
    esv_ml: float,
    wall_ml: float = math.nan,
    edv_of_models: Sequence[float] = (),
    esv_of_models: Sequence[float] = (),
) -> Ventricle:
    """Volumes, ejection fraction and mass of a ventricle; NaN where a phase lacks it, whose volume is 0 then.

    Args:
      edv_ml, esv_ml: at end-diastole and end-systole.
      wall_ml: of its myocardium at end-diastole.
      edv_of_models, esv_of_models: by each model, in the same order.

    Raises:
      ValueError: a negative volume.
    """
    edv, esv, wall = (v if v else math.nan for v in (edv_ml, esv_ml, wall_ml))
    fractions = [
        ejection_fraction(a, b) if a and b else math.nan
        for a, b in zip(edv_of_models, esv_of_models, strict=True)
    ]
    fraction = ejection_fraction(edv, esv) if not math.isnan(edv + esv) else math.nan
    return Ventricle(
        model_interval(edv, edv_of_models, 0.0),
        model_interval(esv, esv_of_models, 0.0),
        model_interval(fraction, fractions),
        edv - esv,
        math.nan if math.isnan(wall) else myocardial_mass_g(wall),
    )
