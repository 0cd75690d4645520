"""A segmentation without learning: thresholds and region growing from the image's middle, for short-axis cine.

It knows three things: that blood is bright and muscle darker, that the left ventricle is the round bright thing
near the middle with dark muscle all around, and that the right ventricle is the bright thing beside that ring. Good
enough to be compared with, far from good.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from qcjax.data.subject import Volume
from qcjax.labels import LV, MYO, RV

_WINDOW_MM = 75.0  # half the side of the square in the middle that is looked at
_THRESHOLD_RADIUS_MM = 50.0  # of the disc whose histogram gives the thresholds
_BLUR_MM = 1.0
_BINS = 96
_LV_AREA_MM2 = (150.0, 6000.0)  # in a slice in the middle
_RV_AREA_MM2 = (150.0, 7000.0)
_LEAST_AREA_MM2 = 60.0  # where a slice above or below ends the growth
_NEAR_MIDDLE_MM = 35.0
_GROWTH_MM = 4.0  # how far a structure may reach beyond itself in the slice beside
_RING_MM = (1.5, 6.0)  # where the left ventricle must have muscle around it
_SURE_WALL_MM = 3.0
_WALL_MM = 11.0
_SEPTUM_MM = 15.0  # the right ventricle begins within this distance of the left one's cavity
_FAR_BLOOD = 0.35  # the right ventricle is darker: part of the way from muscle to the left one's blood
_RV_REACH_MM = (65.0, 50.0, 40.0, 30.0)  # from the left one's cavity

Mask = Bool[np.ndarray, "x y"]


class _Cavity(NamedTuple):
    score: float  # 0: nothing found
    slice: int
    cavity: Mask


def segment(image: Volume) -> UInt8[np.ndarray, "x y slices"]:
    """Labels (x, y, slices), uint8, of a short-axis cine frame; all background where nothing looks like a heart.

    Thresholds for three classes (Otsu, IEEE Trans. SMC 9(1), 1979) split a disc in the middle into air, muscle
    and blood. The roundest bright component near the middle of the middle slices, dark all around, is the left
    ventricle; its blood and the muscle around it give the thresholds for the rest. It grows slice by slice,
    upward and downward. The wall is what is dark within 11 mm around it. The right ventricle is the bright
    component with the most contact to the wall.
    """
    labels = np.zeros(image.array.shape, np.uint8)
    if image.array.ndim != 3 or not image.array.size:
        return labels
    spacing = np.array(image.spacing_mm[:2], float)
    half = np.ceil(_WINDOW_MM / spacing).astype(int)
    middle = np.array(image.array.shape[:2]) // 2
    window = tuple(slice(max(int(m - h), 0), int(m + h) + 1) for m, h in zip(middle, half, strict=True))
    stack = np.nan_to_num(image.array[window].astype(np.float32), posinf=0.0, neginf=0.0)
    stack = ndimage.gaussian_filter(stack, (*(_BLUR_MM / spacing), 0))
    thresholds = _thresholds(stack, spacing)
    if thresholds is None:
        return labels
    start = max(
        (_find_lv(stack > threshold, spacing) for threshold in thresholds), key=lambda found: found.score
    )
    if not start.score:
        return labels
    first = start.slice
    muscle_level, blood_level = _levels(stack[..., first], start.cavity, spacing)
    muscle = stack > (float(np.percentile(stack, 1)) + muscle_level) / 2
    blood = stack > (muscle_level + blood_level) / 2
    cavity = _touching(blood[..., first] & (_away(start.cavity, spacing) <= _GROWTH_MM), start.cavity)
    lv = _grow(blood, first, cavity, spacing)
    inside = labels[window]
    away = np.full(stack.shape, np.inf)
    for k in np.flatnonzero(lv.any(axis=(0, 1))):
        away[..., k] = _away(lv[..., k], spacing)
        inside[..., k][_wall(away[..., k], blood[..., k], muscle[..., k])] = MYO.id
    inside[lv] = LV.id
    far_blood = stack > muscle_level + _FAR_BLOOD * (blood_level - muscle_level)
    free = far_blood & (inside == 0) & (away <= max(_RV_REACH_MM))
    right = _find_rv(free[..., first], away[..., first], spacing)
    if right is not None:
        rv = _grow(free, first, right, spacing)
        inside[rv & (inside == 0)] = RV.id
    return labels


def _thresholds(stack: Float[np.ndarray, "x y slices"], spacing: np.ndarray) -> tuple[float, float] | None:
    """Air | muscle | blood by Otsu's criterion in a disc in the middle; None where all intensities are alike."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(stack.shape[:2], spacing, strict=True)]
    values = stack[np.hypot(axes[0][:, None], axes[1][None]) <= _THRESHOLD_RADIUS_MM]
    low, high = (float(v) for v in np.percentile(values, (1, 99)))
    if not high > low:
        return None
    counts, edges = np.histogram(np.clip(values, low, high), _BINS, (low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    n = np.concatenate([[0], np.cumsum(counts)]).astype(float)
    total = np.concatenate([[0], np.cumsum(counts * centres)])

    def between(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """What a class of the bins i … j - 1 adds to the variance between classes."""
        return (total[j] - total[i]) ** 2 / np.maximum(n[j] - n[i], 1)

    i, j = np.triu_indices(_BINS, 1)
    i, j = i[i > 0], j[i > 0]
    best = int(np.argmax(between(np.zeros_like(i), i) + between(i, j) + between(j, np.full_like(j, _BINS))))
    return float(edges[i[best]]), float(edges[j[best]])


def _find_lv(blood: np.ndarray, spacing: np.ndarray) -> _Cavity:
    """The component in a slice of the middle third that looks most like a left ventricle."""
    n_slices = blood.shape[2]
    best = _Cavity(0.0, 0, np.zeros(blood.shape[:2], bool))
    for k in range(n_slices // 3, max(n_slices - n_slices // 3, n_slices // 3 + 1)):
        # one pixel less all around parts cavities that touch
        components, n = ndimage.label(ndimage.binary_erosion(blood[..., k]))
        for number in range(1, n + 1):
            core = components == number
            if not _within(core, (_LV_AREA_MM2[0] / 2, _LV_AREA_MM2[1]), spacing):
                continue
            component = ndimage.binary_dilation(core)
            ring = _ring(component, spacing)
            dark = float((~blood[..., k])[ring].mean()) if ring.any() else 0.0
            score = _roundness(component, spacing) * dark**2
            if score > best.score:
                best = _Cavity(score, k, ndimage.binary_fill_holes(component))
    return best


def _levels(image: np.ndarray, cavity: Mask, spacing: np.ndarray) -> tuple[float, float]:
    """Intensity of muscle and of blood: medians around and in the cavity."""
    ring = _ring(cavity, spacing)
    return float(np.median(image[ring])) if ring.any() else 0.0, float(np.median(image[cavity]))


def _within(mask: Mask, limits_mm2: tuple[float, float], spacing: np.ndarray) -> bool:
    area_mm2 = np.count_nonzero(mask) * float(spacing.prod())
    return bool(limits_mm2[0] <= area_mm2 <= limits_mm2[1])


def _roundness(mask: Mask, spacing: np.ndarray) -> float:
    """1 for a disc in the middle of the window; less for what is stretched, ragged, or far from there."""
    points = np.argwhere(mask) * spacing
    spread = np.linalg.eigvalsh(np.cov(points, rowvar=False) + 1e-6 * np.eye(2))
    area = len(points) * float(spacing.prod())
    ellipse = 4 * np.pi * np.sqrt(spread.prod())  # the area of the ellipse of these second moments
    off = np.linalg.norm(points.mean(0) - (np.array(mask.shape) - 1) / 2 * spacing)
    compact = min(area / ellipse, 1.0) ** 2
    return float(np.sqrt(spread[0] / spread[1]) * compact * np.exp(-((off / _NEAR_MIDDLE_MM) ** 2)))


def _away(mask: Mask, spacing: np.ndarray) -> np.ndarray:
    """Distance (mm) from a mask, 0 in it."""
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing))


def _ring(mask: Mask, spacing: np.ndarray) -> Mask:
    away = _away(mask, spacing)
    return (away > _RING_MM[0]) & (away <= _RING_MM[1])


def _touching(bright: Mask, seed: Mask) -> Mask:
    """The component of `bright` that shares the most with `seed`, its holes filled; empty where none does."""
    components, _ = ndimage.label(bright)
    shared = np.bincount(components[seed], minlength=2)
    shared[0] = 0
    if not shared.any():
        return np.zeros_like(seed)
    return np.asarray(ndimage.binary_fill_holes(components == int(shared.argmax())))


def _grow(bright: np.ndarray, first: int, start: Mask, spacing: np.ndarray) -> np.ndarray:
    """A component followed from one slice to the next, both ways, never far beyond itself."""
    grown = np.zeros(bright.shape, bool)
    grown[..., first] = start
    for steps in (range(first + 1, bright.shape[2]), range(first - 1, -1, -1)):
        before = start
        for k in steps:
            here = _touching(bright[..., k] & (_away(before, spacing) <= _GROWTH_MM), before)
            if np.count_nonzero(here) * float(spacing.prod()) < _LEAST_AREA_MM2:
                break
            grown[..., k] = before = here
    return grown


def _wall(away_mm: np.ndarray, blood: Mask, muscle: Mask) -> Mask:
    """The ring around the cavity: all of it close by, farther out what is dark but not air."""
    near = (away_mm > 0) & (away_mm <= _WALL_MM) & muscle & ~blood
    ring = ndimage.binary_opening(near | ((away_mm > 0) & (away_mm <= _SURE_WALL_MM)) | (away_mm == 0))
    components, _ = ndimage.label(ring)
    touching = np.unique(components[away_mm == 0])
    return np.isin(components, touching[touching > 0]) & (away_mm > 0)


def _find_rv(free: Mask, away_mm: np.ndarray, spacing: np.ndarray) -> Mask | None:
    """The bright component with the most contact to the septum; cut off farther in where it runs into fat."""
    opened = ndimage.binary_opening(free)
    for reach_mm in _RV_REACH_MM:
        components, n = ndimage.label(opened & (away_mm <= reach_mm))
        contact = np.bincount(components[away_mm <= _SEPTUM_MM], minlength=n + 1)
        contact[0] = 0
        component = components == int(contact.argmax())
        if contact.any() and _within(component, _RV_AREA_MM2, spacing):
            return component
    return None
