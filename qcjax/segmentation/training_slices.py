"""The slices that a model was trained on, in its own folder where the user allowed it: what `qcjax refine` keeps to."""

from pathlib import Path

import numpy as np

from qcjax.data.batches import Slices
from qcjax.runtime.arrays import read_arrays, write_arrays

FILE = "training_slices.safetensors"


def write_training_slices(folder: Path, slices: Slices | None) -> None:
    """Leave prepared slices (n, h, w) in a model's folder, images as float16, in an order of chance; None: none there.

    Whose slices they are isn't written, and which follow one another can't be seen.
    """
    path = folder / FILE
    if slices is None:
        path.unlink(missing_ok=True)
        return
    order = np.random.default_rng(0).permutation(len(slices.image))
    image, label = np.asarray(slices.image)[order], np.asarray(slices.label)[order]
    write_arrays(path, {"image": image.astype(np.float16), "label": label.astype(np.uint8)})


def read_training_slices(folder: Path) -> Slices | None:
    """The slices in a model's folder: images (n, h, w) float32, labels (n, h, w) uint8; None where it has none.

    Raises:
      ValueError: a file that can't be used.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    arrays = read_arrays(path)
    if set(arrays) != {"image", "label"} or arrays["image"].shape != arrays["label"].shape:
        raise ValueError(f"{path}: {', '.join(sorted(arrays))} found, expected image and label of one shape")
    return Slices(arrays["image"].astype(np.float32), arrays["label"])
