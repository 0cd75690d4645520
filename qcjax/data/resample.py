"""Resampling in plane: separable, so two small matrix products per slice, on the host.

Pixels are areas: the first and the last pixel end where the image ends, before and after, so that there and back is
centred.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Real, UInt8
from scipy import ndimage

Resampling = Literal["paper", "original"]  # as `config.Method` has it


@lru_cache(maxsize=128)
def cubic_matrix(n: int, m: int) -> Float32[np.ndarray, "{m} {n}"]:
    """The matrix (m, n) from n pixels to m by a cubic spline, the edge's value repeated outside."""
    if n == m:
        return _constant(np.eye(n, dtype=np.float32))
    columns = [ndimage.zoom(e, m / n, order=3, mode="nearest", grid_mode=True) for e in np.eye(n)]
    return _constant(np.stack(columns, axis=1).astype(np.float32))


@lru_cache(maxsize=256)
def linear_matrix(n: int, m: int) -> Float32[np.ndarray, "{m} {n}"]:
    """The matrix (m, n) from n pixels to m by linear interpolation, the edge's value repeated outside."""
    at = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
    low = np.minimum(at.astype(int), max(n - 2, 0))
    matrix = np.zeros((m, n), np.float32)
    matrix[np.arange(m), low] = 1 - (at - low)
    matrix[np.arange(m), np.minimum(low + 1, n - 1)] += at - low
    return _constant(matrix)


def _constant(matrix: np.ndarray) -> np.ndarray:
    matrix.setflags(write=False)  # it is shared by the cache
    return matrix


def resample(
    stack: Real[np.ndarray, "s h w *classes"],
    rows: Float[np.ndarray, "H h"],
    columns: Float[np.ndarray, "W w"],
    way: Resampling,
    ties: Literal["first", "last"],
) -> UInt8[np.ndarray, "s H W"]:
    """Labels (s, h, w) or probabilities (s, h, w, k) to labels (s, H, W), by rows (H, h) and columns (W, w).

    Rows or columns that sum to less than 1 see background outside of the stack.
    """
    resampled = np.zeros((len(stack), len(rows), len(columns)), np.uint8)
    by_class = stack.ndim == 4
    heart: np.ndarray = np.any(stack[..., 1:] > stack[..., :1], axis=-1) if by_class else stack != 0
    # where all that is interpolated has background in front, so has the result: only the rest is worked out
    heart_h, heart_w = np.flatnonzero(heart.any(axis=(0, 2))), np.flatnonzero(heart.any(axis=(0, 1)))
    if not len(heart_h):
        return resampled
    out_h, in_h = _reach(rows, heart_h)
    out_w, in_w = _reach(columns, heart_w)
    part, rows, columns = stack[:, in_h, in_w], rows[out_h, in_h], columns[out_w, in_w].T

    def spread(values: np.ndarray) -> np.ndarray:
        return rows @ np.ascontiguousarray(values, np.float32) @ columns

    if by_class:
        classes = list(range(1, stack.shape[-1]))
        maps = [spread(part[..., c]) for c in classes]
        background = 1 + spread(part[..., 0] - 1)
    else:
        classes = [int(c) for c in np.flatnonzero(np.bincount(part.ravel())) if c != 0]
        maps = [spread(part == c) for c in classes]
        background = 1 - np.sum(maps, axis=0)
    target = resampled[:, out_h, out_w]
    if way == "original":
        pairs = list(zip([0, *classes], [background, *maps], strict=True))
        for c, share in pairs if ties == "last" else reversed(pairs):
            target[share >= 0.5] = c
        return resampled
    best: np.ndarray = background
    for c, share in zip(classes, maps, strict=True):
        target[share > best] = c
        best = np.maximum(best, share)
    return resampled


def _reach(matrix: np.ndarray, inputs: np.ndarray) -> tuple[slice, slice]:
    """The outputs that see any of the inputs, and all the inputs that these outputs see, as ranges."""
    seeing = np.flatnonzero(matrix[:, inputs[0] : inputs[-1] + 1].any(axis=1))
    outputs = slice(int(seeing[0]), int(seeing[-1]) + 1) if len(seeing) else slice(0, 0)
    seen = np.flatnonzero(matrix[outputs].any(axis=0))
    return outputs, slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, 0)
