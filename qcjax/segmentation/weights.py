"""The networks of a model, their weights in its file, float16, and what each makes of an image."""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from qcjax.inference.predictor import MIRRORS
from qcjax.models import NnUNet
from qcjax.runtime.arrays import read_arrays
from qcjax.typing import Array, Float, Shaped, Variables


def network_of(description: Mapping[str, Any]) -> NnUNet:
    """The segmenter that a model's description tells of."""
    sizes = description["network"]
    strides = ((1, 1), *((2, 2),) * (int(sizes["stages"]) - 1))
    return NnUNet(
        classes=1 + len(description["labels"]),
        width=int(sizes["width"]),
        max_width=int(sizes["max_width"]),
        strides=strides,
    )


def opinions(
    description: Mapping[str, Any], weights: Sequence[Variables], image: Float[Array, "b h w c"]
) -> list[Float[Array, "b h w k"]]:
    """Each network's class probabilities; of networks that were trained mirrored, each sees another mirror image."""
    network = network_of(description)
    mirrors = islice(cycle(MIRRORS if description["mirror"] else MIRRORS[:1]), len(weights))
    found = []
    for variables, axes in zip(weights, mirrors, strict=True):
        seen: Any = network.apply(variables, jnp.flip(image, axes) if axes else image)
        found.append(jnp.flip(seen, axes) if axes else seen)
    return found


def read_weights(path: Path, description: Mapping[str, Any]) -> list[Variables]:
    """A network's variables per fold, float32. Raises ValueError where they don't fit or aren't finite."""
    network, size = network_of(description), int(description["size"])
    expected = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, size, size, 1))))
    shapes = {k: v.shape for k, v in traverse_util.flatten_dict(dict(expected), sep="/").items()}
    arrays = read_arrays(path)
    found = []
    for i in range(int(description["networks"])):
        flat = {k: np.asarray(arrays[f"{i}/{k}"], np.float32) for k in shapes if f"{i}/{k}" in arrays}
        if {k: v.shape for k, v in flat.items()} != shapes:
            raise ValueError(f"{path.name} doesn't fit the network in model.json")
        endless = [k for k, v in flat.items() if not np.isfinite(v).all()]
        if endless:
            raise ValueError(
                f"{path.name}: NaN or infinite numbers found in {i}/{endless[0]}, expected weights"
            )
        found.append(traverse_util.unflatten_dict(flat, sep="/"))
    return found


def packed_weights(networks: Sequence[Variables]) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The variables of some networks as they are stored: float16, by name."""
    packed = {}
    for i, variables in enumerate(networks):
        for name, value in traverse_util.flatten_dict(variables, sep="/").items():
            packed[f"{i}/{name}"] = np.asarray(value, np.float16)
    chex.assert_tree_all_finite(packed)  # a number beyond 65504, float16's largest, becomes infinite
    return packed
