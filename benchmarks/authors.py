"""The authors' PyTorch code, imported from clones as it is, and its networks.

Needs PyTorch and what the clones import, but neither JAX nor qcjax: the golden files are made without them.
"""

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.clones import Clones

LATENT = [4, 2, 1]  # kernel, stride, padding of the last encoder layer, as in the notebook


class Authors:
    """The modules of both repositories; `utils`, `baseline_1`, `baseline_2`, `reconstructor` and `monitoring`."""

    def __init__(self, clones: Clones) -> None:
        if importlib.util.find_spec("torchvision") is None:
            _stand_in_for_torchvision()
        refinement = clones.refinement
        self.utils = _load("utils", refinement / "utils.py")
        sys.modules["utils"] = self.utils  # the others of this repository import it by that name
        self.baseline_1 = _load("baseline_1", refinement / "baseline_1.py", torch=torch, nn=nn)
        self.baseline_2 = _load("baseline_2", refinement / "baseline_2.py")
        self.reconstructor = _load("reconstructor", refinement / "reconstructor.py")
        self.monitoring = _load("CA", clones.monitoring / "CA.py")

    def nnunet(self) -> Any:
        """BN1 of the refinement paper, in the notebook's configuration."""
        return self.baseline_2.Baseline_2(self._segmenter_args())

    def acdc_unet(self) -> Any:
        """BN2 of the refinement paper; the training loop expects a list of outputs and their weights."""
        base = self.baseline_1.Baseline_1

        class WithWeights(base):  # type: ignore[misc, valid-type]
            weights = (1.0,)

            def forward(self, x: Any) -> list[Any]:
                return [super().forward(x)]

        return WithWeights(self._segmenter_args())

    def refinement_autoencoder(self) -> Any:
        """R as the refinement code has it."""
        args = {"lr": 2e-4, "in_channels": 4, "latent_size": 100, "last_layer": LATENT}
        return self.reconstructor.Reconstructor(self.utils.AttrDict(args))

    def monitoring_autoencoder(self) -> Any:
        """R as the monitoring code has it."""
        return self.monitoring.AE()

    def _segmenter_args(self) -> Any:
        u = self.utils
        functions = {"functions": [u.GDLoss, u.CELoss], "functions_RV": [u.GDLoss_RV, u.CELoss_RV]}
        return u.AttrDict({"lr": 0.01, **functions})


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
