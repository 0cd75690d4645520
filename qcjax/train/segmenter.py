"""Supervised training of the segmenter M on labelled slices (refinement paper, Eq. 1)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from qcjax import losses
from qcjax.train.arm import Arm
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.loop import fit
from qcjax.train.stage import LOSS, Record, Stage
from qcjax.train.state import TrainState
from qcjax.train.validation import mean_dice


class SegmenterStage(Stage):
    """The segmenter of an arm, from its first weights on, with augmentation."""

    def __init__(self, arm: Arm) -> None:
        self.arm, self.config = arm, arm.networks.config.supervised
        self.identity = arm.identity("segmenter")
        early = arm.networks.config.method.skip_last_epoch
        self.epochs = original_epochs(self.config.epochs) if early else self.config.epochs

    def init(self) -> TrainState:
        return self.arm.state()

    def source(self, epoch: int) -> Any:
        return self.arm.data.slices

    def batches(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        arm, rate = self.arm, np.float32(self.arm.networks.supervised_rate(epoch))
        plan = arm.plan(self.config.steps, self.config.batch, epoch)
        for i, pair in enumerate(zip(*plan, strict=True)):
            batch = arm.networks.take(arm.data.slices, *arm.devices.shard(pair))
            yield batch, arm.step_key("segmenter", epoch, i), rate

    def step(self, epoch: int) -> Callable[..., Any]:
        return self.arm.networks.supervised_step

    def validate(self, state: TrainState, epoch: int) -> Record:
        return validate_segmenter(self.arm, state)

    def names(self, epoch: int, step: int) -> Sequence[str]:
        return self.arm.data.names(self.arm.plan(self.config.steps, self.config.batch, epoch), step)


def train_segmenter(arm: Arm) -> Checkpoints:
    """Train M on D_tr, or go on; returns its checkpoints, the m_best among them."""
    config = arm.networks.config.supervised
    always = (original_start(config.epochs),) if arm.networks.config.method.skip_last_epoch else ()
    checkpoints = arm.checkpoints("segmenter", config.m_best, always)
    fit(SegmenterStage(arm), arm.journal, checkpoints, arm.devices)
    return checkpoints


def original_epochs(epochs: int) -> int:
    """How many the refinement code makes of so many: its range ends before the last, 249 of 250."""
    return max(1, epochs - 1)


def original_start(epochs: int) -> int:
    """The epoch from which the refinement code goes on: 200 of 250."""
    return min(max(1, round(epochs * 200 / 250)), original_epochs(epochs))


def validate_segmenter(arm: Arm, state: TrainState) -> Record:
    """Loss over each volume of D_val, averaged, and Dice per structure on the prepared grid."""
    cohort = arm.data.validation
    result = arm.networks.predictor.evaluate(state.model, arm.data.slices, arm.data.validation_indices)
    sums = losses.Sums(*(cohort.sum_by_case(x) for x in result.sums))
    loss = arm.networks.loss
    of_cases = loss.weighted(np.asarray(loss.dice(sums)), cohort.mean_by_case(result.entropy))
    return {LOSS: float(np.mean(of_cases))} | mean_dice(result.labels, cohort.slices.label, cohort)
