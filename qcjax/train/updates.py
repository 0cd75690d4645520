"""One training step each, as a pure function (state, batch, key, learning_rate) -> (state, metrics).

What isn't an array is closed over when an update is made. `axis_name` is that of the devices (`parallel`); losses
then see the whole batch's sums, and gradients are averaged. `accumulate` is the number of parts in which a batch goes
through the network (`accumulation`).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from qcjax import losses
from qcjax.data.batches import Batch
from qcjax.train.accumulation import logits_in_parts
from qcjax.train.state import TrainState
from qcjax.typing import AnyArray, Array, Float, PRNGKey, Scalar, Variables

Metrics = dict[str, Array]
Update = Callable[..., tuple[TrainState, Metrics]]


class RefinementBatch(NamedTuple):
    """Labelled and out-of-distribution (OoD) slices, for one joint forward pass (refinement paper, Eq. 2)."""

    image: Array  # (b, h, w, 1)
    label: Array  # (b, h, w) int32; of labelled slices
    labelled: Array  # (b,) 1 for a labelled slice
    unlabelled: Array  # (b,) 1 for an OoD slice; padding is neither
    alpha: Scalar  # 1/k
    autoencoder: Variables  # of R, frozen


class OriginalRefinementBatch(NamedTuple):
    """Slices of one OoD case, as the refinement code learns from them."""

    image: Array  # (b, h, w, 1)
    weight: Array  # (b,)
    best: Array  # (b, h, w, k): the best prediction of these slices so far
    blend: Scalar  # share of `best` in the pseudo ground truth, epoch / epochs
    autoencoder: Variables


def make_supervised_update(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loss: losses.SegmentationLoss,
    axis_name: str | None = None,
    dropout: bool = True,
    accumulate: int = 1,
) -> Update:
    """L_SUP with deep supervision (refinement paper, Eq. 1) on a `Batch`. Metrics: loss, grad_norm."""
    forward = _training_forward(model, axis_name, accumulate, dropout)

    def objective(params: Any, batch_stats: Any, batch: Batch, key: PRNGKey) -> tuple[Scalar, Any]:
        scales, batch_stats = forward(params, batch_stats, batch.image, batch.weight, key)
        value = losses.deep_supervision(loss, scales, batch.label, batch.weight, axis_name, batch.mask)
        return value, batch_stats

    return _make_update(objective, tx, axis_name)


def make_uncertainty_update(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loss: losses.SegmentationLoss,
    samples: int,
    axis_name: str | None = None,
    over_classes: Literal["mean", "sum"] = "mean",
    loss_of: Literal["mean", "each"] = "mean",
    accumulate: int = 1,
) -> Update:
    """L_Seg + α·L_Uncertainty (uncertainty paper, Eq. 5) of `samples` dropout samples of a `Batch`, in one step.

    The samples are vmapped, so what lies before the first dropout is computed once. Each is normalised by its own
    batch's statistics; the running ones are updated once, by their mean. The first sample's dropout is that of
    `make_supervised_update` with the same key: one sample and α = 0 are that update.

    Args:
      over_classes: how the classes' variances make a voxel's.
      loss_of: L_Seg of the samples' mean (the paper), or the mean of each sample's L_Seg.

    The update takes a fifth argument, `alpha` (). Metrics: loss, segmentation, variance, grad_norm.
    """
    forward = _training_forward(model, axis_name, accumulate, sampled=True)

    def objective(
        params: Any, batch_stats: Any, batch: Batch, key: PRNGKey, alpha: Array | float
    ) -> tuple[Scalar, tuple[Any, Metrics]]:
        keys = jnp.stack([key, *(jax.random.fold_in(key, n) for n in range(1, samples))])
        scales, changed = forward(params, batch_stats, batch.image, batch.weight, keys)  # (n, b, *space, k)

        def segmentation(scales: tuple[Array, ...]) -> Scalar:
            return losses.deep_supervision(loss, scales, batch.label, batch.weight, axis_name, batch.mask)

        if loss_of == "mean":
            value = segmentation(tuple(losses.log_mean(x) for x in scales))
        else:
            each = [segmentation(tuple(x[n] for x in scales)) for n in range(samples)]
            value = jnp.stack(each).mean()
        per_voxel = losses.sample_variance(jax.nn.softmax(scales[0]), over_classes)
        variance = losses.pixel_mean(per_voxel, batch.weight, axis_name, batch.mask)
        changed = jax.tree.map(lambda x: x.mean(0), changed)
        return value + alpha * variance, (changed, {"segmentation": value, "variance": variance})

    return _make_update(objective, tx, axis_name)


def make_autoencoder_update(
    model: nn.Module,
    tx: optax.GradientTransformation,
    preset: str,
    axis_name: str | None = None,
    dropout: bool = True,
    accumulate: int = 1,
) -> Update:
    """L_MSE + L_GD of the reconstruction of a `Batch`'s labels (monitoring paper). Metrics: loss, grad_norm.

    The update takes a fifth argument, `early` (): whether this is one of the first ten epochs.
    """
    forward = _training_forward(model, axis_name, accumulate, dropout)

    def objective(
        params: Any, batch_stats: Any, batch: Batch, key: PRNGKey, early: Array | bool = False
    ) -> tuple[Scalar, Any]:
        target = jax.nn.one_hot(batch.label, model.classes)
        (logits,), batch_stats = forward(params, batch_stats, target, batch.weight, key)
        return losses.autoencoder_loss(preset, logits, target, early, batch.weight, axis_name), batch_stats

    return _make_update(objective, tx, axis_name)


def make_refinement_update(
    model: nn.Module,
    autoencoder: nn.Module,
    tx: optax.GradientTransformation,
    loss: losses.SegmentationLoss,
    axis_name: str | None = None,
    dropout: bool = True,
    accumulate: int = 1,
    weights: tuple[float, ...] = losses.RV_WEIGHTS,
) -> Update:
    """L_SEMI = α·L_WGD(ŷM, ŷR) + L_SUP (refinement paper, Eq. 2) on a `RefinementBatch`.

    One forward pass over both parts; the pseudo ground truth is the one-hot arg-max of R's output, without gradient.
    OoD slices in which it lacks a structure stay out of L_WGD, which would have them lose it altogether.

    Args:
      weights: of the classes in L_WGD; a structure of weight 0 may be lacking.

    Metrics: loss, supervised, semi_supervised, grad_norm; rebuilt_whole, the share of OoD slices that L_WGD is over.
    """
    forward = _training_forward(model, axis_name, accumulate, dropout)
    needed = np.flatnonzero(weights)

    def objective(
        params: Any, batch_stats: Any, batch: RefinementBatch, key: PRNGKey
    ) -> tuple[Scalar, tuple[Any, Metrics]]:
        chex.assert_rank(batch.alpha, 0)
        chex.assert_equal_shape((batch.labelled, batch.unlabelled))
        weight = batch.labelled + batch.unlabelled
        scales, batch_stats = forward(params, batch_stats, batch.image, weight, key)
        supervised = losses.deep_supervision(loss, scales, batch.label, batch.labelled, axis_name)
        probabilities = jax.nn.softmax(scales[0])
        pseudo_truth = one_hot_argmax(autoencoder.apply(batch.autoencoder, lax.stop_gradient(probabilities)))
        sums = losses.class_sums(probabilities, pseudo_truth)
        whole = (sums.target[:, needed] > 0).all(-1).astype(jnp.float32)
        semi = losses.weighted_dice_loss(
            losses.batch_sums(sums, batch.unlabelled * whole, axis_name), weights
        )
        share = losses.pixel_mean(whole[:, None], batch.unlabelled, axis_name)
        parts = {"supervised": supervised, "semi_supervised": semi, "rebuilt_whole": share}
        return batch.alpha * semi + supervised, (batch_stats, parts)

    return _make_update(objective, tx, axis_name)


def make_original_refinement_update(
    model: nn.Module,
    autoencoder: nn.Module,
    tx: optax.GradientTransformation,
    axis_name: str | None = None,
    dropout: bool = True,
    accumulate: int = 1,
) -> Update:
    """The refinement code's step on an `OriginalRefinementBatch`: the RV's terms alone. Metrics: loss, grad_norm."""
    forward = _training_forward(model, axis_name, accumulate, dropout)

    def objective(
        params: Any, batch_stats: Any, batch: OriginalRefinementBatch, key: PRNGKey
    ) -> tuple[Scalar, Any]:
        scales, batch_stats = forward(params, batch_stats, batch.image, batch.weight, key)
        rebuilt: Any = autoencoder.apply(batch.autoencoder, lax.stop_gradient(jax.nn.softmax(scales[0])))
        chex.assert_rank(batch.blend, 0)
        chex.assert_equal_shape((batch.best, rebuilt))
        pseudo_truth = one_hot_argmax(batch.blend * batch.best + (1 - batch.blend) * rebuilt)
        return losses.refinement_loss_original(scales[0], pseudo_truth, batch.weight, axis_name), batch_stats

    return _make_update(objective, tx, axis_name)


def one_hot_argmax(probabilities: Float[AnyArray, "b *space k"]) -> Float[Array, "b *space k"]:
    """The likeliest class as 1, the others 0: (b, *space, k), without gradient."""
    probabilities = lax.stop_gradient(probabilities)
    return jax.nn.one_hot(probabilities.argmax(-1), probabilities.shape[-1])


def _training_forward(
    model: nn.Module, axis_name: str | None, parts: int, dropout: bool = True, sampled: bool = False
) -> Callable[..., tuple[tuple[Array, ...], Any]]:
    """(params, batch_stats, x, weight, key) -> logits of every scale, changed batch_stats.

    With `sampled` there are as many keys as samples, and these are the first axis of all that is returned.
    """

    def apply(params: Any, batch_stats: Any, x: Array, weight: Array, key: PRNGKey) -> Any:
        logits, changed = model.apply(
            {"params": params, "batch_stats": batch_stats},
            x,
            True,
            dropout,
            weight,
            method="logits",
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return logits, changed.get("batch_stats", {})

    of_keys = jax.vmap(apply, (None, None, None, None, 0)) if sampled else apply

    def forward(params: Any, batch_stats: Any, x: Array, weight: Array, key: Array) -> Any:
        chex.assert_rank(weight, 1)
        chex.assert_equal_shape_prefix((x, weight), 1)
        if parts == 1:
            return of_keys(params, batch_stats, x, weight, key)
        axis = 1 if sampled else 0
        return logits_in_parts(of_keys, params, batch_stats, x, weight, key, parts, axis_name, axis)

    return forward


def _make_update(
    objective: Callable[..., Any], tx: optax.GradientTransformation, axis_name: str | None
) -> Update:
    """Gradient of `objective`, averaged over the devices, through the optimiser."""

    def update(
        state: TrainState, batch: Any, key: PRNGKey, learning_rate: Array | float, *extra: Any
    ) -> tuple[TrainState, Metrics]:
        chex.assert_rank((learning_rate, *extra), 0)  # a rate, an α or a switch per sample would broadcast
        gradient = jax.value_and_grad(objective, has_aux=True)
        (loss, aux), grads = gradient(state.params, state.batch_stats, batch, key, *extra)
        batch_stats, parts = aux if isinstance(aux, tuple) else (aux, {})
        if axis_name is not None:
            # every device's loss is the whole batch's; the transposed psum has summed its gradient over devices
            grads = lax.pmean(grads, axis_name)
        direction, opt_state = tx.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - learning_rate * d, state.params, direction)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), **parts}
        after = TrainState(state.step + 1, params, batch_stats, opt_state, state.mean)
        # a state of another type or shape would compile every later step again, and fit no checkpoint
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        return after, metrics

    return update
