"""The vocabulary of array shapes.

Axes: b batch, s slices, h w height and width, c channels, k classes, n cases or samples, m candidates.
"""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt8

Volumes = Float[Array, "b d h w c"]
Labels = Int[Array, "b *space"] | UInt8[Array, "b *space"]
Probabilities = Float[Array, "b *space k"]
Logits = Float[Array, "b *space k"]
Weights = Float[Array, " b"]  # 1 for a real sample, 0 for padding
Scalar = Float[Array, ""]
PRNGKey = Key[Array, ""] | UInt8[Array, "..."] | Shaped[Array, "2"]
Variables = dict[str, Any]  # Flax: {"params": …, "batch_stats": …}
AnyArray = Any  # of jax on the device, or of numpy on the host

__all__ = [
    "AnyArray",
    "Array",
    "Bool",
    "Float",
    "Int",
    "Key",
    "Labels",
    "Logits",
    "PRNGKey",
    "Probabilities",
    "Scalar",
    "Shaped",
    "UInt8",
    "Variables",
    "Volumes",
    "Weights",
]
