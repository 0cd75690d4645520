"""How the voxels of a file lie in space: the one place that turns a header into axes, millimetres and directions.

Millimetres are those of the affine that the header's codes call valid: sform, else qform, else pixdim alone. An sform
of unit steps beside another pixdim is none (ACDC's and EMIDEC's files have such, left by a conversion): there the
pixdim counts, and its directions are nominal. A mask with the same sform and a pixdim of 1, as programs write it that
keep the affine alone, has the lengths of its image. Lengths are in the header's own unit (micron, mm, metre; unknown:
mm).

The slices of an array are always its last axis. In a file they lie along the axis of length 1, or else along the one of
by far the largest spacing; in a nearly isotropic volume, along the axis nearest to the slices of a known `Orientation`,
or else the last one. Which way the other axes go is as stored, unless an `Orientation` says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from qcjax.runtime.messages import sendable

Affine = Float[np.ndarray, "4 4"]  # voxel indices -> mm

IN_PLANE_MM = (0.05, 10.0)  # a voxel outside of these is no image of a heart
BETWEEN_SLICES_MM = (0.05, 100.0)
SAME_STEPS = 1e-3  # relative: affine and pixdim that differ by less agree
LONGEST_MM = 500.0  # a stack of slices of a heart
FAR_APART = 1.5  # a spacing so many times larger than the next one is that of slices
CLOSEST = 0.7072  # cosine of nearly 45 degrees: less far away, no other axes are nearer
COMPARABLE = (
    0.5  # cosine of the angle between a file's axes and an orientation: beyond 60 degrees they don't compare
)
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # NIfTI's code of a length's unit -> mm
NO_LEFT_AND_RIGHT = "no valid sform or qform: where left and right are is unknown; axes as stored"


@dataclass(frozen=True)
class Axes:
    """Which stored axis makes each axis of an array, and which stored axes are walked backwards."""

    order: tuple[int, int, int] = (0, 1, 2)  # stored axis of x, y, slices
    flipped: tuple[bool, bool, bool] = (False, False, False)  # of the stored axes

    def bring(self, stored: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "x y s"]:
        """A stored array (3 axes) as (x, y, slices), without a copy."""
        return stored[self._steps()].transpose(self.order)

    def take_back(self, array: Shaped[np.ndarray, "x y s"]) -> Shaped[np.ndarray, "i j k"]:
        """The inverse of `bring`."""
        return array.transpose(tuple(self.order.index(i) for i in range(3)))[self._steps()]

    def reorder(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Values of the stored axes as those of x, y, slices."""
        return values[self.order[0]], values[self.order[1]], values[self.order[2]]

    def brought_affine(self, affine: Affine, shape: Sequence[int]) -> Affine:
        """The affine (4, 4) of the brought array, from that of the stored one and its shape."""
        return affine @ self._index(shape)

    def stored_affine(self, affine: Affine, shape: Sequence[int]) -> Affine:
        """The inverse of `brought_affine`; of the stored shape too."""
        return affine @ np.linalg.inv(self._index(shape))

    def _index(self, shape: Sequence[int]) -> np.ndarray:
        """Indices of the brought array -> of the stored one, (4, 4)."""
        index = np.zeros((4, 4))
        index[3, 3] = 1
        for axis, stored in enumerate(self.order):
            index[stored, axis] = -1 if self.flipped[stored] else 1
            index[stored, 3] = shape[stored] - 1 if self.flipped[stored] else 0
        return index

    def slice_number(self, index: int, count: int) -> int:
        """Where a slice of the brought array, of `count`, lies along its stored axis; and the way back."""
        return count - 1 - index if self.flipped[self.order[2]] else index

    def _steps(self) -> tuple[slice, slice, slice]:
        first, second, third = (slice(None, None, -1 if f else None) for f in self.flipped)
        return first, second, third


