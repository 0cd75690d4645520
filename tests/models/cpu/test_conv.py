import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from qcjax.models import layers
from qcjax.models.cpu import conv
from qcjax.models.layers import Conv


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def ours(x, kernel, stride=(1, 1), pads=(1, 1)):
    return conv.conv(x, kernel, stride, pads)


def plain(x, kernel, stride=(1, 1), pads=(1, 1)):
    padding = [(p, p) for p in pads]
    return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def value_and_gradients(conv, x, kernel, weight):
    """Of a sum that weights every output pixel: the value, and the gradients of both arguments."""

    def both(x, kernel, weight):
        y, pullback = jax.vjp(conv, x, kernel)
        return y, *pullback(weight.astype(y.dtype))

    return jax.jit(both)(x, kernel, weight)


def assert_same(found, expected, relative=1e-5):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=relative * np.abs(b).max())


# strips: two images; three of two rows; seven of one; wider than the limit
@pytest.mark.parametrize(("batch", "height", "width"), [(4, 2, 4), (1, 6, 8), (3, 7, 9), (3, 3, 20)])
@pytest.mark.parametrize(
    ("size", "stride", "pads"),
    [
        ((3, 3), (1, 1), (1, 1)),
        ((3, 1), (1, 1), (1, 0)),
        ((3, 3), (2, 2), (1, 1)),
        ((4, 4), (2, 2), (1, 1)),
        ((2, 2), (1, 1), (0, 0)),
        ((3, 1), (2, 1), (1, 0)),
    ],
)
def test_value_and_gradients_are_the_plain_convolutions(
    monkeypatch, batch, height, width, size, stride, pads
):
    monkeypatch.setattr(conv, "STRIP_PIXELS", 16)
    x, kernel = normal(batch, height, width, 4), normal(*size, 4, 6, seed=1)
    weight = normal(*plain(x, kernel, stride, pads).shape, seed=2)
    assert_same(
        *(value_and_gradients(lambda *a, f=f: f(*a, stride, pads), x, kernel, weight) for f in (ours, plain))
    )


def test_a_strip_is_the_most_that_divides_and_fits():
    assert conv.largest_divisor(256, 8) == 8 and conv.largest_divisor(32, 64) == 32
    assert [conv.largest_divisor(n, 4) for n in (6, 7, 8, 16)] == [3, 1, 4, 4]
    assert conv.largest_divisor(4, 0) == 1


def test_vmap_over_images_or_kernels(monkeypatch):
    monkeypatch.setattr(conv, "STRIP_PIXELS", 16)
    x, kernel, weight = normal(5, 2, 6, 8, 3), normal(3, 3, 3, 4, seed=1), normal(5, 2, 6, 8, 4, seed=2)

    def both(conv, axes):
        kernels = kernel if axes is None else jnp.stack([kernel * i for i in range(1, 6)])
        return jax.jit(jax.vmap(lambda x, k, w: value_and_gradients(conv, x, k, w), in_axes=(0, axes, 0)))(
            x, kernels, weight
        )

    for axes in (None, 0):
        assert_same(both(ours, axes), both(plain, axes))


def test_bfloat16_is_as_exact_as_float32_rounded(monkeypatch):
    monkeypatch.setattr(conv, "STRIP_PIXELS", 16)
    x, kernel, weight = (
        a.astype(jnp.bfloat16)
        for a in (normal(2, 6, 8, 3), normal(3, 3, 3, 4, seed=1), normal(2, 6, 8, 4, seed=2))
    )
    found = value_and_gradients(ours, x, kernel, weight)
    assert {a.dtype for a in found} == {jnp.dtype(jnp.bfloat16)}
    exact = value_and_gradients(plain, *(a.astype(jnp.float32) for a in (x, kernel, weight)))
    assert_same(found[2:], [exact[2].astype(jnp.bfloat16)], relative=2**-8)
    assert_same(found[:2], [a.astype(jnp.bfloat16) for a in exact[:2]], relative=2**-6)


def gradient_of_layer(x, **options):
    layer = Conv(4, **options)
    params = layer.init(jax.random.key(0), x)
    return params, lambda params, x: jax.grad(lambda p: jnp.square(layer.apply(p, x)).sum())(params)


def test_several_devices_give_the_gradient_of_one(monkeypatch):
    x = normal(4, 8, 8, 3)
    params, of_one = gradient_of_layer(x)
    expected = of_one(params, x)
    monkeypatch.setattr(conv, "MIN_SIZE", 1)
    monkeypatch.setattr(conv, "MIN_FEATURES", 1)
    monkeypatch.setattr(conv, "STRIP_PIXELS", 16)
    mapped = jax.pmap(
        lambda p, x: lax.psum(of_one(p, x), "devices"),
        "devices",
        in_axes=(None, 0),
        devices=jax.devices()[:2],
    )(params, x.reshape(2, 2, 8, 8, 3))
    found = jax.tree.map(lambda a: a[0], mapped)
    assert_same(jax.tree.leaves(found), jax.tree.leaves(expected))


