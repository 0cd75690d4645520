"""Rules of anatomy that a short-axis mask must obey: quality control without a network, without truth.

The limits were chosen so that few untouched masks break a rule: on the ground truth, ED and ES, of every other
one of the 100 training subjects of ACDC, where 6 of 100 masks break one (pieces 3, area_jump 2, position_jump
1). Of the 100 masks of the other half 6 do (pieces 5, area_jump 1). Rules know nothing of where the heart must
be or how large it is: a mask that is moved, mirrored or a little too large as a whole passes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage

from qcjax.labels import CARDIAC, LV, MYO, Structure
from qcjax.metrics.surface import Spacing, positive_spacing

RULES = {  # key -> what is wrong, for people
    "missing": "a structure is missing",
    "pieces": "a structure is in pieces",
    "holes": "a structure has holes",
    "gap": "a structure is missing in a slice between two that have it",
    "area_jump": "a structure's area jumps between neighbouring slices",
    "position_jump": "a structure moves far between neighbouring slices",
    "ring_open": "the myocardium doesn't enclose the left ventricle",
    "detached": "a ventricle doesn't lie beside the myocardium",
}

# what the limits are held against: untouched masks, as above
PIECE_ML = 2.0  # a smaller piece doesn't count; at the base, crescents of MYO lie apart, of up to 7.5 ml
HOLE_MM2 = 20.0  # a smaller hole doesn't count; there are none
AREA_MM2 = 400.0  # slices with less are near apex or base: they may change, and move, as they like
AREA_RATIO = 3.5  # between neighbouring slices; in 98 % of the masks it stays below
MOVE_MM = 30.0  # of the centroid between neighbouring slices; in 99 % of the masks it stays below
OPEN_SHARE = 0.05  # of the LV's border, between its first and its last slice; the ring is closed in all
BESIDE_SHARE = {"lv": 0.5, "rv": 0.1}  # of a ventricle's border; the least are 0.99 and 0.20

_EVERY_NEIGHBOUR = np.ones((3, 3, 3), bool)  # slices lie so far apart that only diagonals may connect them
_IN_PLANE = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]


class Broken(NamedTuple):
    """A rule that a mask breaks."""

    structure: str  # key
    rule: str  # key in `RULES`
    reason: str  # for people; slices count from 1


class _Stack(NamedTuple):
    """A mask, cropped in plane with a margin of background, and its geometry."""

    mask: np.ndarray  # (slices, h, w)
    spacing: np.ndarray  # (3,) mm

    @property
    def pixel_mm2(self) -> float:
        return float(self.spacing[1] * self.spacing[2])

    @property
    def voxel_ml(self) -> float:
        return float(self.spacing.prod()) / 1000


def broken_rules(
    mask: Integer[np.ndarray, "slices h w"],
    spacing_mm: Spacing,
    structures: Sequence[Structure] = CARDIAC,
) -> list[Broken]:
    """The rules of anatomy that a short-axis mask breaks, each at most once for each structure.

    For every structure: it is there; in one piece (3-D, diagonals connect; pieces below `PIECE_ML` don't
    count); without background inside, slice by slice (from `HOLE_MM2`); in every slice between its first and
    its last; between neighbouring slices, where both areas reach `AREA_MM2`, area by a factor of at most
    `AREA_RATIO`, and centroid by at most `MOVE_MM`.

    For those whose keys are lv, myo and rv in addition: none inside another, but for the LV in the
    myocardium; the LV's border lies on something else than myocardium for at most `OPEN_SHARE` in every slice
    but the first and the last that have it; and of each ventricle's border over all slices at least
    `BESIDE_SHARE` lies on the myocardium.

    Args:
      mask: (slices, h, w) label map.
      spacing_mm: (slices, h, w).
      structures: those to judge.

    Returns:
      The broken rules in the order of the structures; none for a mask that could be a heart.

    Raises:
      ValueError: not three axes, values that are not integers, or an unfitting spacing.
    """
    if mask.ndim != 3 or not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"mask: {mask.dtype} of shape {mask.shape} found, expected integers (slices, h, w)")
    spacing = positive_spacing(spacing_mm, 3)
    stack = _Stack(_cropped(mask), spacing)
    members = {s.key: stack.mask == s.id for s in structures}
    present = {s.key: s for s in structures if members[s.key].any()}
    lumen = _filled(members[LV.key]) if LV.key in present else None
    broken = []
    for structure in structures:
        key, name = structure.key, structure.name
        if key not in present:
            broken.append(Broken(key, "missing", f"{name}: is missing"))
            continue
        inside = members[key]
        reasons = {
            "pieces": _pieces(inside, stack),
            "holes": _holes(structure, inside, lumen, present, stack),
            **_from_slice_to_slice(inside, stack),
        }
        if MYO.key in present:
            myocardium = members[MYO.key]
            if key == LV.key and lumen is not None:
                reasons["ring_open"] = _open_ring(lumen, myocardium, stack)
            if key in BESIDE_SHARE:
                reasons["detached"] = _detached(inside, myocardium, BESIDE_SHARE[key], stack)
        broken += [Broken(key, rule, f"{name}: {reason}") for rule, reason in reasons.items() if reason]
    return broken


def _cropped(mask: np.ndarray) -> np.ndarray:
    """The box in plane that holds the foreground, with a margin of one pixel of background."""
    occupied: np.ndarray = np.any(mask, axis=0)
    box: list[slice] = []
    for axis in (1, 0):
        indices = np.flatnonzero(occupied.any(axis=axis))
        box.append(slice(indices[0], indices[-1] + 1) if indices.size else slice(0, 0))
    return np.pad(mask[:, box[0], box[1]], ((0, 0), (1, 1), (1, 1)))


def _filled(inside: Bool[np.ndarray, "slices h w"]) -> Bool[np.ndarray, "slices h w"]:
    """A structure with what it encloses in plane; (0, 0) of every slice must lie outside."""
    around, _ = ndimage.label(~inside, _IN_PLANE)
    return around != around[:, :1, :1]


def _pieces(inside: np.ndarray, stack: _Stack) -> str:
    pieces, _ = ndimage.label(inside, _EVERY_NEIGHBOUR)
    ml = np.sort(np.bincount(pieces.ravel())[1:])[::-1] * stack.voxel_ml
    ml = ml[ml >= PIECE_ML]
    if ml.size < 2:
        return ""
    return f"is in {ml.size} pieces, of {', '.join(f'{volume:.1f}' for volume in ml)} ml"


def _holes(
    structure: Structure,
    inside: np.ndarray,
    lumen: np.ndarray | None,
    present: dict[str, Structure],
    stack: _Stack,
) -> str:
    enclosed = _filled(inside) & ~inside
    if structure.key == MYO.key and lumen is not None:
        enclosed &= ~lumen
    if not enclosed.any():
        return ""
    cardiac = {s.key for s in CARDIAC}
    for other in present.values():
        if structure.key not in cardiac or other.key not in cardiac:  # such as a scar in the myocardium
            enclosed &= stack.mask != other.id
    holes, _ = ndimage.label(enclosed, _IN_PLANE)
    areas = np.bincount(holes.ravel())[1:] * stack.pixel_mm2
    count = int((areas >= HOLE_MM2).sum())
    if not count:
        return ""
    largest = int(areas.argmax())
    i = int(np.flatnonzero((holes == 1 + largest).any(axis=(1, 2)))[0])
    what = "a hole" if count == 1 else f"{count} holes, the largest"
    return f"has {what} of {areas[largest]:.0f} mm², in {_slice(i, stack)}"


def _from_slice_to_slice(inside: np.ndarray, stack: _Stack) -> dict[str, str]:
    reasons = {}
    areas = np.count_nonzero(inside, axis=(1, 2)) * stack.pixel_mm2
    has = np.flatnonzero(areas)
    gap = [i for i in range(has[0], has[-1]) if not areas[i]]
    if gap:
        which = "slices" if len(gap) > 1 else "slice"
        numbers = ", ".join(str(i + 1) for i in gap)
        reasons["gap"] = f"is missing in {which} {numbers}, between slices that have it"
    pairs = np.flatnonzero((areas[:-1] >= AREA_MM2) & (areas[1:] >= AREA_MM2))
    if not pairs.size:
        return reasons
    ratios = np.maximum(areas[pairs + 1] / areas[pairs], areas[pairs] / areas[pairs + 1])
    worst = int(ratios.argmax())
    if ratios[worst] > AREA_RATIO:
        i = int(pairs[worst])
        reasons["area_jump"] = (
            f"its area jumps from {areas[i]:.0f} to {areas[i + 1]:.0f} mm² between {_slices(i, stack)}"
        )
    centres = _centroids_mm(inside, stack)
    moves = np.linalg.norm(centres[pairs + 1] - centres[pairs], axis=1)
    worst = int(moves.argmax())
    if moves[worst] > MOVE_MM:
        reasons["position_jump"] = (
            f"its centre moves by {moves[worst]:.0f} mm between {_slices(int(pairs[worst]), stack)}"
        )
    return reasons


def _centroids_mm(inside: np.ndarray, stack: _Stack) -> Float[np.ndarray, "slices 2"]:
    """In plane, of each slice; NaN in an empty one."""
    rows, columns = np.count_nonzero(inside, axis=2), np.count_nonzero(inside, axis=1)
    moments = np.stack((rows @ np.arange(rows.shape[1]), columns @ np.arange(columns.shape[1])), axis=1)
    with np.errstate(invalid="ignore"):
        return moments / rows.sum(axis=1, keepdims=True) * stack.spacing[1:]


def _border_mm(a: np.ndarray, b: np.ndarray, stack: _Stack) -> Float[np.ndarray, " slices"]:
    """Length of the border that two disjoint masks share in plane, in each slice."""
    along_w = (a[:, :-1] & b[:, 1:]) | (b[:, :-1] & a[:, 1:])
    along_h = (a[:, :, :-1] & b[:, :, 1:]) | (b[:, :, :-1] & a[:, :, 1:])
    counts = np.count_nonzero(along_w, axis=(1, 2)), np.count_nonzero(along_h, axis=(1, 2))
    return counts[0] * stack.spacing[2] + counts[1] * stack.spacing[1]


def _open_ring(lumen: np.ndarray, myocardium: np.ndarray, stack: _Stack) -> str:
    slices = np.flatnonzero(lumen.any(axis=(1, 2)))[1:-1]
    if not slices.size:
        return ""
    mid = lumen[slices]  # filled: the rim of a hole is none of the border
    bare = _border_mm(mid, ~(mid | myocardium[slices]), stack) / _border_mm(mid, ~mid, stack)
    worst = int(bare.argmax())
    if bare[worst] <= OPEN_SHARE:
        return ""
    place = _slice(int(slices[worst]), stack)
    return f"{100 * bare[worst]:.0f} % of its border isn't enclosed by myocardium, in {place}"


def _detached(ventricle: np.ndarray, myocardium: np.ndarray, limit: float, stack: _Stack) -> str:
    share = _border_mm(ventricle, myocardium, stack).sum() / _border_mm(ventricle, ~ventricle, stack).sum()
    if share >= limit:
        return ""
    return f"{100 * share:.0f} % of its border lies on the myocardium, expected at least {100 * limit:.0f} %"


def _slice(i: int, stack: _Stack) -> str:
    return f"slice {i + 1} of {len(stack.mask)}"


def _slices(i: int, stack: _Stack) -> str:
    return f"slices {i + 1} and {i + 2} of {len(stack.mask)}"
