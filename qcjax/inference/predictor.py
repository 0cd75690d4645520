"""A segmenter M and an autoencoder R over all slices of a cohort, in batches of one shape, on all devices."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from qcjax import losses
from qcjax.data.batches import Batch, Plan, Slices, batch_of, in_batches, take
from qcjax.data.placement import Batcher, ahead
from qcjax.data.streaming import Streamed
from qcjax.models.cpu.inference import in_parts
from qcjax.qc.mc_dropout import drawn, slice_keys
from qcjax.qc.uncertainty import Moments, SliceSums, combine, slice_sums
from qcjax.runtime.devices import BROADCAST, REPLICATED, SHARDED, Devices, half
from qcjax.typing import Array, Float, Integer, PRNGKey, UInt8, Variables

MIRRORS = ((), (1,), (2,), (1, 2))  # axes of images (b, h, w, c)


class Evaluation(NamedTuple):
    """What a segmenter makes of labelled slices, per slice."""

    labels: np.ndarray  # (n, h, w) uint8, arg-max
    sums: losses.Sums  # each (n, k)
    entropy: np.ndarray  # (n,) mean cross-entropy


class Reconstruction(NamedTuple):
    """M's mask of an unlabelled case and R's version of it; M's probabilities stay on the devices until asked for."""

    labels: np.ndarray  # (s, h, w) uint8
    rebuilt: np.ndarray  # (s, h, w) uint8
    probabilities: Callable[[], np.ndarray]  # -> (s, h, w, k) float16


class Rebuilt(NamedTuple):
    """R on ground-truth slices."""

    labels: np.ndarray  # (n, h, w) uint8
    sums: losses.Sums  # each (n, k)
    error: np.ndarray  # (n,) mean squared error


