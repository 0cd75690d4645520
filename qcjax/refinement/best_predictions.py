"""The best predictions of D_te's cases so far, as files."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from qcjax.runtime import hosts
from qcjax.runtime.arrays import read_arrays, write_arrays

_NAME = "probabilities"


class BestPredictions:
    """Class probabilities of D_te's cases at the evaluations that the records point to, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, case: int, evaluation: int) -> Path:
        return self.folder / f"{case:05d}-{evaluation:04d}.safetensors"

    def put(self, case: int, evaluation: int, probabilities: Float[np.ndarray, "s h w k"]) -> None:
        """Keep a case's (s, h, w, k)."""
        if not hosts.leads():
            return
        write_arrays(self._path(case, evaluation), {_NAME: probabilities.astype(np.float16, copy=False)})

    def get(self, case: int, first: int, second: int) -> Float32[np.ndarray, "s h w k"]:
        """Mean of two evaluations, (s, h, w, k) float32.

        Raises OSError or ValueError where a file is lost or damaged.
        """
        parts = [read_arrays(self._path(case, e))[_NAME].astype(np.float32) for e in (first, second)]
        return (parts[0] + parts[1]) / 2

    def clear(self) -> None:
        """Remove the files."""
        for path in self.folder.glob("*.safetensors"):
            path.unlink(missing_ok=True)
