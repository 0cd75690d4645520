import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from qcjax.models import conv_cpu
from qcjax.models.layers import Conv


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def plain(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def value_and_gradients(conv, x, kernel, weight):
    """Of a sum that weights every output pixel: the value, and the gradients of both arguments."""
    y, pullback = jax.vjp(conv, x, kernel)
    return y, *pullback(weight.astype(y.dtype))


def assert_same(found, expected, relative=1e-5):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=relative * np.abs(b).max())


# strips: one for the image; three of two rows; seven of one; wider than the limit
@pytest.mark.parametrize(("height", "width"), [(2, 5), (6, 8), (7, 9), (3, 20)])
@pytest.mark.parametrize("batch", [1, 3])
def test_value_and_gradients_are_the_plain_convolutions(monkeypatch, height, width, batch):
    monkeypatch.setattr(conv_cpu, "STRIP_PIXELS", 16)
    x, kernel = normal(batch, height, width, 4), normal(3, 3, 4, 6, seed=1)
    weight = normal(batch, height, width, 6, seed=2)
    assert_same(*(value_and_gradients(f, x, kernel, weight) for f in (conv_cpu.conv3x3, plain)))


def test_strips_divide_the_image_and_fit(monkeypatch):
    assert conv_cpu._strip_rows(256, 256) == 8
    assert conv_cpu._strip_rows(32, 32) == 32
    monkeypatch.setattr(conv_cpu, "STRIP_PIXELS", 40)
    assert [conv_cpu._strip_rows(h, 10) for h in (6, 7, 8, 16)] == [3, 1, 4, 4]
    assert conv_cpu._strip_rows(4, 100) == 1


def test_vmap_over_images_or_kernels(monkeypatch):
    monkeypatch.setattr(conv_cpu, "STRIP_PIXELS", 16)
    x, kernel, weight = normal(5, 2, 6, 8, 3), normal(3, 3, 3, 4, seed=1), normal(5, 2, 6, 8, 4, seed=2)

    def both(conv, axes):
        kernels = kernel if axes is None else jnp.stack([kernel * i for i in range(1, 6)])
        return jax.jit(jax.vmap(lambda x, k, w: value_and_gradients(conv, x, k, w), in_axes=(0, axes, 0)))(
            x, kernels, weight
        )

    for axes in (None, 0):
        assert_same(both(conv_cpu.conv3x3, axes), both(plain, axes))


def test_bfloat16_is_as_exact_as_float32_rounded(monkeypatch):
    monkeypatch.setattr(conv_cpu, "STRIP_PIXELS", 16)
    x, kernel, weight = (
        a.astype(jnp.bfloat16)
        for a in (normal(2, 6, 8, 3), normal(3, 3, 3, 4, seed=1), normal(2, 6, 8, 4, seed=2))
    )
    found = value_and_gradients(conv_cpu.conv3x3, x, kernel, weight)
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
    monkeypatch.setattr(conv_cpu, "MIN_PIXELS", 1)
    monkeypatch.setattr(conv_cpu, "MIN_FEATURES", 1)
    monkeypatch.setattr(conv_cpu, "STRIP_PIXELS", 16)
    mapped = jax.pmap(
        lambda p, x: lax.psum(of_one(p, x), "devices"),
        "devices",
        in_axes=(None, 0),
        devices=jax.devices()[:2],
    )(params, x.reshape(2, 2, 8, 8, 3))
    found = jax.tree.map(lambda a: a[0], mapped)
    assert_same(jax.tree.leaves(found), jax.tree.leaves(expected))


@pytest.mark.parametrize(
    "options", [{}, {"stride": (2, 2)}, {"padding": 0}, {"kernel": (1, 1)}, {"kernel": (3, 3, 3)}]
)
def test_layer_uses_it_where_it_is_the_same_convolution(monkeypatch, options):
    shape = (2, 4, 8, 8, 3) if len(options.get("kernel", ())) == 3 else (2, 8, 8, 3)
    x = normal(*shape)
    params, gradient = gradient_of_layer(x, **options)
    expected = gradient(params, x)
    monkeypatch.setattr(conv_cpu, "MIN_PIXELS", 64)
    monkeypatch.setattr(conv_cpu, "MIN_FEATURES", 4)
    found = gradient(params, x)
    assert_same(jax.tree.leaves(found), jax.tree.leaves(expected))
    assert ("custom_vjp" in str(jax.make_jaxpr(Conv(4, **options).apply)(params, x))) == (options == {})


def test_small_images_few_features_and_other_backends_keep_the_plain_one(monkeypatch):
    arguments = (3, 3), (1, 1), (1, 1)
    assert conv_cpu.pays((1, 64, 64, 3), 32, *arguments)
    assert not conv_cpu.pays((1, 63, 64, 3), 32, *arguments)
    assert not conv_cpu.pays((1, 64, 64, 3), 31, *arguments)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not conv_cpu.pays((1, 64, 64, 3), 32, *arguments)
