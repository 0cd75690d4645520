"""A segmenter M and an autoencoder R over all slices of a cohort, in batches of one shape, on all devices."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from qcjax import losses
from qcjax.data.batches import Batch, Slices, in_batches, take
from qcjax.train.parallel import REPLICATED, SHARDED, Devices
from qcjax.typing import Array, Variables


class Evaluation(NamedTuple):
    """Of labelled slices, per slice."""

    labels: np.ndarray  # (n, h, w) uint8, arg-max
    sums: losses.Sums  # each (n, k)
    entropy: np.ndarray  # (n,) mean cross-entropy


class Reconstruction(NamedTuple):
    """Of unlabelled slices: the mask and R's version of it."""

    labels: np.ndarray  # (n, h, w) uint8
    rebuilt: np.ndarray  # (n, h, w) uint8


class Rebuilt(NamedTuple):
    """R on ground-truth slices."""

    labels: np.ndarray  # (n, h, w) uint8
    sums: losses.Sums  # each (n, k)
    error: np.ndarray  # (n,) mean squared error


def rebuild_masks(
    autoencoder: nn.Module, variables: Variables, label: Array
) -> tuple[Array, losses.Sums, Array]:
    """R on label maps (b, h, w): what a `Rebuilt` holds, on the device."""
    target = jax.nn.one_hot(label, autoencoder.classes)
    rebuilt: Any = autoencoder.apply(variables, target)
    error = losses.squared_error(rebuilt, target).mean((1, 2))
    return rebuilt.argmax(-1).astype(jnp.uint8), losses.class_sums(rebuilt, target), error


class Predictor:
    """Compiled inference; every network is compiled once per use, whatever the number of slices."""

    def __init__(
        self,
        segmenter: nn.Module,
        autoencoder: nn.Module,
        loss: losses.SegmentationLoss,
        devices: Devices,
        batch: int,
    ) -> None:
        self.devices, self.batch = devices, devices.batch_size(batch)

        def evaluate(variables: Variables, batch: Batch) -> Any:
            logits: Array = segmenter.apply(variables, batch.image, method="logits")[0]
            return logits.argmax(-1).astype(jnp.uint8), *loss.per_sample(logits, batch.label)

        def reconstruct(variables: tuple[Variables, Variables], batch: Batch) -> Any:
            probabilities: Any = segmenter.apply(variables[0], batch.image)
            rebuilt: Any = autoencoder.apply(variables[1], probabilities)
            return probabilities.argmax(-1).astype(jnp.uint8), rebuilt.argmax(-1).astype(jnp.uint8)

        def rebuild(variables: Variables, batch: Batch) -> Any:
            return rebuild_masks(autoencoder, variables, batch.label)

        def segment(variables: Variables, batch: Batch) -> Any:
            return segmenter.apply(variables, batch.image)

        def rebuild_probabilities(variables: Variables, probabilities: Array) -> Any:
            return autoencoder.apply(variables, probabilities)

        axes = (REPLICATED, SHARDED)
        self._take = devices.compile(take, (REPLICATED, SHARDED, SHARDED))
        self._evaluate = devices.compile(evaluate, axes)
        self._reconstruct = devices.compile(reconstruct, axes)
        self._rebuild = devices.compile(rebuild, axes)
        self._segment = devices.compile(segment, axes)
        self._rebuild_probabilities = devices.compile(rebuild_probabilities, axes)

    def evaluate(self, variables: Variables, slices: Slices, indices: np.ndarray) -> Evaluation:
        """Labels, and what a volume's loss is made of, of the slices at `indices`."""
        return Evaluation(*self._all(self._evaluate, variables, slices, indices))

    def reconstruct(
        self, variables: Variables, autoencoder: Variables, slices: Slices, indices: np.ndarray
    ) -> Reconstruction:
        """Masks ŷM and rebuilt masks ŷR; R sees the probabilities."""
        return Reconstruction(*self._all(self._reconstruct, (variables, autoencoder), slices, indices))

    def rebuild(self, autoencoder: Variables, slices: Slices, indices: np.ndarray) -> Rebuilt:
        """R on ground truth."""
        return Rebuilt(*self._all(self._rebuild, autoencoder, slices, indices))

    def probabilities(self, variables: Variables, slices: Slices, indices: np.ndarray) -> np.ndarray:
        """Class probabilities of some slices, (n, h, w, k)."""
        return self._all(self._segment, variables, slices, indices)

    def rebuild_probabilities(self, autoencoder: Variables, probabilities: np.ndarray) -> np.ndarray:
        """R on class probabilities, (n, h, w, k) -> the same."""
        outputs = []
        for start in range(0, len(probabilities), self.batch):
            part = probabilities[start : start + self.batch]
            filled = np.pad(part, ((0, self.batch - len(part)), (0, 0), (0, 0), (0, 0)))
            rebuilt = self._rebuild_probabilities(autoencoder, self.devices.shard(filled))
            outputs.append(self.devices.gather(rebuilt)[: len(part)])
        return np.concatenate(outputs)

    def _all(self, function: Callable[..., Any], variables: Any, slices: Slices, indices: np.ndarray) -> Any:
        results = [self.devices.gather(part) for part in self._ahead(function, variables, slices, indices)]
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(indices)], *results)

    def _ahead(
        self, function: Callable[..., Any], variables: Any, slices: Slices, indices: np.ndarray
    ) -> Iterator[Any]:
        """Results batch by batch, the next one already under way while one is fetched."""
        waiting = None
        for step in zip(*in_batches(indices, self.batch), strict=True):
            result = function(variables, self._take(slices, *self.devices.shard(step)))
            if waiting is not None:
                yield waiting
            waiting = result
        if waiting is not None:
            yield waiting
