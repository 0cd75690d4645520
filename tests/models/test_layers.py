import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from qcjax.models import layers
from qcjax.models.cpu import subpixel
from qcjax.runtime.devices import AXIS


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def transposed_naively(x, w, stride, padding):
    """Every input pixel adds its kernel to the output, whose border of `padding` is cut off."""
    ndim = x.ndim - 2
    space = [(n - 1) * s + k for n, s, k in zip(x.shape[1:-1], stride, w.shape, strict=False)]
    y = np.zeros((x.shape[0], *space, w.shape[-1]))
    for place in np.ndindex(*x.shape[1:-1]):
        window = tuple(slice(i * s, i * s + k) for i, s, k in zip(place, stride, w.shape, strict=False))
        y[(slice(None), *window)] += np.einsum("bi,...io->b...o", x[(slice(None), *place)], w)
    return y[(slice(None), *(slice(padding, n - padding) for n in space))] if ndim else y


GEOMETRIES = [
    ((2, 2), (2, 2), 0),
    ((1, 2, 2), (1, 2, 2), 0),
    ((3, 3), (1, 1), 1),
    ((4, 4), (2, 2), 1),
    ((4, 4, 4), (2, 2, 2), 1),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_conv_transpose_is_the_naive_one(kernel, stride, padding):
    layer = layers.ConvTranspose(5, kernel, stride, random_bias=True)
    x = normal(2, *(3, 4, 2)[: len(kernel)], 3)
    params = layer.init(jax.random.key(0), x)
    w, bias = params["params"]["kernel"], params["params"]["bias"]
    assert w.shape == (*kernel, 3, 5)
    assert np.abs(bias).max() > 0
    expected = transposed_naively(np.asarray(x), np.asarray(w), stride, padding) + np.asarray(bias)
    np.testing.assert_allclose(layer.apply(params, x), expected, atol=1e-5)


def test_conv_transpose_and_its_gradient_are_those_of_lax():
    layer = layers.ConvTranspose(5, (4, 4), (2, 2), use_bias=False)
    x, target = normal(2, 3, 4, 3), normal(2, 6, 8, 5, seed=1)
    params = layer.init(jax.random.key(0), x)

    def of_lax(params, x):
        w = params["params"]["kernel"][::-1, ::-1]  # lax doesn't flip
        return lax.conv_transpose(x, w, (2, 2), [(2, 2), (2, 2)], dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def gradient(f):
        return jax.grad(lambda p, x: (f(p, x) * target).sum(), (0, 1))(params, x)

    np.testing.assert_allclose(layer.apply(params, x), of_lax(params, x), atol=1e-5)
    chex.assert_trees_all_close(gradient(layer.apply), gradient(of_lax), atol=1e-4)


def test_conv_transpose_refuses_other_geometries():
    layer = layers.ConvTranspose(2, (5, 5), (2, 2))
    with pytest.raises(ValueError, match=r"kernel \(5, 5\) with stride \(2, 2\) is not supported"):
        layer.init(jax.random.key(0), normal(1, 4, 4, 1))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((3, 3), None, None), ((4, 4), (2, 2), 1), ((1, 1), None, None)]
)
def test_conv_is_flaxs(kernel, stride, padding):
    x = normal(2, 8, 6, 3)
    ours = layers.Conv(4, kernel, stride, padding, random_bias=True)
    params = ours.init(jax.random.key(1), x)
    border = (kernel[0] - 1) // 2 if padding is None else padding
    theirs = nn.Conv(4, kernel, stride or 1, padding=border)
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-5)


def test_bfloat16_stays_inside_the_layers():
    x = normal(2, 4, 4, 3)
    layer = layers.Conv(4, dtype=jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)
    chex.assert_type(jax.tree.leaves(params), jnp.float32)
    assert layer.apply(params, x).dtype == jnp.bfloat16


def test_initialisation_has_hes_variance():
    key, shape = jax.random.key(0), (3, 3, 40, 20)
    for init, fan_in in ((layers.he_normal(0.01), 360), (layers.he_normal(0.01, transposed=True), 180)):
        np.testing.assert_allclose(init(key, shape).var(), 2 / (1 + 0.01**2) / fan_in, rtol=0.05)
    w = layers.he_uniform()(key, shape)
    np.testing.assert_allclose(w.var(), 2 / 360, rtol=0.05)
    np.testing.assert_allclose(np.abs(w).max(), np.sqrt(6 / 360), rtol=0.01)
    bias = layers.uniform_bias(25)(key, (1000,))
    np.testing.assert_allclose([bias.min(), bias.max()], [-0.2, 0.2], atol=0.01)


def test_depth_to_space_by_hand():
    x = jnp.arange(8.0).reshape(1, 1, 2, 4)  # 1 × 2 pixels, each 2 × 2 of the result
    np.testing.assert_array_equal(subpixel.depth_to_space(x, (2, 2))[0, ..., 0], [[0, 1, 4, 5], [2, 3, 6, 7]])


def test_max_pool_by_hand_and_its_gradient_at_ties():
    x = jnp.array([[[1.0, 5], [5, 2]], [[3, 3], [3, 3]], [[0, 1], [2, 3]]])[..., None]
    np.testing.assert_array_equal(layers.max_pool(x)[:, 0, 0, 0], [5, 3, 3])
    gradient = jax.grad(lambda x: layers.max_pool(x).sum())(x)[..., 0]
    np.testing.assert_array_equal(gradient, [[[0, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 1]]])


