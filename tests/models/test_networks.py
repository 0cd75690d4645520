import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.models import AcdcUNet, MaskAutoencoder, NnUNet

KEY = jax.random.key(0)


def count(model, *shape):
    variables = jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("model", "channels", "expected"),
    [(NnUNet(), 1, 29_968_992), (AcdcUNet(), 1, 17_661_372), (MaskAutoencoder(), 4, 779_176)],
    ids=["nnunet", "acdc_unet", "autoencoder"],
)
def test_parameters_at_full_size(model, channels, expected):
    assert count(model, 1, 256, 256, channels) == expected


def test_nnunet_has_an_output_per_resolution():
    shapes = jax.eval_shape(
        lambda x: NnUNet().init_with_output(KEY, x, method="logits")[0],
        jax.ShapeDtypeStruct((2, 256, 256, 1), jnp.float32),
    )
    assert [x.shape for x in shapes] == [(2, 256 // 2**i, 256 // 2**i, 4) for i in range(6)]


def test_nnunets_widths():
    variables = jax.eval_shape(NnUNet().init, KEY, jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32))
    widths = [variables["params"][f"down_{i}_0"]["conv"]["kernel"].shape[-1] for i in range(7)]
    assert widths == [32, 64, 128, 256, 480, 480, 480]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kind", [NnUNet, AcdcUNet, MaskAutoencoder])
def test_networks_give_float32_probabilities(kind, dtype):
    sizes = {NnUNet: dict(strides=((1, 1), (2, 2), (2, 2))), MaskAutoencoder: dict(latent=3), AcdcUNet: {}}
    model = kind(width=2, dtype=dtype, **sizes[kind])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64, 64, 4 if kind is MaskAutoencoder else 1)))
    variables = jax.jit(model.init)(KEY, x)
    y = jax.jit(model.apply)(variables, x)
    assert (y.shape, y.dtype) == ((2, 64, 64, 4), jnp.float32)
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)
    chex.assert_type(jax.tree.leaves(variables), jnp.float32)


def test_nnunet_in_three_dimensions():
    model = NnUNet(
        width=2,
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        dropout_rate=0.5,
        dropout_stages=(2,),
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 8, 8, 1)), jnp.float32)
    variables = jax.jit(model.init)(KEY, x)
    apply = jax.jit(
        lambda key: model.apply(variables, x, False, True, method="logits", rngs={"dropout": key})
    )
    outputs = apply(KEY)
    assert [y.shape for y in outputs] == [(2, 4, 8, 8, 4), (2, 4, 4, 4, 4)]
    assert np.abs(outputs[0] - apply(jax.random.key(1))[0]).max() > 1e-4
    np.testing.assert_array_equal(outputs[0], apply(KEY)[0])


def test_the_autoencoder_refuses_other_shapes():
    model = MaskAutoencoder(width=2)
    for shape in ((1, 96, 64, 4), (1, 64, 64, 3)):
        with pytest.raises(ValueError, match=r"expected \(b, h, w, 4\) with h and w multiples of 64"):
            jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_authors_initialisation_has_random_biases():
    x = jnp.zeros((1, 64, 64, 4))
    ours = jax.jit(MaskAutoencoder(width=2).init)(KEY, x)["params"]["encoder_0"]["bias"]
    theirs = jax.jit(MaskAutoencoder(width=2, initialisation="he_uniform").init)(KEY, x)["params"]
    assert not ours.any()
    bound = (4 * 4 * 4) ** -0.5
    bias = np.asarray(theirs["encoder_0"]["bias"])
    assert bias.all() and np.abs(bias).max() <= bound
    assert np.abs(theirs["encoder_0"]["kernel"]).max() <= np.sqrt(6) * bound
