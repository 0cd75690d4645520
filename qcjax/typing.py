"""The vocabulary of array shapes.

Axes: b batch, s slices, h w height and width, c channels, k classes, n cases or samples, m candidates;
i j k of a file as it is stored, x y s of its array as it is read.
"""

from typing import Any

from jaxtyping import Array, Bool, Float, Float32, Int, Integer, Key, Real, Shaped, UInt8

Labels = Int[Array, "b *space"] | UInt8[Array, "b *space"]
Probabilities = Float[Array, "b *space k"]
Logits = Float[Array, "b *space k"]
Weights = Float[Array, " b"]  # 1 for a real sample, 0 for padding
Scalar = Float[Array, ""]
PRNGKey = Key[Array, ""]
Keys = Key[Array, " b"]  # one for each sample
Variables = dict[str, Any]  # Flax: {"params": …, "batch_stats": …}
AnyArray = Any  # of jax on the device, or of numpy on the host

__all__ = [
    "AnyArray",
    "Array",
    "Bool",
    "Float",
    "Float32",
    "Int",
    "Integer",
    "Key",
    "Keys",
    "Labels",
    "Logits",
    "PRNGKey",
    "Probabilities",
    "Real",
    "Scalar",
    "Shaped",
    "UInt8",
    "Variables",
    "Weights",
]
