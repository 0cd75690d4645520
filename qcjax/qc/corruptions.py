"""Known damages of a true mask, to measure whether a monitor finds them.

Each is a pure function (mask, spacing_mm, rng) -> damaged mask: of the same shape, changed in at least one
voxel, the input left alone, the same again for a generator in the same state. Masks are (slices, h, w) with
0 background, 1 LV, 2 MYO, 3 RV; spacings (slices, h, w) in mm; left and right are the ends of w. Each raises
ValueError where it can't be done: the structure that it damages is absent, or it would change nothing.
"""

from collections.abc import Callable
from functools import wraps

import numpy as np
from jaxtyping import Float, Integer
from scipy import ndimage

from qcjax.labels import LV, MYO, RV
from qcjax.metrics.surface import Spacing, positive_spacing

SHIFT_MM = 20.0
BLOB_RADIUS_MM = 15.0
BLOB_DISTANCE_MM = 60.0  # from the blob's edge to the heart, in plane
GAP_DEG = 60.0
MARGIN_MM = 3.0  # by which the foreground is eroded or dilated

Mask = Integer[np.ndarray, "s h w"]
SpacingMm = Float[np.ndarray, "3"]
Damage = Callable[[np.ndarray, Spacing, np.random.Generator], np.ndarray]

DAMAGES: dict[str, Damage] = {}  # by name, in the order of this file


def _damage(function: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]) -> Damage:
    """Registers a damage, with its input checked and its effect made sure of."""
    key = function.__name__

    @wraps(function)
    def checked(mask: np.ndarray, spacing_mm: Spacing, rng: np.random.Generator) -> np.ndarray:
        if mask.ndim != 3 or not np.issubdtype(mask.dtype, np.integer):
            raise ValueError(
                f"{key}: a mask {mask.dtype} of shape {mask.shape} found, expected integers (slices, h, w)"
            )
        if not mask.any():
            raise ValueError(f"{key}: an empty mask found, expected one with a foreground")
        damaged = function(mask, positive_spacing(spacing_mm, 3), rng)
        if np.array_equal(damaged, mask):
            raise ValueError(f"{key}: it changes nothing in this mask")
        return damaged

    DAMAGES[key] = checked
    return checked


