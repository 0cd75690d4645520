"""The authors' PyTorch code, on what the golden files are made of. Needs PyTorch and what the clones import."""

import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.augmentations.utils import resize_segmentation
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where qcjax isn't installed

from benchmarks.authors import Authors  # noqa: E402
from benchmarks.clones import find  # noqa: E402


class Originals(Authors):
    """The authors' code, where its label resampling is that of its time."""

    def __init__(self, refinement: Path, monitoring: Path) -> None:
        if "seg_tiebreak" in inspect.signature(resize_segmentation).parameters:
            raise ImportError(
                f"batchgenerators {version('batchgenerators')} found, which resamples labels by arg-max; expected "
                "one that lets a label win at one half, as those of the originals' time do, such as 0.25"
            )
        super().__init__(find(refinement, monitoring))

    def targets(self, label: np.ndarray) -> list[torch.Tensor]:
        """What the loader makes of labels (b, h, w): one-hot at six resolutions."""
        u, samples = self.utils, []
        for one in label:
            sample = {"data": np.zeros(one.shape), "gt": one.astype(np.float32)}
            for step in (u.Downsample(), u.OneHot(), u.ToTensor()):
                sample = step(sample)
            samples.append(sample["gt"])
        return [torch.stack(scale) for scale in zip(*samples, strict=True)]


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of all arrays of the state dictionary."""
    return {k: tuple(v.shape) for k, v in model.state_dict().items()}


def set_weights(model: nn.Module, state: dict[str, np.ndarray]) -> nn.Module:
    """Loads a state dictionary and switches dropout off for good."""
    found = model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    lost = [k for k in found.missing_keys if not k.endswith("num_batches_tracked")] + found.unexpected_keys
    if lost:
        raise ValueError(f"state dictionary: keys {lost} missing or unexpected")
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return model


def to_torch(array: np.ndarray) -> torch.Tensor:
    """Channels last to channels first."""
    return torch.from_numpy(np.moveaxis(np.asarray(array, np.float32), -1, 1).copy())


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Channels first to channels last."""
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


@contextmanager
def recorded_losses() -> Iterator[list[float]]:
    """The values of everything that `backward` is called on."""
    values: list[float] = []
    original: Callable[..., None] = torch.Tensor.backward

    def backward(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        values.append(self.item())
        original(self, *args, **kwargs)

    torch.Tensor.backward = backward  # type: ignore[method-assign, assignment]
    try:
        yield values
    finally:
        torch.Tensor.backward = original  # type: ignore[method-assign]


def train_autoencoder(model: nn.Module, epochs: range, loader: list[Any]) -> None:
    """The authors' training routine of either autoencoder, without its validation."""
    model.evaluation_routine = lambda _: {"Total": 0.0}  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        model.training_routine(epochs, loader, [], folder)  # type: ignore[operator]
