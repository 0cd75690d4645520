"""The heart over time: which frames are end-diastole and end-systole, and whether a curve of volumes can be a heart's.

A curve is the volume of a ventricle's cavity in each frame of one heartbeat, in order, which closes on itself.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEAST_FRAMES = 5  # of fewer the shape of a curve tells nothing
JUMP = 0.25  # of the curve's range, from frame to frame, beyond what its own neighbours show
DIP = 0.15  # of the curve's range: a second minimum is at least so deep
NEAR_END = 0.2  # of the frames at either end, where end-diastole lies in a scan triggered by the R wave


class Phases(NamedTuple):
    """Frames counted from 0."""

    ed: int  # of the largest volume
    es: int  # of the smallest


def find_phases(volume_ml: Float[np.ndarray, " t"]) -> Phases:
    """End-diastole and end-systole, the frames of the largest and of the smallest volume; of equal ones the first.

    Frames without a volume (NaN) don't count.

    Raises:
      ValueError: fewer than two frames with a volume, or nothing but zeros.
    """
    _check(volume_ml)
    return Phases(int(np.nanargmax(volume_ml)), int(np.nanargmin(volume_ml)))


def curve_faults(volume_ml: Float[np.ndarray, " t"]) -> list[str]:
    """What a curve has that a heart's hasn't, in words for people; nothing for one of fewer than 5 frames.

    A frame that was lost (NaN) or empty; a jump: a volume that lies off both of its neighbours, on the same side, by
    more than a quarter of the curve's range; without such frames more than one minimum, where between two of them the
    curve rises by more than 15 % of its range; end-diastole in the middle of a scan, which starts and ends with it.

    Raises:
      ValueError: as `find_phases`.
    """
    _check(volume_ml)
    n = len(volume_ml)
    if n < LEAST_FRAMES:
        return []
    faults = [f"frame {t + 1} has no volume" for t in np.flatnonzero(np.isnan(volume_ml))]
    faults += [f"frame {t + 1} is empty" for t in np.flatnonzero(volume_ml == 0)]
    span = float(np.nanmax(volume_ml) - np.nanmin(volume_ml))
    if span == 0:
        return [*faults, "the volume is the same in all frames"]
    before, after = np.roll(volume_ml, 1), np.roll(volume_ml, -1)
    off = np.minimum(np.abs(volume_ml - before), np.abs(volume_ml - after)) / span
    jumps = np.flatnonzero((off > JUMP) & ((volume_ml - before) * (volume_ml - after) > 0))
    faults += [f"frame {t + 1} jumps by {off[t] * span:.0f} ml" for t in jumps]
    minima = _minima(np.where(np.isin(np.arange(n), jumps), np.nan, volume_ml), DIP * span)
    if len(minima) > 1:
        faults.append(f"{len(minima)} minima, in frames {', '.join(str(t + 1) for t in minima)}")
    ed = find_phases(volume_ml).ed
    if min(ed, n - 1 - ed) > NEAR_END * n:
        faults.append(f"the largest volume is in frame {ed + 1} of {n}, not near the start or the end")
    return faults


def _minima(volume_ml: np.ndarray, dip_ml: float) -> list[int]:
    """Frames of the minima of a closed curve between which it rises by more than `dip_ml` over each."""
    known = np.flatnonzero(np.isfinite(volume_ml))
    start = int(known[np.argmax(volume_ml[known])])
    order = [t for t in np.roll(np.arange(len(volume_ml)), -start) if np.isfinite(volume_ml[t])]
    found: list[int] = []
    low = high = order[0]
    falling = True
    for t in [*order[1:], order[0]]:  # from the largest volume round to itself
        if falling:
            low = t if volume_ml[t] < volume_ml[low] else low
            if volume_ml[t] - volume_ml[low] > dip_ml:
                found.append(int(low))
                falling, high = False, t
        else:
            high = t if volume_ml[t] > volume_ml[high] else high
            if volume_ml[high] - volume_ml[t] > dip_ml:
                falling, low = True, t
    return sorted(found)


def _check(volume_ml: np.ndarray) -> None:
    known = volume_ml[np.isfinite(volume_ml)]
    if len(known) < 2 or not known.any():
        raise ValueError(
            f"volumes of {len(known)} of {len(volume_ml)} frames found, {np.count_nonzero(known)} of them above 0; "
            "expected at least two, not all empty"
        )
