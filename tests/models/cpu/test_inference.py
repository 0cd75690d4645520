import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.models import NnUNet
from qcjax.models.cpu import inference
from qcjax.models.cpu.inference import in_parts


@pytest.mark.parametrize(
    ("batch", "pixels", "rows"), [(6, 2 * 64, 2), (6, 5 * 64, 3), (5, 4 * 64, 1), (6, 6 * 64, 6), (3, 10, 1)]
)
def test_rows_at_a_time(monkeypatch, batch, pixels, rows):
    monkeypatch.setattr(inference, "PIXELS", pixels)
    x, seen = jnp.arange(batch * 64.0).reshape(batch, 8, 8, 1), []

    def function(x):
        seen.append(len(x))
        return x * 2, x.sum((1, 2, 3))

    double, sums = jax.jit(lambda x: in_parts(function, x))(x)
    assert set(seen) == {rows}
    np.testing.assert_array_equal(double, x * 2)
    np.testing.assert_array_equal(sums, x.sum((1, 2, 3)))


def test_a_network_gives_the_same_in_parts(monkeypatch):
    monkeypatch.setattr(inference, "PIXELS", 2 * 64)
    model = NnUNet(width=4, strides=((1, 1), (2, 2)))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 1)), jnp.float32)
    variables = model.init(jax.random.key(0), x)
    found = jax.jit(lambda x: in_parts(lambda x: model.apply(variables, x), x))(x)
    np.testing.assert_allclose(found, model.apply(variables, x), atol=1e-6)


def test_other_backends_take_the_whole_batch(monkeypatch):
    monkeypatch.setattr(inference, "PIXELS", 64)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    seen = []
    in_parts(lambda x: seen.append(len(x)), jnp.zeros((6, 8, 8, 1)))
    assert seen == [6]
