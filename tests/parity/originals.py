"""The authors' PyTorch code, imported from clones and run as it is. Needs PyTorch and what the clones import."""

import importlib.util
import inspect
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.augmentations.utils import resize_segmentation
from formulas import CLASSES
from torch import nn

REFINEMENT_FILES = ("utils.py", "baseline_1.py", "baseline_2.py", "reconstructor.py")
MONITORING_FILES = ("CA.py",)


class Originals:
    """The modules of both repositories; `utils`, `baseline_1`, `baseline_2`, `reconstructor` and `monitoring`."""

    def __init__(self, refinement: Path, monitoring: Path) -> None:
        for folder, files in ((refinement, REFINEMENT_FILES), (monitoring, MONITORING_FILES)):
            missing = [f for f in files if not (folder / f).is_file()]
            if missing:
                raise FileNotFoundError(f"{folder}: {', '.join(missing)} not found; expected a clone")
        if "seg_tiebreak" in inspect.signature(resize_segmentation).parameters:
            raise ImportError(
                f"batchgenerators {version('batchgenerators')} found, which resamples labels by arg-max; expected "
                "one that lets a label win at one half, as those of the originals' time do, such as 0.25"
            )
        if importlib.util.find_spec("torchvision") is None:
            _stand_in_for_torchvision()
        self.utils = _load("utils", refinement / "utils.py")
        sys.modules["utils"] = self.utils  # the others of this repository import it by that name
        self.baseline_1 = _load("baseline_1", refinement / "baseline_1.py", torch=torch, nn=nn)
        self.baseline_2 = _load("baseline_2", refinement / "baseline_2.py")
        self.reconstructor = _load("reconstructor", refinement / "reconstructor.py")
        self.monitoring = _load("CA", monitoring / "CA.py")

    def nnunet(self) -> nn.Module:
        """BN1 of the refinement paper, in the notebook's configuration."""
        return self.baseline_2.Baseline_2(self._segmenter_args())

    def acdc_unet(self) -> nn.Module:
        """BN2 of the refinement paper; the training loop expects a list of outputs and their weights."""
        base = self.baseline_1.Baseline_1

        class WithWeights(base):  # type: ignore[misc, valid-type]
            weights = (1.0,)

            def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
                return [super().forward(x)]

        return WithWeights(self._segmenter_args())

    def refinement_autoencoder(self) -> nn.Module:
        """R as the refinement code has it."""
        args = {"lr": 2e-4, "in_channels": CLASSES, "latent_size": 100, "last_layer": [4, 2, 1]}
        return self.reconstructor.Reconstructor(self.utils.AttrDict(args))

    def monitoring_autoencoder(self) -> nn.Module:
        """R as the monitoring code has it."""
        return self.monitoring.AE()

    def _segmenter_args(self) -> Any:
        u = self.utils
        functions = {"functions": [u.GDLoss, u.CELoss], "functions_RV": [u.GDLoss_RV, u.CELoss_RV]}
        return u.AttrDict({"lr": 0.01, **functions})

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


def _load(name: str, path: Path, **names: Any) -> types.ModuleType:
    """A module from a file, with the imports that it forgot."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    module.__dict__.update(names)
    spec.loader.exec_module(module)
    return module


def _stand_in_for_torchvision() -> None:
    """The authors use one class of it."""

    class Compose:
        def __init__(self, steps: list[Callable[[Any], Any]]) -> None:
            self.steps = steps

        def __call__(self, sample: Any) -> Any:
            for step in self.steps:
                sample = step(sample)
            return sample

    module, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
    transforms.Compose = Compose  # type: ignore[attr-defined]
    module.transforms = transforms  # type: ignore[attr-defined]
    sys.modules.update({"torchvision": module, "torchvision.transforms": transforms})
