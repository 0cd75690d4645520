"""Supervised training that starts from a checkpoint of the authors' PyTorch code; the reader of the file stands in."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from experiments import mnms2
from qcjax import interop
from qcjax.data.subject import Subject
from qcjax.models import NnUNet
from qcjax.refinement.run import RefinementRun
from qcjax.train.arm import Arm
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.segmenter import train_segmenter, validate_segmenter
from qcjax.typing import Variables

MODEL = NnUNet(width=2, max_width=30, strides=((1, 1), (2, 2), (2, 2)))  # that of TINY
OPTIONS = ("--preset", "original", "--views", "SA", "--segmenter", "nnunet")


class TrainedEnough(Exception):
    """Raised once the segmenter is trained."""


@pytest.fixture
def weights() -> Variables:
    """Different everywhere from what a run draws, running statistics too."""
    variables = MODEL.init(jax.random.key(123), jnp.zeros((1, 64, 64, 1)))
    return {
        "params": variables["params"],
        "batch_stats": jax.tree.map(lambda x: x + 0.25, variables["batch_stats"]),
    }


@pytest.fixture
def checkpoint(tmp_path: Path, weights: Variables, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that, read by PyTorch, would hold the weights."""
    path = tmp_path / "best_000.pth"
    state = interop.to_torch(MODEL, weights)
    monkeypatch.setattr(interop, "load_torch_checkpoint", {path: state}.__getitem__)
    return path


@pytest.fixture
def segmenter_alone(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Arm, Checkpoints]]:
    """Of every arm, only the segmenter is trained; what came of it."""
    trained: list[tuple[Arm, Checkpoints]] = []

    def run_arm(run: RefinementRun, arm: Arm, subjects: list[Subject]) -> None:
        trained.append((arm, train_segmenter(arm)))
        raise TrainedEnough

    monkeypatch.setattr(mnms2, "run_arm", run_arm)
    return trained


def test_training_starts_from_the_weights(
    experiment: Callable[..., Path],
    cohort: Path,
    tmp_path: Path,
    checkpoint: Path,
    weights: Variables,
    segmenter_alone: list[tuple[Arm, Checkpoints]],
):
    options = ("--data", str(cohort), *OPTIONS, "--init-from", str(checkpoint))
    still = ("--supervised.epochs", "1", "--supervised.steps", "1", "--supervised.learning-rate", "0")
    with pytest.raises(TrainedEnough):
        experiment(tmp_path / "run", *options, *still)
    ((arm, checkpoints),) = segmenter_alone

    start = arm.state()
    jax.tree.map(np.testing.assert_array_equal, start.variables, weights)
    image = jnp.asarray(arm.data.validation.slices.image[:2, ..., None])
    expected = MODEL.apply(weights, image)
    np.testing.assert_allclose(arm.networks.segmenter.apply(start.variables, image), expected, atol=1e-6)
    assert np.isfinite(validate_segmenter(arm, arm.devices.replicate(start))["validation_loss"])

    after = checkpoints.restore(1, state=arm.template())["state"]
    jax.tree.map(np.testing.assert_array_equal, after.params, weights["params"])
    moved = flatten_dict(after.batch_stats)
    assert all((moved[k] != v).all() for k, v in flatten_dict(weights["batch_stats"]).items())


def test_a_checkpoint_of_other_sizes_is_refused(
    refusal: Callable[..., str],
    cohort: Path,
    tmp_path: Path,
    checkpoint: Path,
    segmenter_alone: list[tuple[Arm, Checkpoints]],
):
    wider = ("--supervised.width", "3", "--init-from", str(checkpoint))
    said = refusal(tmp_path / "run", "--data", str(cohort), *OPTIONS, *wider)
    assert (
        "state dictionary for NnUNet: wrong shapes: unet.conv_blocks_context.0.blocks.0.conv.weight" in said
    )


def test_one_segmenter_is_asked_for(refusal: Callable[..., str], tmp_path: Path, checkpoint: Path):
    said = refusal(tmp_path / "run", "--preset", "original", "--init-from", str(checkpoint))
    assert "--init-from: 2 segmenters found, expected one" in said


def test_a_file_that_isnt_there_is_told_of_before_anything_runs(
    refusal: Callable[..., str], cohort: Path, tmp_path: Path
) -> None:
    missing, out = tmp_path / "nowhere.pth", tmp_path / "run"
    assert f"{missing}: no such checkpoint" in refusal(
        out, "--data", str(cohort), *OPTIONS, "--init-from", str(missing)
    )
    assert not out.exists()
