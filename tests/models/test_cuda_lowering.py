"""A training step as XLA gets it for a GPU, without one: its convolutions' type and layout, and what is reused."""

import re
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from qcjax import losses
from qcjax.data.batches import Batch
from qcjax.models import AcdcUNet, MaskAutoencoder, NnUNet
from qcjax.train import state as states
from qcjax.train import updates

SIZE, CLASSES = 64, 4
F32 = jnp.float32


def lowered(network: nn.Module, autoencoder: bool) -> str:
    """The step's StableHLO for CUDA, its state given away."""
    tx = states.adam() if autoencoder else states.sgd()
    if autoencoder:
        update = updates.make_autoencoder_update(network, tx, "paper")
    else:
        update = updates.make_supervised_update(network, tx, losses.SUPERVISED["paper"])

    def of(shape: tuple[int, ...], dtype: object = F32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    channels = CLASSES if autoencoder else 1
    state = states.shapes(network, tx, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, channels)))
    batch = Batch(of((2, SIZE, SIZE, 1)), of((2, SIZE, SIZE), jnp.int32), of((2,)))
    key = jax.eval_shape(lambda: jax.random.key(0))
    more = (of((), bool),) if autoencoder else ()
    traced = jax.jit(update, donate_argnums=0).trace(state, batch, key, of(()), *more)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (NnUNet(width=4, max_width=8, strides=((1, 1), (2, 2)), dtype=jnp.bfloat16), 6),
        (AcdcUNet(width=4, dtype=jnp.bfloat16), 18),
        (MaskAutoencoder(width=4, latent=4, dtype=jnp.bfloat16), 20),
    ],
    ids=["nnunet", "acdc_unet", "autoencoder"],
)
def test_what_a_gpu_would_be_given(network: nn.Module, layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # else the forms for a CPU's caches are traced
    text = lowered(network, isinstance(network, MaskAutoencoder))
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    # no float32 where bfloat16 was asked for: forward, input's and kernel's gradient of each layer
    types = Counter(re.findall(r"x(f32|bf16)>", line.rsplit(":", 1)[1])[0] for line in convolutions)
    assert types == {"bf16": 3 * layers - 1}  # the image needs no gradient
    layouts = Counter(
        re.search(r"dim_numbers = (\[.*?\])x\[.*?\]->(\[.*?\])", x).groups() for x in convolutions
    )  # type: ignore[union-attr]
    channels_last, of_kernel = ("[b, 0, 1, f]", "[b, 0, 1, f]"), ("[f, 0, 1, b]", "[0, 1, b, f]")
    assert layouts == {channels_last: 2 * layers - 1, of_kernel: layers}
    # activations are never transposed as a whole, channels first: at most pixels regrouped, channels staying last
    moved = re.findall(r"stablehlo.transpose .* dims = \[([\d, ]+)\] : \(tensor<2x\d+x\d+x", text)
    assert all(dims.split(", ")[-1] == str(len(dims.split(", ")) - 1) for dims in moved)
    # the new state takes the place of the old one, but for its key's; nothing calls back to the host
    assert text.count("tf.aliasing_output") >= 5 * layers
    assert "callback" not in text