@pytest.mark.parametrize("options", [{}, {"stride": (2, 2)}, {"padding": 0}, {"kernel": (1, 1)}])
def test_a_layer_uses_it_unless_it_is_a_matrix_product(monkeypatch, options):
    x = normal(2, 8, 8, 3)
    monkeypatch.setattr(conv, "MIN_FEATURES", 5)
    params, gradient = gradient_of_layer(x, **options)
    expected = gradient(params, x)
    monkeypatch.setattr(conv, "MIN_SIZE", 63)
    monkeypatch.setattr(conv, "MIN_FEATURES", 4)
    found = gradient(params, x)
    assert_same(jax.tree.leaves(found), jax.tree.leaves(expected))
    assert ("custom_vjp" in str(jax.make_jaxpr(Conv(4, **options).apply)(params, x))) == (
        "kernel" not in options
    )


def test_small_images_few_features_and_other_backends_keep_the_plain_one(monkeypatch):
    same, halved = ((1, 1), (1, 1)), ((2, 2), (1, 1))
    assert conv.pays((1, 33, 32, 3), (3, 3, 3, 32), *same)
    assert conv.pays((1, 16, 16, 3), (3, 3, 3, 129), *same)
    assert not conv.pays((1, 32, 32, 3), (3, 3, 3, 32), *same)
    assert not conv.pays((1, 64, 64, 3), (3, 3, 3, 31), *same)
    assert not conv.pays((1, 64, 64, 3), (1, 1, 3, 32), (1, 1), (0, 0))
    assert conv.pays((1, 65, 64, 3), (3, 3, 3, 32), *halved)
    assert not conv.pays((1, 64, 64, 3), (3, 3, 3, 32), *halved)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not conv.pays((1, 64, 64, 3), (3, 3, 3, 32), *same)


VOLUMES = [
    # kernel, stride, padding, (s, h, w)
    ((1, 3, 3), (1, 1, 1), (0, 1, 1), (3, 6, 8)),
    ((1, 3, 3), (1, 2, 2), (0, 1, 1), (3, 6, 8)),
    ((3, 3, 3), (1, 1, 1), (1, 1, 1), (3, 6, 8)),
    ((3, 3, 3), (1, 2, 2), (1, 1, 1), (3, 6, 8)),
    ((3, 3, 3), (2, 2, 2), (1, 1, 1), (4, 6, 8)),
    ((3, 3, 3), (2, 2, 2), (1, 1, 1), (5, 7, 9)),
    ((1, 1, 1), (1, 1, 1), (0, 0, 0), (3, 6, 8)),
    ((1, 1, 1), (2, 2, 2), (0, 0, 0), (5, 6, 8)),
    ((3, 1, 1), (2, 1, 1), (1, 0, 0), (4, 6, 8)),
    ((4, 4, 4), (2, 2, 2), (1, 1, 1), (4, 6, 8)),
    ((3, 3, 3), (1, 1, 1), (0, 0, 0), (3, 6, 8)),
]


def plain_3d(stride, pads):
    return lambda x, kernel: lax.conv_general_dilated(
        x, kernel, stride, [(p, p) for p in pads], dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


@pytest.mark.parametrize(("size", "stride", "pads", "space"), VOLUMES)
def test_folded_depth_gives_the_3d_convolutions_value_and_gradients(monkeypatch, size, stride, pads, space):
    # so that the slices are convolved by `conv` where they can be
    monkeypatch.setattr(conv, "MIN_SIZE", 1)
    monkeypatch.setattr(conv, "MIN_FEATURES", 1)
    monkeypatch.setattr(conv, "STRIP_PIXELS", 16)
    x, kernel = normal(2, *space, 3), normal(*size, 3, 4, seed=1)
    convs = [lambda x, kernel: layers.convolve(x, kernel, stride, pads), plain_3d(stride, pads)]
    weight = normal(*jax.eval_shape(convs[1], x, kernel).shape, seed=2)
    assert_same(*(value_and_gradients(conv, x, kernel, weight) for conv in convs))


def test_folded_depth_under_vmap_over_volumes():
    stride, pads = (2, 2, 2), (1, 1, 1)
    x, kernel, weight = (
        normal(5, 2, 4, 6, 8, 3),
        normal(3, 3, 3, 3, 4, seed=1),
        normal(5, 2, 2, 3, 4, 4, seed=2),
    )

    def gradients(conv):
        """Of a sum over the samples, with the kernel common to them."""

        def total(x, kernel):
            return (jax.vmap(conv, in_axes=(0, None))(x, kernel) * weight).sum()

        return jax.jit(jax.value_and_grad(total, (0, 1)))(x, kernel)

    def folded(x, kernel):
        return layers.convolve(x, kernel, stride, pads)

    found, expected = (jax.tree.leaves(gradients(conv)) for conv in (folded, plain_3d(stride, pads)))
    assert_same(found, expected)


def test_only_volumes_on_a_cpu_are_folded(monkeypatch):
    assert conv.folds((3, 3, 3, 1, 1)) and not conv.folds((3, 3, 1, 1))
    x, kernel = normal(1, 3, 4, 4, 1), normal(3, 3, 3, 1, 1)
    arguments = x, kernel, (1, 1, 1), (1, 1, 1)
    assert layers.convolve(*arguments).shape == (1, 3, 4, 4, 1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    text = str(jax.make_jaxpr(lambda x, k: layers.convolve(x, k, *arguments[2:]))(x, kernel))
    assert text.count("conv_general_dilated[") == 1
