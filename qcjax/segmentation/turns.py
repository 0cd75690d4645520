"""Quarter turns that bring a mask to how the monitor's training masks lie, by where the RV is seen from the LV.

The headers of many public cine images don't say how they lie in the body. The networks, trained on images turned and
mirrored, don't mind; the monitor does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Integer

from qcjax.inference.monitor import Monitor, Score
from qcjax.labels import LV, RV, Structure


def rv_direction(mask: Integer[np.ndarray, "x y slices"], structures: Sequence[Structure]) -> complex | None:
    """Where the RV's centre lies as seen from the LV's, in plane: a unit vector x + iy; None where one is absent.

    Args:
      mask: (x, y, slices), ids of `structures`.
    """
    ids = {s.key: s.id for s in structures}
    if LV.key not in ids or RV.key not in ids:
        return None
    centres = []
    for key in (LV.key, RV.key):
        x, y = np.nonzero((mask == ids[key]).any(2))
        if not len(x):
            return None
        centres.append(complex(x.mean(), y.mean()))
    difference = centres[1] - centres[0]
    return difference / abs(difference) if difference else None


def mean_direction(directions: Iterable[complex | None]) -> complex | None:
    """The mean direction of some masks; None where they point everywhere alike, or nowhere."""
    known = [d for d in directions if d is not None]
    mean = sum(known) / len(known) if known else 0
    return mean / abs(mean) if abs(mean) > 0.5 else None


def quarter_turns(direction: complex | None, wanted: complex | None) -> int:
    """How many turns of `numpy.rot90` bring a direction nearest to the wanted one; 0 where either is unknown."""
    if direction is None or wanted is None:
        return 0
    # rot90 takes x to y: a turn by +90 degrees of x + iy
    return int(np.argmax([(direction * 1j**k * wanted.conjugate()).real for k in range(4)]))


def judge_turned(
    monitor: Monitor,
    mask: Integer[np.ndarray, "x y slices"],
    spacing_mm: Sequence[float],
    direction: complex | None,
) -> Score:
    """What a monitor makes of a mask that is turned so that its RV lies in the given direction, as seen from its LV.

    Args:
      mask: (x, y, slices), ids of the monitor's structures.
      spacing_mm: of its voxels.
      direction: of the monitor's training masks; None: it isn't turned.

    Returns:
      The score, its reconstruction turned back.
    """
    turns = quarter_turns(rv_direction(mask, monitor.structures), direction)
    x_mm, y_mm, slice_mm = spacing_mm
    turned_mm = (y_mm, x_mm, slice_mm) if turns % 2 else (x_mm, y_mm, slice_mm)
    score = monitor.score(np.ascontiguousarray(np.rot90(mask, turns, (0, 1))), turned_mm)
    return replace(score, reconstruction=np.rot90(score.reconstruction, -turns, (0, 1)))
