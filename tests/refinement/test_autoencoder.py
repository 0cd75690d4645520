"""R of the refinement paper, as it is wired to the data and to its loss."""

import jax
import numpy as np
import pytest

from qcjax import losses
from qcjax.refinement import autoencoder as module


def test_the_early_epochs_leave_the_background_out(make_arm, monkeypatch):
    stages = []
    monkeypatch.setattr(module, "train", lambda stage, *rest: (stages.append(stage) or {}, None))
    arm = make_arm()
    module.train_autoencoder(arm)
    (stage,) = stages
    assert stage.config.early_epochs == 1
    early = [[bool(batch[3]) for batch in stage.batches(epoch)] for epoch in (1, 2, 3)]
    assert early == [[True] * 2, [False] * 2, [False] * 2]

    network, state = arm.networks.autoencoder, stage.init()
    batch, key, rate, _ = next(iter(stage.batches(1)))
    target = jax.nn.one_hot(batch.label, 4)
    (logits,), _ = network.apply(
        state.variables, target, True, True, batch.weight,
        method="logits", mutable=["batch_stats"], rngs={"dropout": key},
    )  # fmt: skip
    found = []
    for flag in (True, False):
        _, metrics = stage.step(1)(stage.init(), batch, key, rate, np.bool_(flag))
        expected = losses.autoencoder_loss("paper", logits, target, flag, batch.weight)
        assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-4)
        found.append(float(metrics["loss"]))
    assert abs(found[0] - found[1]) > 1e-4 * found[0] * 5  # what differs isn't rounding
