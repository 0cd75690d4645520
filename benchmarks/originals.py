"""The authors' PyTorch code, to be timed.

Needs PyTorch and what the clones import (extra `benchmark`). Imported only where there are clones.
"""

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import nn

from benchmarks.authors import Authors
from benchmarks.clones import Clones
from benchmarks.inputs import MAX_WIDTH_3D, NETWORK_3D, STRIDES_3D, threads
from qcjax.data.subject import PHASES, Case

INFO = Path("preprocessed") / "patient_info.pkl"  # where the code looks, from the working directory


class Originals(Authors):
    """The authors' code on the device that it chooses, and the steps that are timed."""

    def __init__(self, clones: Clones) -> None:
        torch.set_num_threads(threads())
        torch.backends.cuda.matmul.allow_tf32 = True  # as for convolutions, and as jax does
        super().__init__(clones)
        self.device = self.utils.device

    def network(self, name: str) -> Any:
        """By name, at its own sizes; the autoencoder is the monitoring code's."""
        make = {
            "nnunet": self.nnunet,
            "acdc_unet": self.acdc_unet,
            NETWORK_3D: self._nnunet_3d,
            "autoencoder": self.monitoring_autoencoder,
        }[name]
        return make().to(self.device)

    def _nnunet_3d(self) -> nn.Module:
        """The code's `Generic_UNet` with 3-D layers, otherwise configured as `Baseline_2`."""
        model = self.baseline_2.Generic_UNet(
            1, 32, 4, len(STRIDES_3D) - 1, 2, 2,
            conv_op=nn.Conv3d, norm_op=nn.BatchNorm3d, dropout_op=nn.Dropout3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True}, dropout_op_kwargs={"p": 0, "inplace": True},
            nonlin_kwargs={"negative_slope": 0.01, "inplace": True}, max_num_features=MAX_WIDTH_3D,
            pool_op_kernel_sizes=[list(s) for s in STRIDES_3D[1:]],
            convolutional_pooling=True, convolutional_upsampling=True,
        )  # fmt: skip
        weights = np.array([2.0**-i for i in range(len(STRIDES_3D) - 2)] + [0.0])
        model.weights = (weights / weights.sum()).tolist()
        model.Loss = self.utils.CELoss
        model.optimizer = torch.optim.SGD(
            model.parameters(), lr=0.01, weight_decay=3e-5, momentum=0.99, nesterov=True
        )
        return model

    def train_step(
        self, model: nn.Module, forward: Callable[..., Any], x: Any, targets: list[Any]
    ) -> Callable[[], Any]:
        """One step as the loop of `supervised_training`, or of `AE.training_routine`, has it."""
        monitoring = isinstance(model, self.monitoring.AE)

        def step() -> None:
            model.optimizer.zero_grad()
            output = forward(x)
            if monitoring:
                loss = model.loss_function(output, x, 1)
            else:
                parts = zip(model.weights, output, targets, strict=True)
                loss = sum(w * model.Loss(p, y) for w, p, y in parts if w != 0)
            loss.backward()
            if not monitoring:
                nn.utils.clip_grad_norm_(model.parameters(), 12)
            model.optimizer.step()
            self.wait()

        model.train()
        return step

    def inference(self, model: nn.Module, forward: Callable[..., Any], x: Any) -> Callable[[], Any]:
        """A forward pass without gradients."""

        def run() -> None:
            model.eval()
            with torch.no_grad():
                forward(x)
            self.wait()

        return run

    def wait(self) -> None:
        """Until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def tensor(self, array: np.ndarray) -> Any:
        """Channels last to channels first, on the device."""
        return torch.from_numpy(np.moveaxis(np.asarray(array, np.float32), -1, 1).copy()).to(self.device)

    def compose(self, size: int, augment: bool, downsample: bool) -> Callable[[Any], Any]:
        """The code's transforms for slices of size × size; it has them at module level, for 256."""
        u = self.utils
        steps: list[Any] = [u.AddPadding((size, size)), u.CenterCrop((size, size))]
        if augment:
            angle = (-np.pi / 6, np.pi / 6)
            spatial = u.SpatialTransform((size, size), angle_x=angle, scale=(0.7, 1.4), random_crop=True)
            steps = [u.MirrorTransform(), spatial]
        steps += [u.Downsample()] if downsample else []
        return u.torchvision.transforms.Compose([*steps, u.OneHot(), u.ToTensor()])


@contextmanager
def working_directory(folder: Path) -> Iterator[None]:
    """The code reads and writes relative to where it is started."""
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def prepare_data(
    originals: Originals, parts: Mapping[str, Sequence[Case]], spacing_mm: tuple[float, float], folder: Path
) -> dict[str, Any]:
    """Run the code's preprocessing on some cases; returns its patient information.

    Args:
      parts: name of a subfolder of `preprocessed` -> its cases, of one view, both phases of each subject.
      spacing_mm: target in plane, (h, w).
      folder: the working directory; `preprocessed/<part>/<view>/001_SA.npy` appear in it.
    """
    information: dict[str, Any] = {}
    u = originals.utils
    for part, cases in parts.items():
        of_part: dict[str, Any] = {}
        for case in cases:
            name = f"{case.subject}_{case.view}"
            pattern = str(case.image_path).replace(f"_{case.phase}.nii", "_{}.nii")
            info = of_part.setdefault(name, {"PATH": pattern})
            image: Any = nib.load(case.image_path)
            array = image.get_fdata()
            info |= {"spacing": image.header["pixdim"][[3, 2, 1]], "header": image.header}
            info |= {"affine": image.affine, f"shape_{case.phase}": array.shape}
            info[f"crop_{case.phase}"] = u.crop_image(array)
        for info in of_part.values():
            missing = [phase for phase in PHASES if f"shape_{phase}" not in info]
            if missing:
                raise ValueError(f"{info['PATH']}: phase {missing[0]} not found, expected both")
        with working_directory(folder):
            u.preprocess(of_part, np.array([1.0, *spacing_mm]), f"preprocessed/{part}")
        information |= of_part
    with (folder / INFO).open("wb") as file:
        pickle.dump(information, file)
    return information
