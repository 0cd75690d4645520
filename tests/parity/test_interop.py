"""Weights of the authors' models: keys, shapes, both ways, and what goes wrong."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.interop import from_torch, load_torch_checkpoint, to_torch
from qcjax.models import AcdcUNet, MaskAutoencoder, NnUNet
from qcjax.typing import Variables
from tests.parity import formulas as f
from tests.parity.golden import load

SMALL: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "nnunet": (NnUNet(width=3, max_width=7, strides=((1, 1), (2, 2), (2, 2))), (1, 4, 4, 2)),
    "nnunet, 3-D": (NnUNet(width=2, max_width=5, strides=((1, 1, 1), (1, 2, 2), (2, 2, 2))), (1, 2, 4, 4, 1)),
    "acdc_unet": (AcdcUNet(width=2, classes=3), (1, 16, 16, 1)),
    "autoencoder": (MaskAutoencoder(width=2, latent=5, classes=3), (1, 64, 64, 3)),
}
FULL: dict[str, nn.Module] = {"nnunet": NnUNet(), "acdc_unet": AcdcUNet(), "autoencoder": MaskAutoencoder()}


def shapes_of_variables(model: nn.Module, sample: tuple[int, ...]) -> Any:
    """The tree of the model's variables, without values."""
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(sample, jnp.float32))


def filled(model: nn.Module, sample: tuple[int, ...]) -> Variables:
    """Variables in which every element is another number."""
    leaves, tree = jax.tree.flatten(shapes_of_variables(model, sample))
    starts = np.cumsum([0, *(leaf.size for leaf in leaves)])
    values = [
        np.arange(i, i + s.size, dtype=np.float32).reshape(s.shape)
        for i, s in zip(starts, leaves, strict=False)
    ]
    return jax.tree.unflatten(tree, values)