def test_upsample_repeats():
    x = normal(2, 3, 4, 2)
    np.testing.assert_array_equal(layers.upsample(x), x.repeat(2, 1).repeat(2, 2))


def norm(x, weight=None, train=True, axis_name=None):
    layer = layers.BatchNorm(axis_name=axis_name)
    variables = {
        "params": {"scale": jnp.array([1.0, 2]), "bias": jnp.array([0.5, -1])},
        "batch_stats": {"mean": jnp.array([0.1, 0.2]), "var": jnp.array([1.5, 2])},
    }
    if not train:
        return layer.apply(variables, x, False, weight)
    return layer.apply(variables, x, True, weight, mutable=["batch_stats"])


def test_batch_norm_by_hand():
    x = 3 + 2 * normal(4, 5, 6, 2)
    y, changed = norm(x)
    x = np.asarray(x)
    mean, var = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    expected = (x - mean) / np.sqrt(var + 1e-5) * np.array([1, 2]) + np.array([0.5, -1])
    np.testing.assert_allclose(y, expected, atol=1e-4)
    stats = changed["batch_stats"]
    unbiased = np.var(x, (0, 1, 2), ddof=1)
    np.testing.assert_allclose(stats["mean"], 0.9 * np.array([0.1, 0.2]) + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 * np.array([1.5, 2]) + 0.1 * unbiased, rtol=1e-5)


def test_batch_norm_by_running_statistics():
    x = normal(4, 5, 6, 2)
    scale, bias = np.array([1, 2]), np.array([0.5, -1])
    expected = (np.asarray(x) - np.array([0.1, 0.2])) / np.sqrt(np.array([1.5, 2]) + 1e-5) * scale + bias
    np.testing.assert_allclose(norm(x, train=False), expected, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_of_a_biased_convolution_without_adding_the_bias(train):
    x, bias = 3 + 2 * normal(4, 5, 6, 2), jnp.array([0.7, -1.3])
    layer = layers.BatchNorm()
    variables = {
        "params": {"scale": jnp.array([1.0, 2]), "bias": jnp.array([0.5, -1])},
        "batch_stats": {"mean": jnp.array([0.1, 0.2]), "var": jnp.array([1.5, 2])},
    }
    (factor, offset), changed = layer.apply(
        variables, x, train, None, bias, mutable=["batch_stats"], method="factors"
    )
    expected, expected_changed = layer.apply(
        variables, x + bias[None, None, None], train, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(np.asarray(x) * np.asarray(factor) + np.asarray(offset), expected, atol=1e-5)
    chex.assert_trees_all_close(changed, expected_changed, rtol=1e-5)


def test_padded_samples_do_not_count_in_batch_norm():
    x = normal(4, 5, 6, 2)
    weight = jnp.array([1.0, 1, 0, 0])
    y, changed = norm(x[:2])
    for padding in (0.0, 1e3):
        y_padded, changed_padded = norm(x.at[2:].set(padding), weight)
        np.testing.assert_allclose(y_padded[:2], y, atol=1e-6)
        chex.assert_trees_all_close(changed_padded, changed, rtol=1e-6)


def test_batch_norm_of_nothing_but_padding_is_finite():
    chex.assert_tree_all_finite(norm(normal(2, 3, 3, 2), jnp.zeros(2)))


def test_batch_norm_over_devices_is_that_of_the_whole_batch():
    x, weight = normal(8, 3, 4, 2), jnp.array([1.0, 1, 1, 1, 1, 0, 0, 0])
    y, changed = norm(x, weight)
    split = jax.pmap(lambda x, w: norm(x, w, axis_name=AXIS), axis_name=AXIS)
    y_split, changed_split = split(x.reshape(4, 2, 3, 4, 2), weight.reshape(4, 2))
    np.testing.assert_allclose(y_split.reshape(x.shape), y, atol=1e-5)
    for i in range(4):
        chex.assert_trees_all_close(jax.tree.map(lambda v, i=i: v[i], changed_split), changed, atol=1e-6)


def drop(x, rate, axis_name=None, on=True):
    return layers.Dropout(rate, axis_name).apply({}, x, on, rngs={"dropout": jax.random.key(3)})


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.1])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    y = np.asarray(drop(jnp.ones((4, 100, 100, 3)), rate))
    assert (y == 0).mean() == pytest.approx(rate, abs=0.01)
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-4)
    assert y.mean() == pytest.approx(1, abs=0.02)
    assert not (y[0] == y[1]).all()  # every sample has its own mask


def test_dropout_off_changes_nothing():
    x = normal(2, 4, 4, 3)
    np.testing.assert_array_equal(drop(x, 0.5, on=False), x)
    np.testing.assert_array_equal(drop(x, 0.0), x)


def test_dropout_masks_do_not_depend_on_the_number_of_devices():
    x = jnp.ones((8, 5, 3))
    split = jax.pmap(lambda x: drop(x, 0.5, AXIS), axis_name=AXIS)
    np.testing.assert_array_equal(split(x.reshape(4, 2, 5, 3)).reshape(x.shape), drop(x, 0.5))
