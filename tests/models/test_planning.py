import itertools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcjax.models import NnUNet
from qcjax.models.planning import plan_unet

IN_PLANE, ALL = (1, 2, 2), (2, 2, 2)


def test_thick_slices():
    # spacings (10, 1.5, 1.5) -> (10, 3, 3) -> (10, 6, 6) -> (20, 12, 12) -> (20, 24, 24)
    # voxels (8, 128, 128) -> (8, 64, 64) -> (8, 32, 32) -> (4, 16, 16) -> (4, 8, 8)
    plan = plan_unet((8, 128, 128), (10.0, 1.5, 1.5))
    assert plan.strides == ((1, 1, 1), IN_PLANE, IN_PLANE, ALL, IN_PLANE)
    assert plan.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert plan.divisor == (2, 16, 16)
    assert plan.middle_stages == (3, 4)


def test_until_nothing_can_be_halved():
    plan = plan_unet((8, 128, 128), (10.0, 1.5, 1.5), max_stages=None)
    assert plan.strides == ((1, 1, 1), IN_PLANE, IN_PLANE, ALL, IN_PLANE, IN_PLANE)
    assert plan.kernels[-1] == (3, 3, 3)  # once 3, it stays: the spacings are (20, 48, 48) by now
    assert plan_unet((7, 7, 7), (1.0, 1.0, 1.0)).strides == ((1, 1, 1),)
    assert plan_unet((7, 7, 7), (1.0, 1.0, 1.0)).middle_stages == (0,)


def test_twice_as_far_apart_still_counts_as_near():
    plan = plan_unet((16, 16, 16), (2.0, 1.0, 1.0))
    assert (plan.strides, plan.kernels) == (((1, 1, 1), ALL, ALL), ((3, 3, 3),) * 3)
    plan = plan_unet((16, 16, 16), (2.01, 1.0, 1.0))
    assert plan.strides == ((1, 1, 1), IN_PLANE, ALL, (2, 1, 1))  # voxels (16, 8, 8), then (8, 4, 4)
    assert plan.kernels == ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


def test_an_axis_too_short_to_halve_holds_nobody_back():
    plan = plan_unet((4, 64, 64), (1.0, 1.0, 1.0))
    assert plan.strides == ((1, 1, 1), *(IN_PLANE,) * 4)


def test_two_dimensions():
    plan = plan_unet((64, 16), (1.0, 1.0))
    assert plan.strides == ((1, 1), (2, 2), (2, 2), (2, 1), (2, 1))


def test_padded():
    plan = plan_unet((9, 100, 128), (10.0, 1.5, 1.5))
    assert plan.padded((9, 100, 128)) == (10, 112, 128)
    assert plan.padded((10, 112, 128)) == (10, 112, 128)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (((8, 8), (1.0, 1.0, 1.0)), "one number per axis"),
        (((8, 0), (1.0, 1.0)), "above 0"),
        (((8, 8), (1.0, float("nan"))), "above 0"),
        (((8, 8), (1.0, -1.0)), "above 0"),
        (((8, 8), (1.0, 1.0), 0), "max_stages 0"),
    ],
)
def test_refuses_what_makes_no_sense(arguments, told):
    with pytest.raises(ValueError, match=told):
        plan_unet(*arguments)


@given(
    shape=st.tuples(*[st.integers(1, 300)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 20)] * 3),
    stages=st.none() | st.integers(1, 8),
)
def test_rules_hold_for_any_volume(shape, spacing, stages):
    plan = plan_unet(shape, spacing, stages)
    assert len(plan.strides) == len(plan.kernels) and plan.strides[0] == (1, 1, 1)
    assert stages is None or len(plan.strides) <= stages
    assert all(max(stride) == 2 for stride in plan.strides[1:])
    assert plan.middle_stages[-1] == len(plan.strides) - 1
    padded = plan.padded(shape)
    assert plan.padded(padded) == padded
    for n, p, d in zip(shape, padded, plan.divisor, strict=True):
        assert p % d == 0 and 0 <= p - n < d
        assert d == 1 or p // d >= 4
    for finer, coarser in itertools.pairwise(plan.kernels):
        assert all(a <= b for a, b in zip(finer, coarser, strict=True))
    at = list(spacing)
    for stride, kernel in zip(plan.strides, plan.kernels, strict=True):
        pooled = [s for s, p in zip(at, stride, strict=True) if p == 2]
        assert not pooled or max(pooled) <= 2 * min(pooled)
        at = [s * p for s, p in zip(at, stride, strict=True)]
        assert kernel[at.index(min(at))] == 3
        assert all(k == 3 for k, s in zip(kernel, at, strict=True) if s <= 2 * min(at))


def test_a_planned_network_gives_every_resolution():
    plan = plan_unet((9, 24, 32), (10.0, 1.5, 1.5), max_stages=4)
    model = NnUNet(width=2, strides=plan.strides, kernels=plan.kernels)
    x = jax.ShapeDtypeStruct((1, *plan.padded((9, 24, 32)), 1), jnp.float32)
    outputs = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, method="logits")[0], x)
    assert [y.shape[1:4] for y in outputs] == [(10, 24, 32), (10, 12, 16), (10, 6, 8)]
