import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcjax.data.batches import Slices, cycled, epoch_plan, in_batches, padded, sample_keys, take
from qcjax.runtime.devices import AXIS


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 40), batch=st.integers(1, 9), epoch=st.integers(0, 5), shuffle=st.booleans())
def test_an_epoch_takes_every_slice_once(n, batch, epoch, shuffle):
    plan = epoch_plan(n, batch, 3, epoch, shuffle)
    assert plan.indices.shape == plan.weight.shape == (-(-n // batch), batch)
    assert sorted(plan.indices[plan.weight > 0]) == list(range(n))
    assert set(plan.weight.ravel()) <= {0, 1}


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return epoch_plan(20, 4, seed, epoch).indices.ravel().tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    np.testing.assert_array_equal(epoch_plan(20, 4, 1, 2, shuffle=False).indices.ravel(), np.arange(20))


def test_padding_to_a_number_of_devices():
    plan = padded(in_batches([7, 8, 9], 2), 4)
    np.testing.assert_array_equal(plan.indices, [[7, 8, 0, 0], [9, 0, 0, 0]])
    np.testing.assert_array_equal(plan.weight, [[1, 1, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(padded(plan, 2).indices, plan.indices)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 12), batch=st.integers(1, 5), steps=st.integers(1, 8))
def test_cycling_goes_round_and_round(n, batch, steps):
    slices = 100 + np.arange(n)
    plan = cycled(slices, batch, steps, 0, 1)
    assert plan.indices.shape == (steps, batch) and plan.weight.all()
    flat = plan.indices.ravel()
    for start in range(0, len(flat) - n + 1, n):
        assert sorted(flat[start : start + n]) == slices.tolist()
    assert len(set(flat[len(flat) // n * n :])) == len(flat) % n


def test_cycling_is_a_function_of_seed_and_epoch():
    one, same, other = (cycled(np.arange(9), 3, 3, 0, epoch).indices for epoch in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_cycling_through_nothing_is_refused():
    with pytest.raises(ValueError, match="no slices"):
        cycled(np.zeros(0, int), 2, 3, 0, 1)


def test_take_gathers():
    slices = Slices(
        np.arange(12.0, dtype=np.float32).reshape(3, 2, 2), np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    )
    batch = jax.jit(take)(slices, np.array([2, 0]), np.ones(2, np.float32))
    np.testing.assert_array_equal(batch.image[..., 0], slices.image[[2, 0]])
    np.testing.assert_array_equal(batch.label, slices.label[[2, 0]])
    assert batch.image.shape == (2, 2, 2, 1) and batch.label.dtype == jnp.int32


def test_keys_of_samples_do_not_depend_on_the_number_of_devices():
    key = jax.random.key(5)
    whole = jax.random.key_data(sample_keys(key, 8, None))
    split = jax.pmap(lambda _: jax.random.key_data(sample_keys(key, 2, AXIS)), axis_name=AXIS)(jnp.zeros(4))
    np.testing.assert_array_equal(split.reshape(whole.shape), whole)
    assert len(np.unique(whole, axis=0)) == 8