@_damage
def lv_removed(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """The left ventricle becomes background."""
    _needed("lv_removed", mask, LV.id)
    return np.where(mask == LV.id, 0, mask).astype(mask.dtype)


@_damage
def rv_removed_half(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """The right ventricle becomes background in half of the slices that have it, drawn at random.

    Of an odd number the larger half; of one slice it would be all, and that is refused.
    """
    has = _slices_with(mask == RV.id)
    if len(has) < 2:
        raise ValueError(f"rv_removed_half: {len(has)} slices with RV found, expected at least 2")
    damaged = mask.copy()
    lost = _half(has, rng)
    damaged[lost] = np.where(mask[lost] == RV.id, 0, mask[lost])
    return damaged


@_damage
def swapped(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """The labels of the left and the right ventricle change places."""
    _needed("swapped", mask, LV.id, RV.id)
    damaged = mask.copy()
    damaged[mask == LV.id] = RV.id
    damaged[mask == RV.id] = LV.id
    return damaged


@_damage
def shifted(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """The whole mask moves by 20 mm in a random direction in plane, to whole pixels; what leaves is lost."""
    return _moved(mask, _random_shift(spacing_mm, rng))


@_damage
def structure_shifted(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """The right ventricle alone moves by 20 mm in a random direction in plane, and covers what it lands on."""
    _needed("structure_shifted", mask, RV.id)
    landed = _moved(mask == RV.id, _random_shift(spacing_mm, rng))
    rest = np.where(mask == RV.id, 0, mask)
    return np.where(landed, RV.id, rest).astype(mask.dtype)


@_damage
def mirrored(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """Left and right of the image are exchanged, as where a file's orientation is lost."""
    return mask[:, :, ::-1].copy()


@_damage
def blob(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """A ball of 15 mm radius of a structure that is there, in the background far from the heart.

    In plane its edge is at least 60 mm from all foreground (of any slice); where no place in the image is so
    far away, it lies in the farthest place, such as a corner. Its centre is in a slice with foreground.
    """
    pixel_mm = spacing_mm[1:]
    empty: np.ndarray = np.all(mask == 0, axis=0)
    away = _distance_mm(empty, pixel_mm)
    inset = np.minimum(np.ceil(BLOB_RADIUS_MM / pixel_mm).astype(int), (np.array(away.shape) - 1) // 2)
    h, w = away.shape
    allowed = np.full(away.shape, -1.0)  # where the whole ball lies in the image
    inner = slice(inset[0], h - inset[0]), slice(inset[1], w - inset[1])
    allowed[inner] = away[inner]
    enough = min(BLOB_DISTANCE_MM + BLOB_RADIUS_MM + pixel_mm.max(), allowed.max())
    places = np.argwhere(allowed >= enough)
    row, column = places[rng.integers(len(places))]
    centre = np.array([rng.choice(_slices_with(mask > 0)), row, column])
    structure = rng.choice([i for i in (LV.id, MYO.id, RV.id) if (mask == i).any()])
    offsets = np.ogrid[tuple(slice(0, n) for n in mask.shape)]
    squared = sum(((o - c) * mm) ** 2 for o, c, mm in zip(offsets, centre, spacing_mm, strict=True))
    ball = np.asarray(squared <= BLOB_RADIUS_MM**2)
    return np.where(ball & (mask == 0), structure, mask).astype(mask.dtype)


@_damage
def myo_opened(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """A sector of 60 degrees of the myocardial ring becomes background in half of the slices that have it.

    Slices are drawn at random (of an odd number the larger half). The sector points the same way in all of
    them, from the centre of the left ventricle, or of the myocardium in a slice without it, in the direction
    of a random voxel of the myocardium.
    """
    _needed("myo_opened", mask, MYO.id)
    slices = _half(_slices_with(mask == MYO.id), rng)
    directions = []
    for i in slices:
        centre = _centre_mm(mask[i] == (LV.id if (mask[i] == LV.id).any() else MYO.id), spacing_mm[1:])
        y, x = (
            np.arange(n) * mm - c for n, mm, c in zip(mask.shape[1:], spacing_mm[1:], centre, strict=True)
        )
        directions.append(np.arctan2(y[:, None], x[None]))
    ring = directions[0][mask[slices[0]] == MYO.id]
    towards = ring[rng.integers(ring.size)]
    damaged = mask.copy()
    for i, direction in zip(slices, directions, strict=True):
        apart = np.abs((direction - towards + np.pi) % (2 * np.pi) - np.pi)
        damaged[i][(apart <= np.deg2rad(GAP_DEG / 2)) & (mask[i] == MYO.id)] = 0
    return damaged


@_damage
def slice_lost(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """One slice becomes background, drawn from the middle third (at least one) of those with foreground."""
    has = _slices_with(mask > 0)
    if len(has) < 3:
        raise ValueError(f"slice_lost: {len(has)} slices with foreground found, expected at least 3")
    outer = (len(has) + 1) // 3
    damaged = mask.copy()
    damaged[rng.choice(has[outer : len(has) - outer])] = 0
    return damaged


@_damage
def eroded(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """The foreground as a whole loses 3 mm of its edge in plane, to whole pixels."""
    depth = np.stack([_distance_mm(of_slice > 0, spacing_mm[1:]) for of_slice in mask])
    return np.where(depth > MARGIN_MM + _half_pixel_mm(spacing_mm), mask, 0).astype(mask.dtype)


@_damage
def dilated(mask: Mask, spacing_mm: SpacingMm, rng: np.random.Generator) -> Mask:
    """The foreground as a whole gains 3 mm at its edge in plane, to whole pixels, of the nearest structure."""
    damaged = mask.copy()
    for i in _slices_with(mask > 0):
        away, nearest = ndimage.distance_transform_edt(
            mask[i] == 0, sampling=spacing_mm[1:], return_indices=True
        )
        grown = mask[i][tuple(nearest)]
        damaged[i] = np.where(away <= MARGIN_MM + _half_pixel_mm(spacing_mm), grown, 0)
    return damaged


def _needed(key: str, mask: np.ndarray, *labels: int) -> None:
    absent = [s.key for s in (LV, MYO, RV) if s.id in labels and not (mask == s.id).any()]
    if absent:
        raise ValueError(f"{key}: a mask without {' and '.join(absent)} found, expected one that has it")


def _slices_with(inside: np.ndarray) -> np.ndarray:
    return np.flatnonzero(inside.any(axis=(1, 2)))


def _half(slices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(slices, (len(slices) + 1) // 2, replace=False))


def _distance_mm(inside: np.ndarray, pixel_mm: np.ndarray) -> np.ndarray:
    """From the centre of each pixel of a 2-D mask to that of the nearest one outside; what is outside has 0."""
    return np.asarray(ndimage.distance_transform_edt(inside, sampling=pixel_mm))


def _half_pixel_mm(spacing_mm: np.ndarray) -> float:
    """From the centre of a pixel to its edge, the mean of both axes."""
    return float(spacing_mm[1:].mean()) / 2


def _centre_mm(inside: np.ndarray, pixel_mm: np.ndarray) -> np.ndarray:
    return np.argwhere(inside).mean(axis=0) * pixel_mm


def _random_shift(spacing_mm: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    angle = rng.uniform(0, 2 * np.pi)
    down, right = np.rint(SHIFT_MM * np.array([np.sin(angle), np.cos(angle)]) / spacing_mm[1:]).astype(int)
    return int(down), int(right)


def _moved(array: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """An array (slices, h, w) moved in plane by whole pixels; zeros come in."""
    moved = np.zeros_like(array)
    source, target = [], []
    for n, by in zip(array.shape[1:], shift, strict=True):
        source.append(slice(max(0, -by), max(0, n - max(0, by))))
        target.append(slice(max(0, by), max(0, n - max(0, -by))))
    moved[:, target[0], target[1]] = array[:, source[0], source[1]]
    return moved
