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


def dropout_network(**options):
    return NnUNet(
        width=2,
        strides=((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2)),
        kernels=((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)),
        dropout_rate=0.5,
        dropout_stages=(2, 3),
        **options,
    )


def batched_convolutions(model, variables, x, samples):
    """How many convolutions of a forward pass are done per image, and how many per image and dropout sample."""

    def logits(key):
        return model.apply(
            variables, x, True, True, method="logits", mutable=["batch_stats"], rngs={"dropout": key}
        )

    keys = jax.random.split(KEY, samples)
    text = str(jax.make_jaxpr(jax.vmap(logits))(keys))
    outputs = [line.split("=")[0] for line in text.splitlines() if "= conv_general_dilated[" in line]
    sizes = [int(line.split("f32[")[1].split(",")[0]) for line in outputs]
    return sum(n <= x.shape[0] * x.shape[1] for n in sizes), len(sizes)


def test_what_lies_before_the_first_dropout_is_computed_once_for_all_samples(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # one convolution per layer
    model, x = dropout_network(), jnp.zeros((2, 4, 16, 16, 1))
    variables = jax.eval_shape(model.init, KEY, x)
    variables = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), variables)
    once, everything = batched_convolutions(model, variables, x, samples=50)
    # encoder: 2 + 2 + 1 (the one before the first dropout); decoder: the skips of the two finest stages
    assert (once, everything) == (5 + 2, 8 + 6 + 2)  # the three outputs are matrix products


def test_samples_of_a_vmap_are_those_of_single_calls():
    model = dropout_network()
    model = model.copy(strides=model.strides[2:], kernels=model.kernels[2:], dropout_stages=(1,))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 8, 8, 1)), jnp.float32)
    variables = jax.jit(model.init)(KEY, x)
    keys = jax.random.split(KEY, 2)

    def total(params, key):
        logits, _ = model.apply(
            variables | {"params": params}, x, True, True, method="logits", mutable=["batch_stats"],
            rngs={"dropout": key},
        )  # fmt: skip
        return jnp.square(logits[0]).mean()

    def together(params):
        return jax.vmap(total, (None, 0))(params, keys).sum()

    alone = jax.jit(jax.value_and_grad(total))
    single = [alone(variables["params"], key) for key in keys]
    found = jax.jit(jax.value_and_grad(together))(variables["params"])
    chex.assert_trees_all_close(found, jax.tree.map(lambda *a: sum(a), *single), rtol=2e-3, atol=2e-4)


def test_skips_convolved_apart_give_the_same_outputs():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 8, 8, 1)), jnp.float32)
    model = dropout_network()
    almost_none = model.copy(dropout_rate=1e-9)  # rounded to a rate of 0
    variables = jax.jit(model.init)(KEY, x)
    apart = jax.jit(lambda v: almost_none.apply(v, x, False, True, rngs={"dropout": KEY}))(variables)
    joined = jax.jit(lambda v: model.apply(v, x, False, False))(variables)
    np.testing.assert_allclose(apart, joined, atol=1e-5)
