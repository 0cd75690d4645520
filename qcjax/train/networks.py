"""The networks of an experiment with their optimisers and compiled steps: built once, used for every view."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qcjax import losses
from qcjax.config import Mnms2Config
from qcjax.config.values import Optimiser
from qcjax.data.augment import REFINEMENT_MASKS, Augmentation, augment_batch
from qcjax.data.augment_intensity import Intensity, change_intensity
from qcjax.data.batches import Batch, sample_keys
from qcjax.data.placement import Batcher
from qcjax.inference.predictor import Predictor
from qcjax.models import AcdcUNet, MaskAutoencoder, NnUNet
from qcjax.runtime.devices import BROADCAST, REPLICATED, SHARDED, Devices
from qcjax.train import updates
from qcjax.train.autoencoder import compile_step
from qcjax.train.nonfinite import skip_nonfinite
from qcjax.train.state import CLIP, OPTIMISERS, TrainState, adam
from qcjax.typing import Array

NNUNET_RATE, ACDC_UNET_RATE = 0.01, 5e-4
INTENSITY = Intensity()


class Networks:
    """M and R of one segmenter's name, on some devices; `title` tells apart what has the same architecture."""

    def __init__(self, config: Mnms2Config, name: str, devices: Devices, title: str | None = None) -> None:
        self.config, self.name, self.title, self.devices = config, name, title or name, devices
        self.loss = losses.SUPERVISED[config.method.supervised_loss]
        dtype: Any = jnp.bfloat16 if config.dtype == "bfloat16" else jnp.float32
        common: dict[str, Any] = dict(dtype=dtype, axis_name=devices.axis_name)
        width = config.supervised.width
        self.segmenter: nn.Module
        if name == "nnunet":
            strides = ((1, 1), *((2, 2),) * (config.supervised.stages - 1))
            sizes: dict[str, Any] = {} if width is None else dict(width=width, max_width=15 * width)
            self.segmenter = NnUNet(strides=strides, **sizes, **common)
        else:
            sizes = {} if width is None else dict(width=width)
            self.segmenter = AcdcUNet(random_bias=config.method.random_bias, **sizes, **common)
        usual: Optimiser = "sgd" if name == "nnunet" else "adam"
        optimiser = config.supervised.optimiser or usual
        self.tx = OPTIMISERS[optimiser](clip=CLIP)
        self.autoencoder = MaskAutoencoder(
            width=config.autoencoder.width,
            latent=config.autoencoder.latent,
            dropout_rate=config.autoencoder.dropout,
            initialisation=config.method.initialisation,
            **common,
        )
        self.autoencoder_tx = adam()
        self.predictor = Predictor(
            self.segmenter,
            self.autoencoder,
            self.loss,
            devices,
            config.supervised.batch,
            config.inference.mirror,
        )

    @property
    def initial_rate(self) -> float:
        """The learning rate at which supervised training starts."""
        if self.config.supervised.learning_rate is not None:
            return self.config.supervised.learning_rate
        return NNUNET_RATE if self.name == "nnunet" else ACDC_UNET_RATE

    def rate(self, counter: int) -> float:
        """The learning rate after `counter` decays: polynomial for nnunet, exponential for acdc_unet.

        In preset `original` the polynomial ends after 1000 epochs, whatever the number of epochs.
        """
        if self.name == "acdc_unet":
            return self.initial_rate * 0.985**counter
        end = self.config.method.schedule_epochs or self.config.supervised.epochs
        return self.initial_rate * max(1 - counter / end, 0) ** 0.9

    def supervised_rate(self, epoch: int) -> float:
        """The learning rate of supervised training in an epoch, counted from 1.

        The refinement code's nnunet applies its counter after an epoch and advances it then: epochs 1 and 2 are alike.
        """
        late = self.config.method.late_schedule and self.name == "nnunet"
        return self.rate(max(epoch - 2, 0) if late else epoch - 1)

    @property
    def take(self) -> Batcher:
        """(slices, indices, weight) -> Batch on the devices."""
        return self.predictor.take

    @cached_property
    def supervised_step(self) -> Callable[..., Any]:
        """(state, Batch, key, learning rate) -> (state, metrics), with augmentation."""
        update = updates.make_supervised_update(self.segmenter, self.tx, self.loss, **self._options)
        return self._step(self._guarded(update), self._augmentation)

    @cached_property
    def autoencoder_step(self) -> Callable[..., Any]:
        """(state, Batch, key, learning rate, early) -> (state, metrics)."""
        config = self.config
        return compile_step(
            self.autoencoder,
            self.autoencoder_tx,
            config.method.autoencoder_loss,
            self.devices,
            REFINEMENT_MASKS if config.autoencoder.augment else None,
            config.accumulate,
            config.on_nonfinite,
        )

    @cached_property
    def refinement_step(self) -> Callable[..., Any]:
        """(state, Batch, unlabelled, alpha, R's variables, key, learning rate) -> (state, metrics).

        The batch's weight says which slices are labelled, and those are augmented.
        """
        update = self._guarded(
            updates.make_refinement_update(
                self.segmenter, self.autoencoder, self.tx, self.loss, **self._options
            )
        )

        def step(
            state: Any, batch: Batch, unlabelled: Array, alpha: Array, r: Any, key: Array, rate: Array
        ) -> Any:
            changed = self._augmented(batch, key, self._augmentation)
            labelled = batch.weight > 0
            image = jnp.where(labelled[:, None, None, None], changed.image, batch.image)
            joint = updates.RefinementBatch(image, changed.label, batch.weight, unlabelled, alpha, r)
            return self._averaged(*update(state, joint, key, rate))

        axes = (REPLICATED, SHARDED, SHARDED, BROADCAST, REPLICATED, BROADCAST, BROADCAST)
        return self.devices.compile(step, axes, donate=(0,))

    @cached_property
    def original_refinement_step(self) -> Callable[..., Any]:
        """(state, Batch, best predictions, blend, R's variables, key, learning rate) -> (state, metrics)."""
        update = self._guarded(
            updates.make_original_refinement_update(
                self.segmenter, self.autoencoder, self.tx, **self._options
            )
        )

        def step(state: Any, batch: Batch, best: Array, blend: Array, r: Any, key: Array, rate: Array) -> Any:
            case = updates.OriginalRefinementBatch(batch.image, batch.weight, best, blend, r)
            return self._averaged(*update(state, case, key, rate))

        axes = (REPLICATED, SHARDED, SHARDED, BROADCAST, REPLICATED, BROADCAST, BROADCAST)
        return self.devices.compile(step, axes, donate=(0,))

    @property
    def multiple(self) -> int:
        """What the sizes of training batches are multiples of: every part on every device has as many rows."""
        return self.devices.count * self.config.accumulate

    @property
    def _options(self) -> dict[str, Any]:
        """The options of every update."""
        return dict(axis_name=self.devices.axis_name, accumulate=self.config.accumulate)

    @property
    def _augmentation(self) -> Augmentation:
        c = self.config.supervised
        return Augmentation(mirror=c.mirror, rotation_deg=c.rotation_deg, scale=c.scale)

    def _augmented(self, batch: Batch, key: Array, options: Augmentation) -> Batch:
        n, axis_name = batch.image.shape[0], self.devices.axis_name
        batch = augment_batch(sample_keys(jax.random.fold_in(key, 0), n, axis_name), batch, options)
        if not self.config.supervised.intensity:
            return batch
        keys = sample_keys(jax.random.fold_in(key, 1), n, axis_name)
        changed = jax.vmap(lambda k, image: change_intensity(k, image, INTENSITY))(keys, batch.image[..., 0])
        return batch._replace(image=changed[..., None])

    def _averaged(self, state: TrainState, metrics: Any) -> Any:
        """After a step, with the mean of the weights moved where one is kept."""
        decay = self.config.supervised.average
        return (state.averaged(decay) if decay else state), metrics

    def _guarded(self, update: updates.Update) -> updates.Update:
        """As it is, or leaving out batches that would make the state not finite."""
        if self.config.on_nonfinite == "stop":
            return update
        return skip_nonfinite(update, self.devices.axis_name)

    def _step(self, update: updates.Update, options: Augmentation) -> Callable[..., Any]:
        def step(state: Any, batch: Batch, key: Array, rate: Array) -> Any:
            return self._averaged(*update(state, self._augmented(batch, key, options), key, rate))

        return self.devices.compile(step, (REPLICATED, SHARDED, BROADCAST, BROADCAST), donate=(0,))
