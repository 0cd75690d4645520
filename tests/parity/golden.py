"""Reads the golden files and compares with them."""

import json
from functools import cache
from pathlib import Path

import formulas as f
import numpy as np

FOLDER = Path(__file__).parent / "golden"
Golden = dict[str, np.ndarray]


@cache
def load(name: str) -> Golden:
    """All arrays of one golden file."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def weights(golden: Golden) -> dict[str, np.ndarray]:
    """The formula's state dictionary of the network that a golden file is about."""
    return f.state_dict({k: tuple(v) for k, v in json.loads(str(golden["shapes"])).items()})


def assert_output(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """One output, (b, h, w, k), against its samples."""
    assert f.deviation(f.sampled(found, f.OUTPUT_SAMPLES), expected) < tolerance


def assert_arrays(
    golden: Golden, name: str, arrays: dict[str, np.ndarray], tolerance: float, without: tuple[str, ...] = ()
) -> None:
    """Every array of a table of the golden file, by its key; `without` names those that aren't compared."""
    keys = [str(k) for k in golden[f"{name}_keys"]]
    assert set(keys) <= set(arrays)
    assert set(without) < set(keys)
    far = {}
    for key, expected in zip(keys, golden[name], strict=True):
        deviation = f.deviation(f.sampled(arrays[key]), expected)
        if key not in without and not deviation < tolerance:
            far[key] = deviation
    assert not far, f"{name}: {len(far)} of {len(keys)} arrays deviate by more than {tolerance}: {far}"