@dataclass(frozen=True)
class Orientation:
    """Where x, y and slices of some arrays point: to which the axes of other files can be brought."""

    directions: np.ndarray  # (3, 3) the columns are unit vectors of x, y, slices to the right, front and head
    nominal: bool = False  # of affines of unit steps, which compare only with each other

    def to_json(self) -> dict[str, Any]:
        """The orientation as JSON, which `from_json` reads: three directions and whether they are nominal."""
        return {"directions": self.directions.round(6).tolist(), "nominal": self.nominal}

    @classmethod
    def from_json(cls, found: Mapping[str, Any] | None) -> "Orientation | None":
        """The orientation that a description holds as JSON; None from None. Raises ValueError for anything else."""
        if found is None:
            return None
        directions = np.asarray(found["directions"], float)
        if directions.shape != (3, 3) or not abs(np.linalg.det(directions)) > 1e-3:
            raise ValueError(f"orientation {found['directions']} found, expected three directions")
        return cls(directions, bool(found["nominal"]))

    @classmethod
    def common(cls, grids: "Sequence[StoredGrid]") -> "Orientation | None":
        """The orientation that most of some files have as they are stored; None where none tells its own.

        That of the file which most others agree with, averaged over all that can be brought to it.
        """
        nominal = [g for g in grids if g.directed and g.nominal]
        known = [g for g in grids if g.directed and not g.nominal]
        known = known if len(known) >= len(nominal) else nominal
        if not known:
            return None
        frames = np.array([_unit(g.affine)[:, list(g.axes(None)[0].order)] for g in known])
        agreement = np.einsum("nij,mij->nm", frames[:200], frames).sum(1)
        first = cls(frames[int(agreement.argmax())], known[0].nominal)
        brought = [
            _unit(axes.brought_affine(g.affine, g.shape)) for g in known for axes in (g.axes(first)[0],)
        ]
        near = [f for f in brought if np.trace(first.directions.T @ f) > 1 + 2 * COMPARABLE - 1e-6]
        left, _, right = np.linalg.svd(np.mean(near, axis=0))
        return cls(left @ right, first.nominal)


@sendable
@dataclass(frozen=True)
class StoredGrid:
    """A file's grid as it is stored, in millimetres."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray  # (4, 4), stored voxel indices -> mm
    directed: bool  # whether the header says which way the axes go
    nominal: bool = False  # by an affine of unit steps, which no scanner has written
    bare: bool = False  # by an affine of unit steps that pixdim doesn't contradict: its lengths may be lost
    notes: tuple[str, ...] = ()  # what is unusual about it, in words

    def measured_as(self, affine: Affine, name: str) -> "StoredGrid":
        """A bare grid with the lengths of its image's nominal one, of that stored affine (mm) and of a file's name."""
        steps = affine.copy()  # where the image's file itself puts its voxels
        steps[:3, :3] = _unit(affine)
        affine = affine @ np.linalg.inv(steps) @ self.affine
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        note = f"an affine of unit steps, as {name} has, whose pixdim {millimetres(lengths)} counts"
        return replace(
            self,
            spacing_mm=(float(lengths[0]), float(lengths[1]), float(lengths[2])),
            affine=affine,
            nominal=True,
            bare=False,
            notes=(*self.notes, note),
        )

    def axes(self, orientation: Orientation | None) -> tuple[Axes, tuple[str, ...]]:
        """How to bring the file to an orientation, or just its slices to the last axis; and what can't be known."""
        last = slice_axis(self.shape, self.spacing_mm)
        plain = Axes(_plain_order(2 if last is None else last))
        if orientation is None or not self.directed:
            return plain, ()
        if self.nominal != orientation.nominal:
            return plain, ("directions that don't compare with those of the training masks; axes as stored",)
        slices = range(3) if last is None else (last,)
        axes, cosine = nearest_axes(_unit(self.affine), orientation.directions, slices, plain)
        if cosine < COMPARABLE:
            degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
            return plain, (
                f"axes {degrees:.0f} degrees away from those of the training masks; axes as stored",
            )
        return axes, ()


