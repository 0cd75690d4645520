"""Weights of the authors' PyTorch models as Flax variables, and back.

The published state dictionaries: `Baseline_2` (`NnUNet`), `Baseline_1` (`AcdcUNet`), `Reconstructor` and the
monitoring code's `AE` (both `MaskAutoencoder`). Only the reader of `.pth` files needs PyTorch.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from qcjax.models import AcdcUNet, MaskAutoencoder, NnUNet
from qcjax.models.autoencoder import DECODER, ENCODER, REDUCTION
from qcjax.typing import Shaped, Variables

CHECKPOINT_KEYS = ("M", "R", "AE")  # where the authors' checkpoints hold segmenter and autoencoder
_COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; plays no part where the momentum is fixed
_SHOWN = 6  # keys named in full in an error


class _Layer(NamedTuple):
    """One layer under its two names."""

    torch: str
    flax: tuple[str, ...]
    kind: str  # "conv", "transposed" or "norm"
    bias: bool = True


class _Entry(NamedTuple):
    """One array under its two names."""

    torch: str
    flax: tuple[str, ...]  # collection first
    kind: str  # "conv", "transposed" or "vector"


def from_torch(model: nn.Module, state_dict: Mapping[str, Any]) -> Variables:
    """Flax variables from the state dictionary of the authors' model of the same sizes.

    Classes stay in the model's order. (The monitoring code numbers RV 1, MYO 2, LV 3, as ACDC's files do.)

    Args:
      model: an `NnUNet`, `AcdcUNet` or `MaskAutoencoder`, of any sizes.
      state_dict: the original's key -> array or tensor. Batch norm's `num_batches_tracked` may be there or not.

    Returns:
      {"params": …, "batch_stats": …}, float32.

    Raises:
      ValueError: keys that are missing or unexpected, arrays of the wrong shape or with numbers that are not
        finite; it names them.
      TypeError: another kind of model.
    """
    entries = _entries(model)
    arrays = {k: _to_numpy(v) for k, v in state_dict.items() if not k.endswith(_COUNTER)}
    _check_keys(model, arrays, entries)
    expected = _torch_shapes(model, entries, _input_channels(model, arrays))
    wrong = [
        f"{e.torch}: {arrays[e.torch].shape} found, expected {expected[e.torch]}"
        for e in entries
        if arrays[e.torch].shape != expected[e.torch]
    ]
    if wrong:
        raise ValueError(f"state dictionary for {type(model).__name__}: wrong shapes: {_listed(wrong, '; ')}")
    endless = [e.torch for e in entries if not np.isfinite(arrays[e.torch]).all()]
    if endless:
        found = _listed(endless, ", ")
        raise ValueError(f"state dictionary for {type(model).__name__}: NaN or infinite numbers in {found}")
    flat = {e.flax: jnp.asarray(_to_flax_layout(e.kind, arrays[e.torch]), jnp.float32) for e in entries}
    return unflatten_dict(flat)


def to_torch(model: nn.Module, variables: Variables) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The state dictionary of the authors' model from Flax variables; `from_torch` the other way round.

    Whatever is shaped like variables can be translated, such as a gradient; collections that aren't there are
    left out. Copy the arrays into tensors (`torch.tensor`) and give them to `load_state_dict`.

    Args:
      model: as for `from_torch`.
      variables: {"params": …} with or without {"batch_stats": …}.

    Returns:
      The original's key -> float32 array, and 0 for each `num_batches_tracked`.

    Raises:
      ValueError: arrays that the model should have are missing, or others are there; it names them.
      TypeError: another kind of model.
    """
    entries = [e for e in _entries(model) if e.flax[0] in variables]
    flat = flatten_dict({k: variables[k] for k in {e.flax[0] for e in entries}})
    _compare_names(
        f"variables of {type(model).__name__}",
        {"/".join(k) for k in flat},
        {"/".join(e.flax) for e in entries},
    )
    state = {}
    for e in entries:
        array = np.asarray(flat[e.flax], np.float32)
        state[e.torch] = np.ascontiguousarray(_to_torch_layout(e.kind, array))
        if e.torch.endswith("running_var"):
            state[e.torch.replace("running_var", _COUNTER)] = np.zeros((), np.int64)
    return state


