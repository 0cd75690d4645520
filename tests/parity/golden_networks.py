"""What the authors' networks give, and how they train, on formulas."""

import json
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.parity import formulas as f
from tests.parity import originals as o

Golden = dict[str, np.ndarray]
CASE = "out-of-distribution case"
FIRST_REFINEMENT_EPOCH = 200


def segmenter(originals: o.Originals, name: str) -> Golden:
    """`nnunet` or `acdc_unet`."""

    def fresh(training: bool = True) -> Any:
        model = getattr(originals, name)()
        state = f.state_dict(o.shapes(model))
        return o.set_weights(model, f.away_from_kinks(name, state) if training else state).train()

    loader = [
        {"data": o.to_torch(image[..., None]), "gt": originals.targets(label)}
        for image, label in f.batches(name)
    ]

    def run(model: Any, epochs: int, steps: int) -> list[float]:
        with o.recorded_losses() as losses:
            for _ in range(epochs):
                originals.utils.optimize_segmentation([dict(batch) for batch in loader[:steps]], model)
        return losses

    model = fresh(training=False)
    image = loader[0]["data"]
    with torch.no_grad():
        inference = model.eval()(image)[0]
        outputs = model.train()(image)
    golden = _described(model)
    golden |= _outputs(inference, outputs) | _arrays("statistics", _statistics(model))
    model = fresh()
    outputs = model(image)
    sum(
        w * model.Loss(x, y) for w, x, y in zip(model.weights, outputs, loader[0]["gt"], strict=False)
    ).backward()
    golden |= _gradients(model)

    model = fresh()
    before = _parameters(model)
    golden["losses"] = np.array(run(model, 1, 3))
    golden |= _arrays("changes", _differences(_parameters(model), before))
    if name == "nnunet":
        golden["losses"] = np.array(run(fresh(), f.EPOCHS, f.STEPS_PER_EPOCH))
        golden["refinement_losses"] = np.array(_refinement(originals, fresh()))
    return golden


def _refinement(originals: o.Originals, model: Any) -> list[float]:
    """Steps on one out-of-distribution case, an epoch each."""
    autoencoder = originals.refinement_autoencoder()
    o.set_weights(autoencoder, f.state_dict(o.shapes(autoencoder))).eval()
    label = f.labels(CASE, f.SHAPE["nnunet"])
    batch = {"data": o.to_torch(f.images(CASE, label)[..., None])}
    best = np.moveaxis(f.predictions(CASE, label), -1, 1)
    with o.recorded_losses() as losses:
        for epoch in range(FIRST_REFINEMENT_EPOCH, FIRST_REFINEMENT_EPOCH + f.EPOCHS * f.STEPS_PER_EPOCH):
            originals.utils.optimize_segmentation([dict(batch)], model, autoencoder, epoch, best)
    return losses


def autoencoder(originals: o.Originals) -> Golden:
    """R; the network is the same in both repositories, the training is not."""

    def fresh(kind: str, training: bool = True) -> Any:
        model = getattr(originals, f"{kind}_autoencoder")()
        state = f.state_dict(o.shapes(model))
        return o.set_weights(model, f.away_from_kinks("autoencoder", state) if training else state).train()

    batches = [o.to_torch(np.eye(f.CLASSES)[label]) for _, label in f.batches("autoencoder")]
    model = fresh("refinement", training=False)
    with torch.no_grad():
        inference = model.eval()(o.to_torch(f.predictions("R", f.batches("autoencoder")[0][1])))
        outputs = model.train()(batches[0])
    golden = _described(model)
    golden |= _outputs(inference, [outputs]) | _arrays("statistics", _statistics(model))
    model = fresh("refinement")
    model.Loss(model(batches[0]), batches[0]).backward()
    golden |= _gradients(model)

    model = fresh("refinement")
    before = _parameters(model)
    o.train_autoencoder(model, range(1, 2), [{"gt": b} for b in batches[:3]])
    golden |= _arrays("changes", _differences(_parameters(model), before))
    with o.recorded_losses() as losses:
        o.train_autoencoder(fresh("refinement"), range(1, 1 + f.EPOCHS), [{"gt": b} for b in batches])
    golden["losses"] = np.array(losses)

    model = fresh("monitoring")
    if _described(model)["shapes"] != golden["shapes"]:
        raise ValueError("the autoencoders of the two repositories differ")
    with o.recorded_losses() as losses:  # epoch 10 is the first that isn't early
        o.train_autoencoder(
            model, range(f.FIRST_MONITORING_EPOCH, f.FIRST_MONITORING_EPOCH + f.EPOCHS), [batches]
        )
    golden["monitoring_losses"] = np.array(losses)
    return golden


def _described(model: nn.Module) -> Golden:
    return {"shapes": np.array(json.dumps(o.shapes(model)))}


def _outputs(inference: torch.Tensor, training: list[torch.Tensor]) -> Golden:
    golden = {"inference": f.sampled(o.to_numpy(inference), f.OUTPUT_SAMPLES)}
    for i, output in enumerate(training):
        golden[f"training_{i}"] = f.sampled(o.to_numpy(output), f.OUTPUT_SAMPLES)
    return golden


def _arrays(name: str, arrays: dict[str, np.ndarray]) -> Golden:
    """Samples of many arrays as one table, in the order of the names."""
    keys = sorted(arrays)
    return {f"{name}_keys": np.array(keys), name: np.stack([f.sampled(arrays[k]) for k in keys])}


def _gradients(model: nn.Module) -> Golden:
    gradients = {k: p.grad.numpy() for k, p in model.named_parameters() if p.grad is not None}
    norm = np.sqrt(sum(float(np.sum(g.astype(np.float64) ** 2)) for g in gradients.values()))
    return {"gradient_norm": np.array(norm), **_arrays("gradients", gradients)}


def _parameters(model: nn.Module) -> dict[str, np.ndarray]:
    return {k: p.detach().numpy().copy() for k, p in model.named_parameters()}


def _differences(after: dict[str, np.ndarray], before: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: after[k] - before[k] for k in after}


def _statistics(model: nn.Module) -> dict[str, np.ndarray]:
    return {k: b.numpy() for k, b in model.named_buffers() if not k.endswith("num_batches_tracked")}