def slice_axis(shape: Sequence[int], spacing_mm: Sequence[float]) -> int | None:
    """The axis along which slices follow one another; None where a volume is so isotropic that it can't be told.

    The one axis of length 1; or that whose spacing is more than `FAR_APART` times the next, or the largest one above
    two equal ones if it is the shortest too.
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if single:
        return single[0] if len(single) == 1 else 2
    axis = int(np.argmax(spacing_mm))
    low, high = sorted(s for i, s in enumerate(spacing_mm) if i != axis)
    if spacing_mm[axis] > FAR_APART * high:
        return axis
    shortest = all(shape[axis] < n for i, n in enumerate(shape[:3]) if i != axis)
    return axis if shortest and spacing_mm[axis] > 1.01 * high and high <= 1.01 * low else None


def check_slices_last(shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
    """Raises ValueError for an array whose shape and spacing show that its slices aren't the last axis."""
    given = f"mask of shape {tuple(shape)} and spacing {millimetres(spacing_mm)}"
    axis = slice_axis(shape, spacing_mm)
    if axis not in (2, None):
        raise ValueError(
            f"{given} found, expected (x, y, slices): here the slices seem to lie along axis {axis}"
        )
    if implausible(shape, spacing_mm):
        raise ValueError(
            f"{given} found, expected {IN_PLANE_MM[0]:g} to {IN_PLANE_MM[1]:g} mm in plane and at most "
            f"{BETWEEN_SLICES_MM[1]:g} mm between slices"
        )
    long = shape[2] * spacing_mm[2]
    if shape[2] > min(shape[:2]) and long > LONGEST_MM:
        raise ValueError(
            f"{given} found, {long:.4g} mm along the last axis; expected (x, y, slices), of at most {LONGEST_MM:g} mm"
        )


def nearest_axes(
    unit: Float[np.ndarray, "3 3"],
    directions: Float[np.ndarray, "3 3"],
    slices: Sequence[int] | range,
    plain: Axes,
) -> tuple[Axes, float]:
    """The axes that turn a file the least from an orientation, never mirrored; and the cosine of that angle.

    Args:
      unit: (3, 3), the directions of the stored axes as columns.
      directions: (3, 3), of x, y, slices.
      slices: stored axes along which slices may lie.
      plain: what is taken where others are no better.
    """
    same_hand = np.linalg.det(directions)
    there = unit[:, list(plain.order)]
    cosine = (float((there * directions).sum()) - 1) / 2
    if plain.flipped == Axes().flipped and cosine > CLOSEST and np.linalg.det(there) * same_hand > 0:
        return plain, cosine
    best, most = plain, -4.0
    orders = [plain.order, *(o for o in permutations(range(3)) if o[2] in slices and o != plain.order)]
    for order in orders:
        for flips in product((False, True), repeat=3):
            signs = np.where(flips, -1.0, 1.0)
            turned = (unit * signs)[:, list(order)]
            match = float((turned * directions).sum())
            if np.linalg.det(turned) * same_hand > 0 and match > most + 1e-6:
                best, most = Axes((order[0], order[1], order[2]), flips), match  # type: ignore[arg-type]
    return best, (most - 1) / 2


def implausible(shape: Sequence[int], spacing_mm: Sequence[float] | Float[np.ndarray, " axes"]) -> bool:
    """Whether voxels are no size of a heart's image: more than one axis of over 10 mm, or any beyond all limits."""
    counted = [s for n, s in zip(shape, spacing_mm, strict=False) if n > 1]
    low, high = IN_PLANE_MM[0], BETWEEN_SLICES_MM[1]
    return any(not low <= s <= high for s in counted) or sum(bool(s > IN_PLANE_MM[1]) for s in counted) > 1


def is_placeholder(affine: Affine) -> bool:
    """Whether an affine only permutes and flips the axes, in steps of exactly 1."""
    part = np.abs(affine[:3, :3])
    return bool(np.allclose(part.sum(0), 1, atol=1e-6) and np.allclose(part.max(0), 1, atol=1e-6)) and bool(
        np.allclose(part.max(1), 1, atol=1e-6)
    )


def millimetres(spacing: Sequence[float] | Float[np.ndarray, " axes"]) -> str:
    """E.g. ``1.5 x 1.5 x 10 mm``."""
    return " x ".join(f"{s:.4g}" for s in spacing) + " mm"


def _plain_order(last: int) -> tuple[int, int, int]:
    first, second = (axis for axis in range(3) if axis != last)
    return first, second, last


def _unit(affine: np.ndarray) -> np.ndarray:
    columns = affine[:3, :3]
    return columns / np.linalg.norm(columns, axis=0)
