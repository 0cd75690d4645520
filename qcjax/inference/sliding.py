"""A network over volumes that are larger than its patch: overlapping windows, Gaussian weights, as nnU-Net's."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from qcjax.typing import AnyArray, Float32, Real

SIGMA = 1 / 8  # of the Gaussian weights, as a share of the patch


def starts(length: int, patch: int, overlap: float) -> list[int]:
    """Where windows begin along an axis: evenly, the first and the last one flush with the borders.

    Args:
      length: of the axis, at least `patch`.
      overlap: neighbours share at least this share of the patch, up to rounding.
    """
    step = max(1.0, patch * (1 - overlap))
    count = 1 + int(np.ceil((length - patch) / step))
    return [int(start) for start in np.rint(np.linspace(0, length - patch, count))]


@lru_cache(maxsize=8)
def weights(patch: tuple[int, ...]) -> Float32[np.ndarray, "*space"]:
    """A Gaussian over a patch, 1 at its centre, sd `SIGMA` of each side: float32 of shape `patch`."""
    gaussian = np.ones((), np.float64)
    for n in patch:
        at = (np.arange(n) - (n - 1) / 2) / (SIGMA * n)
        gaussian = gaussian[..., None] * np.exp(-(at**2) / 2)
    gaussian = gaussian.astype(np.float32)
    gaussian.setflags(write=False)  # it is shared by the cache
    return gaussian


def predict(
    function: Callable[[Float32[np.ndarray, "b *patch 1"]], AnyArray],
    image: Real[np.ndarray, "*space"],
    patch: tuple[int, ...],
    batch: int,
    overlap: float = 0.5,
) -> Float32[np.ndarray, "*space k"]:
    """A function of patches over a whole volume: the weighted mean of what the windows on a voxel say.

    What sums to 1 over classes in every patch sums to 1 in the result. Where one window covers all, the result is the
    function's output itself. The function is always called with the same shape; the last batch is filled up with zeros.

    Args:
      function: (b, *patch, 1) float32 -> (b, *patch, k), of numpy or, dispatched asynchronously, of jax.
      image: (s, h, w); padded with zeros, centred, where it is smaller than the patch.
      patch: (s, h, w), in voxels.
      batch: windows per call.
      overlap: of neighbouring windows, in [0, 1).

    Returns:
      (s, h, w, k) float32.

    Raises:
      ValueError: a patch of another number of axes than the image, or an overlap out of range.
    """
    if len(patch) != image.ndim or not 0 <= overlap < 1:
        raise ValueError(
            f"found patch {patch} and overlap {overlap} for an image of shape {image.shape}; "
            "expected a length per axis, and an overlap of at least 0 and below 1"
        )
    missing = [max(0, p - n) for p, n in zip(patch, image.shape, strict=True)]
    inside = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, image.shape, strict=True))
    whole = np.pad(image.astype(np.float32, copy=False), [(m // 2, m - m // 2) for m in missing])
    axes = (starts(n, p, overlap) for n, p in zip(whole.shape, patch, strict=True))
    windows = [tuple(slice(a, a + p) for a, p in zip(at, patch, strict=True)) for at in product(*axes)]
    if len(windows) == 1:
        return next(_outputs(function, whole, windows, batch))[inside]
    weight = weights(tuple(patch))[..., None]
    result, total = np.zeros(()), np.zeros((*whole.shape, 1), np.float32)
    for window, output in zip(windows, _outputs(function, whole, windows, batch), strict=True):
        if not result.ndim:
            result = np.zeros((*whole.shape, output.shape[-1]), np.float32)
        result[window] += weight * output
        total[window] += weight
    return (result / total)[inside]


def _outputs(
    function: Callable[[np.ndarray], AnyArray], whole: np.ndarray, windows: list[Any], batch: int
) -> Iterator[np.ndarray]:
    """The function's output (*patch, k) window by window, the next batch under way while one is fetched."""
    waiting: tuple[AnyArray, int] | None = None
    for first in range(0, len(windows), batch):
        part = np.stack([whole[window] for window in windows[first : first + batch]])[..., None]
        filled = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.float32)])
        under_way = function(filled), len(part)
        if waiting is not None:
            yield from np.asarray(waiting[0], np.float32)[: waiting[1]]
        waiting = under_way
    if waiting is not None:
        yield from np.asarray(waiting[0], np.float32)[: waiting[1]]
