"""The authors' losses, targets, learning rates and optimisers on formulas."""

from typing import Any

import numpy as np
import torch

from tests.parity import formulas as f
from tests.parity import originals as o

Golden = dict[str, np.ndarray]
RATES = 300


def losses(originals: o.Originals) -> Golden:
    """Values of every loss, and gradients with regard to the logits."""
    u = originals.utils
    segmenter, autoencoder = originals.nnunet(), originals.refinement_autoencoder()
    monitoring = originals.monitoring_autoencoder()
    functions: dict[str, Any] = {
        "dice": u.GDLoss,
        "cross_entropy": u.CELoss,
        "dice_rv": u.GDLoss_RV,
        "cross_entropy_rv": u.CELoss_RV,
        "mse": u.MSELoss,
        "supervised": segmenter.Loss,
        "refinement": lambda p, y: segmenter.Loss(p, y, onlyRV=True),
        "autoencoder": autoencoder.Loss,
        "monitoring_dice": monitoring.loss_function.GDLoss,
        "monitoring_early": lambda p, y: monitoring.loss_function(p, y, 9),
        "monitoring": lambda p, y: monitoring.loss_function(p, y, 10),
    }
    golden = {}
    for case in f.LOSS_CASES:
        logits, label = f.loss_case(case)
        target = o.to_torch(np.eye(f.CLASSES)[label])
        for name, function in functions.items():
            x = o.to_torch(logits).requires_grad_()
            value = function(torch.softmax(x, 1), target)
            value.backward()
            golden[f"{case}/{name}"] = np.array(value.item())
            golden[f"{case}/{name}/gradient"] = f.sampled(o.to_numpy(x.grad))
    return golden


def targets(originals: o.Originals) -> Golden:
    """Labels at the six resolutions, of a heart and of noise."""
    golden = {}
    for name, label in f.target_cases().items():
        for i, scale in enumerate(originals.targets(label)):
            golden[f"{name}/{i}"] = scale.numpy().argmax(1).astype(np.uint8)
    return golden


def learning_rates(originals: o.Originals) -> Golden:
    """The rate of both segmenters at the start and after every adjustment."""
    golden = {}
    for name in ("nnunet", "acdc_unet"):
        model: Any = getattr(originals, name)()
        rates = [model.optimizer.param_groups[0]["lr"]]
        for _ in range(RATES):
            model.adjust_learning_rate()
            rates.append(model.optimizer.param_groups[0]["lr"])
        golden[name] = np.array(rates)
    return golden


def optimisers(originals: o.Originals) -> Golden:
    """Parameters after each of three steps with given gradients, by the models' own optimisers and clipping."""
    golden = {}
    for name in ("nnunet", "acdc_unet", "refinement_autoencoder"):
        parameters = {k: torch.nn.Parameter(torch.from_numpy(v)) for k, v in f.optimiser_case(0)[0].items()}
        theirs = getattr(originals, name)().optimizer
        optimiser = type(theirs)(list(parameters.values()), **theirs.defaults)
        for step in range(3):
            for k, gradient in f.optimiser_case(step)[1].items():
                parameters[k].grad = torch.from_numpy(gradient)
            if name != "refinement_autoencoder":
                torch.nn.utils.clip_grad_norm_(list(parameters.values()), 12)
            optimiser.step()
            for k, p in parameters.items():
                golden[f"{name}/{step}/{k}"] = p.detach().numpy().copy()
    return golden
