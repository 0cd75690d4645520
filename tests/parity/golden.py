"""Reads the golden files and compares with them."""

import json
from functools import cache
from pathlib import Path

import numpy as np

from tests.parity import formulas as f

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
