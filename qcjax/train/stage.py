"""What a training is to the loop that runs it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Record = dict[str, Any]  # a line of the journal
LOSS = "validation_loss"  # key of what chooses among a stage's models; the lower, the better


class Stage(ABC):
    """One training: where it starts, the batches of each epoch, the step that takes them, and how it is judged."""

    identity: Record
    """Names the stage in the journal, e.g. {"stage": "segmenter", "segmenter": "nnunet", "view": "SA"}."""
    epochs: int
    """How many there are at the most."""

    @abstractmethod
    def init(self) -> Any:
        """The state that training starts from, a tree of arrays on one device; mostly a `TrainState`."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterable[tuple[Any, ...]]:
        """What the step of an epoch (counted from 1) takes after the state, batch by batch, on the devices.

        What needs other processes is done before this returns: the batches may be made by a thread (`source`).
        """

    @abstractmethod
    def step(self, epoch: int) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """(state, *batch) -> (state, metrics), compiled; `loss` and `grad_norm` among the metrics must be finite."""

    @abstractmethod
    def validate(self, state: Any, epoch: int) -> Record:
        """What is measured after an epoch, `validation_loss` among it."""

    def source(self, epoch: int) -> Any:
        """The data that the batches are taken from: where they stream from the host, the next ones are made ahead."""
        return None

    def names(self, epoch: int, step: int) -> Sequence[str]:
        """The cases in a batch (counted from 0) of the epoch that runs, to be named where it goes wrong."""
        return ()

    def finished(self, record: Record) -> bool:
        """Whether training ends with the epoch of this record."""
        return False

    def resume(self, epoch: int) -> None:  # noqa: B027 - most stages know nothing that a checkpoint lacks
        """Training goes on after this epoch (0: from the start); checkpoints and journal agree on it."""
