"""A model's networks as files that run without qcjax: StableHLO by jax.export, ONNX by jax2onnx."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import export

from qcjax.inference.monitor import Monitor
from qcjax.labels import BACKGROUND
from qcjax.runtime import jax_setup
from qcjax.runtime.files import write_json, write_whole
from qcjax.segmentation.model import WEIGHTS, Model
from qcjax.segmentation.weights import opinions, read_weights
from qcjax.typing import Array, Float

Kind = Literal["stablehlo", "onnx"]
SEGMENTER, AUTOENCODER, DESCRIPTION = "segmenter", "autoencoder", "export.json"
Images = Float[Array, "b h w c"]
PLATFORMS = ("cpu", "cuda", "tpu")


def export_model(model: Model, out: Path, kind: Kind) -> list[Path]:
    """Write the segmenters, as one function, and the monitor's autoencoder; and how to prepare what goes in.

    Args:
      out: the folder for `segmenter.*`, `autoencoder.*` and `export.json`.

    Returns:
      The files, the description last.

    Raises:
      ValueError: for ONNX where its converter isn't installed; a refined model, which has two sets of networks.
    """
    if model.bound is not None:
        raise ValueError(
            f"{model.folder}: a refined model found, expected one set of networks: export the model that it came from, "
            "for what decides between both can't be exported"
        )
    functions = {
        SEGMENTER: (segmenter_of(model), (model.size, model.size, 1)),
        AUTOENCODER: (
            autoencoder_of(model.monitor),
            (model.monitor.size, model.monitor.size, 1 + len(model.structures)),
        ),
    }
    write = _stablehlo if kind == "stablehlo" else _onnx
    files = [out / f"{name}.{kind}" for name in functions]
    for path, (function, shape) in zip(files, functions.values(), strict=True):
        write_whole(path, write(function, shape))
    write_json(out / DESCRIPTION, description_of(model, [path.name for path in files]))
    return [*files, out / DESCRIPTION]


def segmenter_of(model: Model) -> Callable[[Images], Images]:
    """The mean of a model's networks, each with the mirroring it was trained with: a function of images alone."""
    weights = read_weights(model.folder / WEIGHTS, model.description)

    def segment(image: Array) -> Array:
        found: Any = sum(opinions(model.description, weights, image))
        return jnp.asarray(found / len(weights))

    return segment


def autoencoder_of(monitor: Monitor) -> Callable[[Images], Images]:
    """The autoencoder of a monitor: a function of one-hot masks alone."""
    network, variables = monitor.network

    def rebuild(mask: Array) -> Array:
        return jnp.asarray(network.apply(variables, mask))

    return rebuild


def _stablehlo(function: Callable[[Array], Array], shape: Sequence[int]) -> bytes:
    (slices,) = export.symbolic_shape("n")
    given = jax.ShapeDtypeStruct((slices, *shape), jnp.float32)
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(given).serialize())


def _onnx(function: Callable[[Array], Array], shape: Sequence[int]) -> bytes:
    try:
        from jax2onnx import to_onnx
    except ImportError as error:
        raise ValueError(f"--to onnx: {error}; expected what docs/segmentation.md installs") from error
    made: Any = to_onnx(function, [("n", *shape)])
    return bytes(made.SerializeToString())


def description_of(model: Model, files: Sequence[str]) -> dict[str, Any]:
    """What goes into the files and comes out of them, and how an image is prepared and its mask brought back."""
    monitor, labels = model.monitor, {"background": BACKGROUND, **model.labels}
    classes = ["background", *(s.key for s in model.structures)]
    return {
        "licence": model.description["licence"],
        "structures": {s.key: s.name for s in model.structures},
        "labels": labels,  # of the masks that qcjax writes
        SEGMENTER: {
            "file": files[0],
            "input": _tensor(["n", model.size, model.size, 1], "slices, rows (y), columns (x), 1"),
            "output": _tensor(["n", model.size, model.size, len(classes)], "probabilities by class"),
            "classes": classes,
            "preparation": [
                "take the stack as (x, y, slices), slices last; crop it to the box of voxels that aren't 0",
                f"resample each slice to pixels of {model.spacing_mm:g} mm by a cubic spline, the pixels' outer edges "
                "staying where they are; the slices stay as they are",
                "subtract the mean of the resampled box and divide by its standard deviation",
                f"pad with 0, or crop, to {model.size} x {model.size}, the image in the middle",
            ],
            "afterwards": [
                "undo padding, resample the probabilities linearly to the image's pixels, take the likeliest class",
                "keep the largest piece of: " + ", ".join(s.key for s in model.single),
            ],
            "pixel_mm": model.spacing_mm,
        },
        AUTOENCODER: {
            "file": files[1],
            "input": _tensor(["n", monitor.size, monitor.size, len(classes)], "a mask, one-hot by class"),
            "output": _tensor(["n", monitor.size, monitor.size, len(classes)], "probabilities by class"),
            "classes": classes,
            "preparation": [
                f"resample the mask to pixels of {monitor.spacing_mm:g} mm, each label linearly, the largest wins",
                f"pad or crop to {monitor.size} x {monitor.size}, the "
                + ("structures" if monitor.centre == "mask" else "image")
                + " in the middle",
            ],
            "pixel_mm": monitor.spacing_mm,
            "directions": None if model.orientation is None else model.orientation.to_json(),
        },
        "versions": jax_setup.versions(),
    }


def _tensor(shape: Sequence[int | str], axes: str) -> dict[str, Any]:
    return {"shape": list(shape), "type": "float32", "axes": axes}
