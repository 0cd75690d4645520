"""Windows by hand, and functions whose weighted mean is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.inference.sliding import predict, starts, weights

RNG = np.random.default_rng(0)


def same(x):
    return x


@pytest.mark.parametrize(
    "length, patch, overlap, expected",
    [
        (10, 4, 0.5, [0, 2, 4, 6]),
        (9, 4, 0.5, [0, 2, 3, 5]),  # 5 to go in steps of at most 2: three, of 5 / 3
        (8, 4, 0.0, [0, 4]),
        (9, 4, 0.0, [0, 2, 5]),
        (4, 4, 0.5, [0]),
        (5, 4, 0.5, [0, 1]),
        (3, 1, 0.5, [0, 1, 2]),
    ],
)
def test_windows_by_hand(length, patch, overlap, expected):
    found = starts(length, patch, overlap)
    assert found == expected
    assert np.diff([0, *found]).max() <= max(1, patch * (1 - overlap)) + 1


def test_weights_by_hand():
    found = weights((1, 8, 16))
    assert found.shape == (1, 8, 16) and found.dtype == np.float32
    np.testing.assert_allclose(found[0, 3, 7], np.exp(-(0.5**2) / 2 - 0.25**2 / 2), rtol=1e-6)
    np.testing.assert_allclose(found[0, 0, 0], np.exp(-(3.5**2) / 2 - 3.75**2 / 2), rtol=1e-6)
    np.testing.assert_array_equal(found, found[:, ::-1, ::-1])
    assert weights((16, 160, 160)).min() > 1e-11  # so that a corner that one window sees is no division by 0


def test_two_windows_by_hand():
    image = RNG.normal(size=(1, 1, 6)).astype(np.float32)
    calls = []

    def numbered(x):  # each window says its own number, whatever it sees
        calls.append(x.copy())
        return np.full_like(x, len(calls))

    found = predict(numbered, image, (1, 1, 4), 1)
    np.testing.assert_array_equal(np.stack(calls)[:, 0, 0, 0, :, 0], [image[0, 0, :4], image[0, 0, 2:]])
    near, far = np.exp(-(1**2) / 2), np.exp(-(3**2) / 2)  # sd is half a voxel: 0.5 and 1.5 voxels away
    between = (far * 2 + near * 1) / (near + far)
    np.testing.assert_allclose(found[0, 0, :, 0], [1, 1, between, 3 - between, 2, 2], rtol=1e-6)


@pytest.mark.parametrize("shape", [(7, 20, 13), (3, 16, 8), (9, 5, 30)])
@pytest.mark.parametrize("batch", [1, 4])
def test_the_identity_reproduces_the_image(shape, batch):
    ramp = np.add.outer(np.add.outer(np.arange(shape[0]), 0.5 * np.arange(shape[1])), np.arange(shape[2]))
    for image in (np.full(shape, 3.0), ramp, RNG.normal(size=shape)):
        found = predict(same, image, (4, 8, 8), batch)
        assert found.shape == (*shape, 1) and found.dtype == np.float32
        np.testing.assert_allclose(found[..., 0], image, rtol=2e-6, atol=1e-5)


def test_probabilities_sum_to_one():
    softmax = jax.jit(lambda x: jax.nn.softmax(jnp.concatenate([x, 2 * x, jnp.sin(x)], -1)))
    image = RNG.normal(size=(6, 30, 30)).astype(np.float32)
    found = predict(softmax, image, (4, 16, 16), 3)
    np.testing.assert_allclose(found, softmax(image[..., None]), atol=1e-6)  # pointwise: windows don't matter
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


def test_one_window_is_the_functions_output():
    image = RNG.normal(size=(4, 8, 8)).astype(np.float32)
    output = RNG.normal(size=(2, 4, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(predict(lambda x: output, image, (4, 8, 8), 2), output[0])


def test_a_small_volume_is_padded_at_the_centre():
    image = RNG.normal(size=(2, 5, 8)).astype(np.float32)
    seen = []

    def record(x):
        seen.append(x)
        return x + np.arange(4)[:, None, None, None]

    found = predict(record, image, (4, 8, 8), 1)
    expected = np.zeros((4, 8, 8))
    expected[1:3, 1:6] = image
    np.testing.assert_array_equal(seen[0][0, ..., 0], expected)
    np.testing.assert_allclose(found[..., 0], image + np.arange(1, 3)[:, None, None])


def test_calls_have_one_shape_and_the_next_is_made_before_one_is_fetched():
    log = []

    class Pending:
        def __init__(self, x, number):
            self.x, self.number = x, number

        def __array__(self, dtype=None, copy=None):
            log.append(f"fetch {self.number}")
            return self.x

    def function(x):
        assert x.shape == (2, 4, 4, 4, 1)
        log.append(f"call {len([line for line in log if 'call' in line])}")
        return Pending(x, int(log[-1][-1]))

    predict(function, RNG.normal(size=(4, 4, 12)), (4, 4, 4), 2)  # five windows
    assert log == ["call 0", "call 1", "fetch 0", "call 2", "fetch 1", "fetch 2"]


def test_what_can_not_be():
    with pytest.raises(ValueError, match=r"found patch \(4, 4\) and overlap 0.5 for an image of shape"):
        predict(same, np.zeros((4, 4, 4)), (4, 4), 1)
    with pytest.raises(ValueError, match="below 1"):
        predict(same, np.zeros((4, 4, 4)), (4, 4, 4), 1, overlap=1.0)