def load_torch_checkpoint(path: str | Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The model's state dictionary in one of the authors' checkpoints.

    Args:
      path: a `.pth` file that holds {"M": …}, {"R": …} or {"AE": …} (the optimiser's state beside it is not
        read), or a bare state dictionary.

    Returns:
      The original's key -> array, for `from_torch`.

    Raises:
      ImportError: PyTorch is not installed.
      FileNotFoundError: no such file.
      ValueError, TypeError: the file holds something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"{path}: PyTorch is needed to read a .pth file; `pip install torch`") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and PyTorch's own errors, according to how the file is broken
        raise ValueError(f"{path}: not a PyTorch checkpoint of weights ({error})") from error
    if not isinstance(content, Mapping):
        raise TypeError(f"{path}: a {type(content).__name__} found, expected a dictionary")
    found = [k for k in CHECKPOINT_KEYS if k in content]
    if len(found) > 1:
        raise ValueError(f"{path}: models {found} found, expected one")
    state = content[found[0]] if found else content
    if not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(
            f"{path}: keys {_listed(sorted(map(str, content)))} found, "
            f"expected one of {', '.join(CHECKPOINT_KEYS)} or a state dictionary"
        )
    return {k: _to_numpy(v) for k, v in state.items()}


def from_torch_file(model: nn.Module, path: Path) -> Variables:
    """Flax variables from one of the authors' checkpoints; errors as of the two functions, which name the file."""
    state = load_torch_checkpoint(path)
    try:
        return from_torch(model, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _layers(model: nn.Module) -> list[_Layer]:
    match model:
        case NnUNet():
            return _nnunet_layers(len(model.strides))
        case AcdcUNet():
            return _acdc_layers()
        case MaskAutoencoder():
            return _autoencoder_layers()
    raise TypeError(f"{type(model).__name__} found, expected NnUNet, AcdcUNet or MaskAutoencoder")


def _nnunet_layers(stages: int) -> list[_Layer]:
    """`Generic_UNet` counts the decoder from the coarsest, and wraps the last encoder stage as the decoder's."""

    def block(torch: str, name: str) -> list[_Layer]:
        return [
            _Layer(f"{torch}.conv", (name, "conv"), "conv"),
            _Layer(f"{torch}.instnorm", (name, "norm"), "norm"),
        ]

    layers = []
    for i in range(stages):
        for j in range(2):
            place = f"{i}.{j}.blocks.0" if i == stages - 1 else f"{i}.blocks.{j}"
            layers += block(f"unet.conv_blocks_context.{place}", f"down_{i}_{j}")
    for u in range(stages - 1):
        i = stages - 2 - u
        layers.append(_Layer(f"unet.tu.{u}", (f"upsample_{i}",), "transposed", bias=False))
        for j in range(2):
            layers += block(f"unet.conv_blocks_localization.{u}.{j}.blocks.0", f"up_{i}_{j}")
        layers.append(_Layer(f"unet.seg_outputs.{u}", (f"head_{i}",), "conv", bias=False))
    return layers


def _acdc_layers() -> list[_Layer]:
    """`Baseline_1.layers`: per stage, where it is in the list and what stands before its first convolution."""
    stages = [("down_0", 0, 0), ("down_1", 1, 1), ("down_2", 2, 2), ("down_3", 3, 2), ("down_4", 4, 2)]
    stages += [("up_3", 5, 1), ("up_2", 6, 1), ("up_1", 8, 1), ("up_0", 10, 1)]
    layers = []
    for name, index, first in stages:
        for j in range(2):
            at = first + 3 * j
            layers.append(_Layer(f"layers.{index}.{at}", (name, f"conv_{j}"), "conv"))
            layers.append(_Layer(f"layers.{index}.{at + 2}", (name, f"norm_{j}"), "norm"))
    heads = [("head_0", "layers.10.7"), ("head_2", "layers.11.0"), ("head_1", "layers.12")]
    return layers + [_Layer(torch, (name,), "conv") for name, torch in heads]


def _autoencoder_layers() -> list[_Layer]:
    """Both halves are plain sequences: convolution, norm, activation, dropout."""
    layers = []
    for half, kind, n, last in (
        ("encoder", "conv", len(ENCODER), "latent"),
        ("decoder", "transposed", len(DECODER), "head"),
    ):
        for i in range(n):
            layers.append(_Layer(f"{half}.{4 * i}", (f"{half}_{i}",), kind))
            layers.append(_Layer(f"{half}.{4 * i + 1}", (f"{half}_{i}_norm",), "norm"))
        layers.append(_Layer(f"{half}.{4 * n}", (last,), kind))
    return layers


def _entries(model: nn.Module) -> list[_Entry]:
    entries = []
    for layer in _layers(model):
        params, stats = ("params", *layer.flax), ("batch_stats", *layer.flax)
        if layer.kind == "norm":
            entries += [
                _Entry(f"{layer.torch}.weight", (*params, "scale"), "vector"),
                _Entry(f"{layer.torch}.bias", (*params, "bias"), "vector"),
                _Entry(f"{layer.torch}.running_mean", (*stats, "mean"), "vector"),
                _Entry(f"{layer.torch}.running_var", (*stats, "var"), "vector"),
            ]
            continue
        entries.append(_Entry(f"{layer.torch}.weight", (*params, "kernel"), layer.kind))
        if layer.bias:
            entries.append(_Entry(f"{layer.torch}.bias", (*params, "bias"), "vector"))
    return entries


def _to_flax_layout(kind: str, array: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in, *kernel), or (in, out, *kernel) of a transposed convolution -> (*kernel, in, out)."""
    if kind == "vector":
        return array
    array = np.moveaxis(array, (0, 1), (-2, -1))
    return array if kind == "transposed" else array.swapaxes(-2, -1)


def _to_torch_layout(kind: str, array: np.ndarray) -> np.ndarray:
    if kind == "vector":
        return array
    array = array if kind == "transposed" else array.swapaxes(-2, -1)
    return np.moveaxis(array, (-2, -1), (0, 1))


def _to_numpy(value: Any) -> np.ndarray:
    """An array, or a tensor on any device, with or without gradient."""
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)


def _input_channels(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> int:
    """The number of channels of the images that the weights are for; of the autoencoder, its classes."""
    if isinstance(model, MaskAutoencoder):
        return model.classes
    first = next(e for e in _entries(model) if e.kind == "conv")
    weight = arrays[first.torch]
    return weight.shape[1] if weight.ndim > 1 else 1


def _torch_shapes(model: nn.Module, entries: list[_Entry], channels: int) -> dict[str, tuple[int, ...]]:
    """What every array should be shaped like, from the model itself, without computing anything."""
    space: tuple[int, ...] = (REDUCTION, REDUCTION) if isinstance(model, MaskAutoencoder) else (16, 16)
    if isinstance(model, NnUNet):
        space = tuple(prod(s) for s in zip(*model.strides, strict=True))
    sample = jax.ShapeDtypeStruct((1, *space, channels), jnp.float32)
    flat = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), sample))
    # a zero-strided array has the shape without the memory
    return {
        e.torch: _to_torch_layout(e.kind, np.broadcast_to(np.float32(0), flat[e.flax].shape)).shape
        for e in entries
    }


def _check_keys(model: nn.Module, arrays: Mapping[str, np.ndarray], entries: list[_Entry]) -> None:
    _compare_names(f"state dictionary for {type(model).__name__}", set(arrays), {e.torch for e in entries})


def _compare_names(what: str, found: set[str], expected: set[str]) -> None:
    missing, unexpected = sorted(expected - found), sorted(found - expected)
    if missing or unexpected:
        parts = [f"missing {_listed(missing)}"] if missing else []
        parts += [f"unexpected {_listed(unexpected)}"] if unexpected else []
        raise ValueError(f"{what}: {'; '.join(parts)}")


def _listed(names: list[str], separator: str = ", ") -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return separator.join(names[:_SHOWN]) + more
