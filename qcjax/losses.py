"""Losses, pure functions of arrays; the preset is in the name where the papers and the authors' code differ.

The Dice losses are functions of class sums (Σ p·y, Σ p, Σ y), so that one formula serves a batch, a sample, or the
volume of a subject whose slices were evaluated in pieces. `axis_name` makes the sums those of the whole batch over
several devices. Sources: refinement paper (Galati & Zuluaga, STACOM 2021), monitoring paper (Galati & Zuluaga, FIMH
2021), their public code where the name says `original`, and uncertainty paper (Arega et al., UNSURE 2021).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

from qcjax.typing import AnyArray, Array, Bool, Float, Labels, Logits, Probabilities, Scalar, Shaped, Weights

RV_WEIGHTS = (0.0, 0.25, 0.25, 0.5)  # background, LV, MYO, RV: favours the RV; the paper gives no figures
TINY = 1e-8

Mask = Bool[Array, "b *space"]  # the voxels that count
Flag = Bool[Array, ""] | bool  # an array may decide, so that nothing is compiled twice


class Sums(NamedTuple):
    """What the Dice losses need of a prediction p and a target y, summed over pixels; each (*batch, k)."""

    intersection: AnyArray  # Σ p·y
    prediction: AnyArray  # Σ p
    target: AnyArray  # Σ y


def class_sums(probabilities: Probabilities, target: Probabilities, mask: Mask | None = None) -> Sums:
    """The class sums of each sample: (b, *space, k) twice -> (b, k), over the voxels of `mask` (b, *space) if given."""
    chex.assert_equal_shape((probabilities, target))  # one that broadcasts would count some pixels often
    axes = tuple(range(1, probabilities.ndim - 1))
    if mask is not None:
        chex.assert_shape(mask, target.shape[:-1])
        probabilities, target = (jnp.where(mask[..., None], x, 0) for x in (probabilities, target))
    return Sums((probabilities * target).sum(axes), probabilities.sum(axes), target.sum(axes))


def batch_sums(sums: Sums, weight: Weights | None = None, axis_name: str | None = None) -> Sums:
    """The class sums of a batch, over its samples (and devices): (b, k) -> (k,)."""
    if weight is not None:
        sums = Sums(*(x * weight[:, None] for x in sums))
    return _over_devices(Sums(*(x.sum(0) for x in sums)), axis_name)


def generalised_dice_loss(sums: Sums, background: Flag = True) -> Float[Array, "*batch"]:
    """Sudre et al. 2017: 1 − 2·Σ w·Σ p·y / Σ w·Σ (p + y), w = 1/(Σ y)²; (*batch, k) -> (*batch).

    A class without target gets the largest weight present. `background` False leaves class 0 out (the monitoring
    paper's first ten epochs); an array may decide it, so that nothing is compiled twice.
    """
    classes = jnp.arange(sums.target.shape[-1]) >= jnp.where(background, 0, 1)
    counted = jnp.broadcast_to(classes, sums.target.shape)
    present = (sums.target > 0) & counted
    inverse = jnp.where(present, 1 / jnp.square(jnp.where(present, sums.target, 1)), 0)
    largest = inverse.max(-1, keepdims=True)
    absent = jnp.where(counted, jnp.where(largest > 0, largest, 1), 0)
    weight = jnp.where(present, inverse, absent)
    weight = weight / weight.max(-1, keepdims=True)  # the same ratio, without tiny numbers
    numerator = 2 * (weight * sums.intersection).sum(-1)
    denominator = (weight * (sums.prediction + sums.target)).sum(-1)
    return 1 - (numerator + TINY) / (denominator + TINY)


def weighted_dice_loss(sums: Sums, weights: tuple[float, ...] = RV_WEIGHTS) -> Float[Array, "*batch"]:
    """L_WGD of the refinement paper's Eq. 2: generalised Dice with given class weights; (*batch, k) -> (*batch)."""
    w = jnp.broadcast_to(jnp.asarray(weights), sums.target.shape)
    numerator = 2 * (w * sums.intersection).sum(-1)
    return 1 - (numerator + TINY) / ((w * (sums.prediction + sums.target)).sum(-1) + TINY)


def soft_dice_loss_original(sums: Sums) -> AnyArray:
    """The refinement code's Dice loss: −mean over the foreground of (2TP + ε)/(2TP + FP + FN + ε); (*batch)."""
    return _soft_dice_per_class(sums)[..., 1:].mean(-1)


def soft_dice_loss(sums: Sums) -> AnyArray:
    """1 − mean over the foreground of (2TP + ε)/(2TP + FP + FN + ε), ε = 1e-5: soft Dice; (*batch)."""
    return 1 + soft_dice_loss_original(sums)


def soft_dice_loss_rv_original(sums: Sums) -> AnyArray:
    """The refinement code's Dice loss on out-of-distribution cases: the RV's term alone; (*batch)."""
    return _soft_dice_per_class(sums)[..., -1]


def _soft_dice_per_class(sums: Sums) -> AnyArray:
    denominator = sums.prediction + sums.target + 1e-5 + 1e-8  # 2TP + FP + FN = Σ p + Σ y
    return -(2 * sums.intersection + 1e-5) / denominator


def monitoring_dice_loss_original(sums: Sums, foreground_term: Flag = False) -> Float[Array, "*batch"]:
    """The monitoring code's L_GD: per sample 1 − 2·Σ p·y / (Σ p + Σ y + 1e-6), sums over all classes; (*batch).

    With `foreground_term` (its first ten epochs) the same over the foreground classes is added.
    """

    def term(first: int) -> Array:
        intersection, prediction, target = (x[..., first:].sum(-1) for x in sums)
        return 1 - 2 * intersection / (prediction + target + 1e-6)

    return term(0) + jnp.where(foreground_term, term(1), 0)


def pixel_mean(
    values: Float[Array, "b *space"],
    weight: Weights | None = None,
    axis_name: str | None = None,
    mask: Mask | None = None,
) -> Scalar:
    """Mean over the samples that count and their pixels (those of `mask`, if given): (b, *space) -> ()."""
    weight = jnp.ones(values.shape[0]) if weight is None else weight
    if mask is None:
        per_sample, pixels = values.reshape(values.shape[0], -1).mean(1), jnp.ones(values.shape[0])
    else:
        axes = tuple(range(1, values.ndim))
        per_sample, pixels = jnp.where(mask, values, 0).sum(axes), mask.sum(axes).astype(jnp.float32)
    total, count = _over_devices(((per_sample * weight).sum(), (pixels * weight).sum()), axis_name)
    return total / jnp.maximum(count, 1)


def cross_entropy(logits: Logits, target: Probabilities) -> Float[Array, "b *space"]:
    """−Σ_c y·log p, per pixel: (b, *space, k) -> (b, *space)."""
    return -(target * jax.nn.log_softmax(logits)).sum(-1)


def cross_entropy_original(probabilities: Probabilities, target: Probabilities) -> Float[Array, "b *space"]:
    """−Σ_c y·log(p + 1e-6), per pixel, as the refinement code has it."""
    return -(target * jnp.log(probabilities + 1e-6)).sum(-1)


def squared_error(probabilities: Probabilities, target: Probabilities) -> Float[Array, "b *space"]:
    """Mean over the classes of (p − y)², per pixel."""
    return jnp.square(probabilities - target).mean(-1)


@dataclass(frozen=True)
class SegmentationLoss:
    """λ_Dice · a Dice loss of class sums + λ_CE · a cross-entropy, in the two forms for training and validation."""

    dice: Callable[[Sums], Array]
    # logits, probabilities, target -> per pixel
    entropy: Callable[[Logits, Probabilities, Probabilities], Array]
    lambda_dice: float = 1.0
    lambda_ce: float = 1.0

    def __call__(
        self,
        logits: Logits,
        label: Labels,
        weight: Weights | None = None,
        axis_name: str | None = None,
        mask: Mask | None = None,
    ) -> Scalar:
        """The loss of a batch, from sums and means over all its pixels: logits (b, *space, k), label and mask
        (b, *space) -> ().
        """
        probabilities = jax.nn.softmax(logits)
        target = jax.nn.one_hot(label, logits.shape[-1])
        sums = batch_sums(class_sums(probabilities, target, mask), weight, axis_name)
        entropy = self.entropy(logits, probabilities, target)
        return self.weighted(self.dice(sums), pixel_mean(entropy, weight, axis_name, mask))

    def weighted(self, dice: AnyArray, entropy: AnyArray) -> AnyArray:
        """λ_Dice · dice + λ_CE · entropy: both parts of the loss, of any one shape."""
        return self.lambda_dice * dice + self.lambda_ce * entropy

    def per_sample(
        self, logits: Logits, label: Labels, mask: Mask | None = None
    ) -> tuple[Sums, Float[Array, " b"]]:
        """What the loss of a volume is made of: class sums (b, k) and mean cross-entropy (b,) of each sample."""
        probabilities = jax.nn.softmax(logits)
        target = jax.nn.one_hot(label, logits.shape[-1])
        entropy = self.entropy(logits, probabilities, target)
        axes = tuple(range(1, entropy.ndim))
        return class_sums(probabilities, target, mask), entropy.mean(axes, where=mask)


# L_SUP = L_GD + L_CE, Eq. 1 of the refinement paper
SUPERVISED = {
    "paper": SegmentationLoss(generalised_dice_loss, lambda logits, p, y: cross_entropy(logits, y)),
    "original": SegmentationLoss(soft_dice_loss_original, lambda logits, p, y: cross_entropy_original(p, y)),
}

# L_Seg = λ_Dice·L_Dice + λ_CE·L_CE, Eq. 3 of the uncertainty paper, which is built on nnU-Net: its plain soft Dice
SEGMENTATION = SegmentationLoss(soft_dice_loss, lambda logits, p, y: cross_entropy(logits, y))


def log_mean(logits: Float[Array, "n b *space k"]) -> Float[Array, "b *space k"]:
    """Logarithm of the mean of n samples' probabilities, μ in Eq. 1 of the uncertainty paper.

    logits (n, b, *space, k) -> (b, *space, k). As logits, it gives μ back, so that every loss takes it.
    """
    if logits.shape[0] == 1:
        return logits[0]
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(logits.shape[0])


def sample_variance(
    probabilities: Float[Array, "n b *space k"], over_classes: Literal["mean", "sum"] = "mean"
) -> Float[Array, "b *space"]:
    """σ² over n samples, with 1/n (Eq. 2 of the uncertainty paper): (n, b, *space, k) -> (b, *space).

    The paper leaves open whether the classes' variances are averaged or summed.
    """
    variance = probabilities.var(0)
    return variance.mean(-1) if over_classes == "mean" else variance.sum(-1)


def deep_supervision_weights(outputs: int) -> tuple[float, ...]:
    """1, ½, ¼ … with the coarsest at 0, normalised to a sum of 1; (1,) for a single output."""
    if outputs == 1:
        return (1.0,)
    weights = [2.0**-i for i in range(outputs - 1)]
    return (*(w / sum(weights) for w in weights), 0.0)


def deep_supervision(
    loss: SegmentationLoss,
    scales: tuple[Float[Array, "b *_ k"], ...],  # logits, each of its own resolution
    label: Labels,
    weight: Weights | None = None,
    axis_name: str | None = None,
    mask: Mask | None = None,
) -> Scalar:
    """Weighted sum of the loss at every resolution, the finest first; targets and mask by nearest neighbour."""
    total = jnp.float32(0)
    for logits, share in zip(scales, deep_supervision_weights(len(scales)), strict=True):
        if share > 0:
            space = logits.shape[1:-1]
            real = None if mask is None else downsample_label(mask, space)
            total = total + share * loss(logits, downsample_label(label, space), weight, axis_name, real)
    return total


def downsample_label(label: Labels | Mask, shape: tuple[int, ...]) -> Shaped[Array, "b *shape"]:
    """Nearest neighbour to a shape that divides the label's: (b, *space) -> (b, *shape)."""
    factors = [n // m for n, m in zip(label.shape[1:], shape, strict=True)]
    return label[(slice(None), *(slice(f // 2, None, f) for f in factors))]


def autoencoder_loss(
    preset: str,
    logits: Logits,
    target: Probabilities,
    early: Flag = False,
    weight: Weights | None = None,
    axis_name: str | None = None,
) -> Scalar:
    """L_R = L_MSE + L_GD on reconstructions, (b, h, w, k).

    `preset` "paper": Sudre's L_GD over the batch, without the background while `early` (the first ten epochs).
    "mixed": half of that over the batch and half slice by slice. "soft": soft Dice over the batch, whose classes count
    alike. "original": the refinement code's soft Dice. "monitoring_original": the monitoring code's, per sample.

    Raises KeyError for another preset.
    """

    def generalised(sums: Sums) -> Array:
        return generalised_dice_loss(sums, jnp.logical_not(early))

    def per_slice(dice: Callable[[Sums], Array]) -> Array:
        return pixel_mean(dice(sums), weight, axis_name)

    def over_batch(dice: Callable[[Sums], Array]) -> Array:
        return dice(batch_sums(sums, weight, axis_name))

    probabilities = jax.nn.softmax(logits)
    sums = class_sums(probabilities, target)
    terms: dict[str, Callable[[], Array]] = {
        "paper": lambda: over_batch(generalised),
        "mixed": lambda: (over_batch(generalised) + per_slice(generalised)) / 2,
        "soft": lambda: over_batch(soft_dice_loss),
        "original": lambda: over_batch(soft_dice_loss_original),
        "monitoring_original": lambda: per_slice(lambda s: monitoring_dice_loss_original(s, early)),
    }
    mse = pixel_mean(squared_error(probabilities, target), weight, axis_name)
    return mse + terms[preset]()


def refinement_loss_original(
    logits: Logits, target: Probabilities, weight: Weights | None = None, axis_name: str | None = None
) -> Scalar:
    """The refinement code's loss on one out-of-distribution case: the RV's terms of Dice and cross-entropy."""
    probabilities = jax.nn.softmax(logits)
    sums = batch_sums(class_sums(probabilities, target), weight, axis_name)
    rv = cross_entropy_original(probabilities[..., -1:], target[..., -1:])
    return soft_dice_loss_rv_original(sums) + pixel_mean(rv, weight, axis_name)


def _over_devices(sums: Any, axis_name: str | None) -> Any:
    return sums if axis_name is None else lax.psum(sums, axis_name)