def rebuild_masks(
    autoencoder: nn.Module, variables: Variables, label: Integer[Array, "b h w"]
) -> tuple[UInt8[Array, "b h w"], losses.Sums, Float[Array, " b"]]:
    """R on label maps (b, h, w): what a `Rebuilt` holds, on the device."""
    target = jax.nn.one_hot(label, autoencoder.classes)
    rebuilt = in_parts(partial(autoencoder.apply, variables), target)
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
        mirror: bool = False,
    ) -> None:
        """Nothing is compiled before it is used.

        Args:
          mirror: whether masks that are measured come from the mean over an image and its three mirror images.
        """
        self.devices, self.batch = devices, devices.batch_size(batch)

        def plain(variables: Variables, image: Array) -> Any:
            return segmenter.apply(variables, image)

        def mirrored(variables: Variables, image: Array) -> Any:
            return sum(jnp.flip(plain(variables, jnp.flip(image, x)), x) for x in MIRRORS) / len(MIRRORS)

        def evaluate(variables: Variables, batch: Batch) -> Any:
            def finest(image: Array) -> Any:
                return segmenter.apply(variables, image, method="logits")[0]

            logits = in_parts(finest, batch.image)
            return logits.argmax(-1).astype(jnp.uint8), *loss.per_sample(logits, batch.label)

        def reconstruct(variables: tuple[Variables, Variables], batch: Batch) -> Any:
            seen = mirrored if mirror else plain
            probabilities = in_parts(partial(seen, variables[0]), batch.image)
            rebuilt = in_parts(partial(autoencoder.apply, variables[1]), probabilities)
            labels = probabilities.argmax(-1).astype(jnp.uint8)
            return labels, rebuilt.argmax(-1).astype(jnp.uint8), probabilities.astype(half())

        def rebuild(variables: Variables, batch: Batch) -> Any:
            return rebuild_masks(autoencoder, variables, batch.label)

        def segment(variables: Variables, batch: Batch) -> Any:
            return in_parts(partial(plain, variables), batch.image)

        def segment_mirrored(variables: Variables, batch: Batch) -> Any:
            return in_parts(partial(mirrored, variables), batch.image)

        def rebuild_probabilities(variables: Variables, probabilities: Array) -> Any:
            return in_parts(partial(autoencoder.apply, variables), probabilities)

        alone = segmenter.clone(axis_name=None)  # each slice has keys of its own, wherever it is

        def draw(
            variables: Variables, batch: Batch, places: Array, key: PRNGKey, numbers: Array
        ) -> tuple[Moments, Array]:
            return drawn(alone, variables, batch.image, slice_keys(key, places), numbers)

        def spread(total: Moments, labels: list[Array]) -> SliceSums:
            return slice_sums(total, jnp.concatenate(labels))

        axes = (REPLICATED, SHARDED)
        self._draw = devices.compile(draw, (REPLICATED, SHARDED, SHARDED, BROADCAST, BROADCAST))
        self._combine = devices.compile(combine, (SHARDED, SHARDED))
        self._spread = devices.compile(spread, (SHARDED, SHARDED))
        self.take = Batcher(devices, take, batch_of)
        self._evaluate = devices.compile(evaluate, axes)
        self._reconstruct = devices.compile(reconstruct, axes)
        self._rebuild = devices.compile(rebuild, axes)
        self._segment = devices.compile(segment, axes)
        self._segment_mirrored = devices.compile(segment_mirrored, axes)
        self._rebuild_probabilities = devices.compile(rebuild_probabilities, axes)

    def evaluate(
        self, variables: Variables, slices: Slices | Streamed, indices: Integer[np.ndarray, " n"]
    ) -> Evaluation:
        """Labels, and what a volume's loss is made of, of the slices at `indices`."""
        return Evaluation(*self._all(self._evaluate, variables, slices, indices))

    def reconstruct(
        self,
        variables: Variables,
        autoencoder: Variables,
        slices: Slices | Streamed,
        indices: Integer[np.ndarray, " n"],
        first: Integer[np.ndarray, " bounds"],
    ) -> Generator[Reconstruction, None, None]:
        """Masks ŷM and rebuilt masks ŷR, case by case; R sees the probabilities.

        The devices are at work on the next batch while a case is looked at.

        Args:
          first: (cases + 1,) where each case begins in `indices`, and where the last one ends.
        """
        bounds = list(zip(first[:-1].tolist(), first[1:].tolist(), strict=True))
        parts: list[Any] = []  # from the batch on in which the next case begins
        before = 0  # how many slices came before those
        batches = self._results(self._reconstruct, (variables, autoencoder), slices, indices)
        with closing(batches):
            for result in _ahead(batches):
                parts.append((*(self.devices.gather(x) for x in result[:2]), result[2]))
                while bounds and bounds[0][1] <= before + len(parts) * self.batch:
                    begin, end = bounds.pop(0)
                    yield self._case(parts, begin - before, end - before)
                    over = (end - before) // self.batch
                    parts, before = parts[over:], before + over * self.batch

    def _case(self, parts: Sequence[Any], begin: int, end: int) -> Reconstruction:
        """The rows of one case out of a few batches."""
        touched = range(begin // self.batch, -(-end // self.batch))
        labels, rebuilt, probabilities = zip(*(parts[i] for i in touched), strict=True)
        rows = slice(begin - touched[0] * self.batch, end - touched[0] * self.batch)

        def fetch() -> np.ndarray:
            gathered = np.concatenate([self.devices.gather(x) for x in probabilities])[rows]
            return gathered.astype(np.float16, copy=False)

        return Reconstruction(np.concatenate(labels)[rows], np.concatenate(rebuilt)[rows], fetch)

    def rebuild(
        self, autoencoder: Variables, slices: Slices | Streamed, indices: Integer[np.ndarray, " n"]
    ) -> Rebuilt:
        """R on ground truth."""
        return Rebuilt(*self._all(self._rebuild, autoencoder, slices, indices))

    def probabilities(
        self,
        variables: Variables,
        slices: Slices | Streamed,
        indices: Integer[np.ndarray, " n"],
        mirror: bool = False,
    ) -> Float[np.ndarray, "n h w k"]:
        """Class probabilities of some slices, (n, h, w, k), or (`mirror`) the mean with those of mirror images."""
        function = self._segment_mirrored if mirror else self._segment
        return self._all(function, variables, slices, indices)

    def rebuild_probabilities(
        self, autoencoder: Variables, probabilities: Float[np.ndarray, "n h w k"]
    ) -> Float[np.ndarray, "n h w k"]:
        """R on class probabilities, (n, h, w, k) -> the same."""
        outputs = []
        for start in range(0, len(probabilities), self.batch):
            part = probabilities[start : start + self.batch]
            filled = np.pad(part, ((0, self.batch - len(part)), (0, 0), (0, 0), (0, 0)))
            rebuilt = self._rebuild_probabilities(autoencoder, self.devices.shard(filled))
            outputs.append(self.devices.gather(rebuilt)[: len(part)])
        return np.concatenate(outputs)

    def uncertainty(
        self,
        variables: Variables,
        slices: Slices | Streamed,
        indices: Integer[np.ndarray, " n"],
        places: Integer[np.ndarray, "n numbers"],
        key: PRNGKey,
        samples: int,
        chunk: int | None = None,
        on_batch: Callable[[], None] = lambda: None,
    ) -> SliceSums:
        """How dropout samples of M differ, per slice, on the host.

        Args:
          places: (n, numbers) integers that tell each slice apart; its samples depend on them and the key alone.
          samples: how many, at least 1.
          chunk: how many at once, which bounds the memory; all of them if None.
        """
        size = min(chunk or samples, samples)

        def of_batches() -> Generator[SliceSums, None, None]:
            steps = in_batches(indices, self.batch)
            padding = steps.indices.size - len(places)
            padded = np.pad(places, ((0, padding), (0, 0))).reshape(*steps.indices.shape, -1)
            batches = self._batches(slices, steps)
            with ahead(slices, zip(batches, padded, strict=True)) as prepared:
                for batch, own in prepared:
                    total, labels = None, []
                    for first in range(0, samples, size):
                        numbers = np.arange(first, min(first + size, samples), dtype=np.uint32)
                        part, segmented = self._draw(variables, batch, self.devices.shard(own), key, numbers)
                        total = part if total is None else self._combine(total, part)
                        labels.append(segmented)
                    yield self._spread(total, labels)
                    on_batch()

        with closing(of_batches()) as results:
            return self._gathered(results, len(indices))

    def _all(
        self, function: Callable[..., Any], variables: Any, slices: Slices | Streamed, indices: np.ndarray
    ) -> Any:
        """A function of weights and batch, over the slices at `indices`."""
        with closing(self._results(function, variables, slices, indices)) as results:
            return self._gathered(results, len(indices))

    def _results(
        self, function: Callable[..., Any], variables: Any, slices: Slices | Streamed, indices: np.ndarray
    ) -> Generator[Any, None, None]:
        """The same, batch by batch, on the devices."""
        with ahead(slices, self._batches(slices, in_batches(indices, self.batch))) as batches:
            for batch in batches:
                yield function(variables, batch)

    def _batches(self, slices: Slices | Streamed, steps: Plan) -> Iterator[Any]:
        return (self.take(slices, *self.devices.shard(step)) for step in zip(*steps, strict=True))

    def _gathered(self, results: Iterable[Any], count: int) -> Any:
        """The first `count` of all batches' results, on the host."""
        parts = [self.devices.gather(part) for part in _ahead(results)]
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *parts)


def _ahead(results: Iterable[Any]) -> Iterator[Any]:
    """One by one, the next one already under way while one is fetched."""
    waiting = None
    for result in results:
        if waiting is not None:
            yield waiting
        waiting = result
    if waiting is not None:
        yield waiting