class Tensor:
    """What of PyTorch's tensor is needed."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def detach(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return self

    def numpy(self) -> np.ndarray:
        return self.array


@pytest.fixture
def autoencoder_state() -> dict[str, np.ndarray]:
    return to_torch(SMALL["autoencoder"][0], filled(*SMALL["autoencoder"]))


@pytest.mark.parametrize("name", SMALL)
def test_there_and_back(name: str) -> None:
    model, sample = SMALL[name]
    variables = filled(model, sample)
    state = to_torch(model, variables)
    found = from_torch(model, {k: Tensor(v) for k, v in state.items()})
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert len({float(v.ravel()[0]) for v in state.values() if v.ndim}) == len(jax.tree.leaves(variables))


@pytest.mark.parametrize("name", FULL)
def test_keys_and_shapes_are_the_authors(name: str) -> None:
    channels = {"nnunet": (1, 64, 64, 1), "acdc_unet": (1, 16, 16, 1), "autoencoder": (1, 64, 64, 4)}
    shapes = shapes_of_variables(FULL[name], channels[name])
    variables = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes)
    found = {k: list(v.shape) for k, v in to_torch(FULL[name], variables).items()}
    assert found == json.loads(str(load(name)["shapes"]))


def test_kernels_are_laid_out_as_jax_wants_them(autoencoder_state: dict[str, np.ndarray]) -> None:
    params = filled(*SMALL["autoencoder"])["params"]
    torch_kernel, kernel = autoencoder_state["encoder.0.weight"], params["encoder_0"]["kernel"]
    assert torch_kernel[1, 2, 3, 0] == kernel[3, 0, 2, 1]  # (out, in, h, w) and (h, w, in, out)
    torch_kernel, kernel = autoencoder_state["decoder.0.weight"], params["decoder_0"]["kernel"]
    assert torch_kernel[4, 1, 3, 0] == kernel[3, 0, 4, 1]  # (in, out, h, w) and (h, w, in, out)


def test_counters_of_batch_norm_may_be_missing(autoencoder_state: dict[str, np.ndarray]) -> None:
    without = {k: v for k, v in autoencoder_state.items() if not k.endswith("num_batches_tracked")}
    assert len(without) < len(autoencoder_state)
    jax.tree.map(
        np.testing.assert_array_equal,
        from_torch(SMALL["autoencoder"][0], without),
        from_torch(SMALL["autoencoder"][0], autoencoder_state),
    )


def test_an_error_names_missing_and_unexpected_keys(autoencoder_state: dict[str, np.ndarray]) -> None:
    del autoencoder_state["encoder.5.running_var"]
    autoencoder_state["encoder.99.weight"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"missing encoder\.5\.running_var; unexpected encoder\.99\.weight"):
        from_torch(SMALL["autoencoder"][0], autoencoder_state)


def test_an_error_names_wrong_shapes(autoencoder_state: dict[str, np.ndarray]) -> None:
    autoencoder_state["decoder.36.weight"] = np.zeros((2, 4, 4, 4))
    with pytest.raises(
        ValueError, match=r"decoder\.36\.weight: \(2, 4, 4, 4\) found, expected \(2, 3, 4, 4\)"
    ):
        from_torch(SMALL["autoencoder"][0], autoencoder_state)


def test_a_checkpoint_of_another_model_is_refused(autoencoder_state: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"for AcdcUNet: missing .* and \d+ more; unexpected"):
        from_torch(SMALL["acdc_unet"][0], autoencoder_state)


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(TypeError, match="Dense found, expected NnUNet, AcdcUNet or MaskAutoencoder"):
        from_torch(nn.Dense(3), {})


def test_variables_of_another_model_are_refused() -> None:
    variables = filled(*SMALL["acdc_unet"])
    with pytest.raises(ValueError, match=r"variables of MaskAutoencoder: missing .*decoder_0_norm"):
        to_torch(SMALL["autoencoder"][0], variables)


def test_gradients_can_be_translated(autoencoder_state: dict[str, np.ndarray]) -> None:
    params = filled(*SMALL["autoencoder"])["params"]
    found = to_torch(SMALL["autoencoder"][0], {"params": params})
    np.testing.assert_array_equal(found["encoder.1.weight"], autoencoder_state["encoder.1.weight"])
    assert not any("running" in k for k in found)


def stand_in(monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    """A module `torch` whose `load` returns what is given."""

    def load_file(path: Path, map_location: str, weights_only: bool) -> Any:
        assert weights_only
        assert map_location == "cpu"
        if isinstance(content, Exception):
            raise content
        return content

    module = types.ModuleType("torch")
    module.load, module.Tensor = load_file, Tensor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", module)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "best_000.pth"
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize("key", ["M", "R", "AE", None])
def test_checkpoints_are_read(key: str | None, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"encoder.0.bias": Tensor(np.arange(3.0))}
    stand_in(monkeypatch, {key: state, f"{key}_optim": {"state": {}}, "epoch": 3} if key else state)
    found = load_torch_checkpoint(file)
    assert list(found) == ["encoder.0.bias"]
    np.testing.assert_array_equal(found["encoder.0.bias"], [0, 1, 2])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"weights": {}, "step": 3}, ValueError, "keys step, weights found, expected one of M, R, AE"),
        ({"M": {}, "R": {}}, ValueError, r"models \['M', 'R'\] found, expected one"),
        ([1, 2], TypeError, "a list found, expected a dictionary"),
        (RuntimeError("corrupt"), ValueError, r"not a PyTorch checkpoint of weights \(corrupt\)"),
    ],
)
def test_other_files_are_refused(
    content: Any, error: type[Exception], message: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, content)
    with pytest.raises(error, match=message):
        load_torch_checkpoint(file)


def test_without_torch_the_error_says_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="PyTorch is needed to read a .pth file"):
        load_torch_checkpoint(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such checkpoint"):
        load_torch_checkpoint(tmp_path / "none.pth")


def test_formula_weights_are_a_function_of_key_and_shape() -> None:
    first, second = (f.state_dict({"encoder.0.weight": (3, 2, 4, 4), "other": (5,)}) for _ in range(2))
    np.testing.assert_array_equal(first["encoder.0.weight"], second["encoder.0.weight"])
    assert first["encoder.0.weight"].std() == pytest.approx(np.sqrt(2 / 32), rel=0.2)
