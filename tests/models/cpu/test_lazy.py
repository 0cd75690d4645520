import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.models import NnUNet, layers
from qcjax.models.cpu import conv, lazy
from qcjax.models.cpu.lazy import Activation, Concatenation


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def activation(*shape, seed=0):
    return Activation(
        normal(*shape, seed=seed), normal(shape[-1], seed=seed + 1), normal(shape[-1], seed=seed + 2), 0.1
    )


@pytest.fixture
def everywhere(monkeypatch):
    """`conv` for the smallest of convolutions, in strips."""
    monkeypatch.setattr(conv, "MIN_SIZE", 1)
    monkeypatch.setattr(conv, "STRIP_PIXELS", 16)


def kept_for_the_gradient(function, *arguments):
    """Bytes of the arrays that go from the forward to the backward pass."""
    pullback = jax.eval_shape(lambda *a: jax.vjp(function, *a)[1], *arguments)
    return sum(np.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback))


def test_values_by_hand():
    x = Activation(jnp.array([[[[1.0, 2]]]]), jnp.array([2.0, 1]), jnp.array([-1.0, -4]), 0.1)
    np.testing.assert_allclose(lazy.value(x), [[[[1, -0.2]]]], rtol=1e-6)
    both = Concatenation((jnp.array([[[[7.0]]]]), x))
    np.testing.assert_allclose(lazy.value(both), [[[[7, 1, -0.2]]]], rtol=1e-6)
    assert lazy.shape(both) == (1, 1, 1, 3) and lazy.shape(x) == (1, 1, 1, 2)
    assert lazy.is_computed(both.parts[0]) and not lazy.is_computed(x) and not lazy.is_computed(both)


def test_images_are_those_of_the_value():
    x = Concatenation((normal(5, 2, 3, 4), activation(5, 2, 3, 2, seed=3)))
    found = jax.jit(lambda x, first: lazy.value(lazy.images(x, first, 2)))(x, 1)
    np.testing.assert_allclose(found, lazy.value(x)[1:3], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "stride", "pads", "depth"),
    [
        ((3, 3), (1, 1), (1, 1), ()),
        ((3, 3), (2, 2), (1, 1), ()),
        ((1, 1), (1, 1), (0, 0), ()),
        ((3, 3, 3), (1, 2, 2), (1, 1, 1), (5,)),
        ((3, 3, 3), (2, 1, 1), (1, 1, 1), (1,)),  # its first and last slice see nothing but padding
        ((1, 1, 1), (1, 1, 1), (0, 0, 0), (5,)),
    ],
)
def test_a_convolution_of_them_is_that_of_their_value(everywhere, size, stride, pads, depth):
    x = Concatenation((normal(3, *depth, 6, 8, 2), activation(3, *depth, 6, 8, 3, seed=3)))
    kernel = normal(*size, 5, 4, seed=9)

    def loss(convolve):
        def of(x, kernel):
            y = convolve(x, kernel)
            return (y * normal(*y.shape, seed=7)).sum()

        return of

    ours = loss(lambda x, kernel: layers.convolve(x, kernel, stride, pads))
    expected = loss(lambda x, kernel: conv.plain(lazy.value(x), kernel, stride, pads))  # XLA's
    assert "custom_vjp" in str(jax.make_jaxpr(ours)(x, kernel))
    found, wanted = (jax.jit(jax.value_and_grad(f, (0, 1)))(x, kernel) for f in (ours, expected))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(b).max(), 1))


@pytest.mark.parametrize("depth", [(), (3,)])
def test_their_values_are_not_kept_for_the_gradient(everywhere, depth):
    ndim = 2 + len(depth)
    x, kernel = activation(2, *depth, 8, 8, 4), normal(*(3,) * ndim, 4, 4)
    plane, size = ((1,) * ndim, (1,) * ndim), x.x.size * 4 + kernel.size * 4
    lazily = kept_for_the_gradient(lambda x, k: layers.convolve(x, k, *plane), x, kernel)
    computed = kept_for_the_gradient(lambda x, k: layers.convolve(lazy.value(x), k, *plane), x, kernel)
    assert size <= lazily < size + 100 and computed >= size + x.x.size * 4


def test_a_networks_training_needs_less_memory(everywhere, monkeypatch):
    model = NnUNet(width=8, strides=((1, 1), (2, 2)))
    images = normal(4, 64, 64, 1)
    variables = model.init(jax.random.key(0), images)

    def loss(params):
        given = {**variables, "params": params}
        logits, _ = model.apply(given, images, True, method="logits", mutable=["batch_stats"])
        return jnp.square(logits[0]).sum()

    def temporary_bytes():
        return (
            jax.jit(jax.grad(loss)).lower(variables["params"]).compile().memory_analysis().temp_size_in_bytes
        )

    lazily = temporary_bytes()
    convolve = layers.convolve
    monkeypatch.setattr(layers, "convolve", lambda x, *rest: convolve(lazy.value(x), *rest))
    assert lazily < 0.7 * temporary_bytes()
