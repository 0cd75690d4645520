"""What training changes: arrays only."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from qcjax.config.values import Optimiser
from qcjax.typing import AnyArray, Array, Float, PRNGKey, Variables


class TrainState(struct.PyTreeNode):
    """Everything that a step reads and writes."""

    step: AnyArray  # () int32; of JAX's own making where it takes trees apart
    params: Any
    batch_stats: Any
    opt_state: Any
    mean: Any = None  # exponential mean of `variables` over the steps, where one is kept

    @property
    def variables(self) -> Variables:
        """As Flax wants them."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def model(self) -> Variables:
        """What is judged and kept: the mean of the weights where there is one, else the weights."""
        return self.variables if self.mean is None else self.mean

    def with_mean(self) -> "TrainState":
        """The same, with a mean that begins at its weights."""
        return self.replace(mean=self.variables)

    def averaged(self, decay: float) -> "TrainState":
        """After a step: the mean moved towards the weights."""
        return self.replace(mean=average(self.mean, self, decay))

    def from_model(self) -> "TrainState":
        """Training goes on from the model itself: from the mean, where there is one."""
        model = jax.tree.map(jnp.copy, self.model)  # a step takes the mean's own arrays besides
        return self.replace(params=model["params"], batch_stats=model["batch_stats"])


def average(mean: Variables, state: TrainState, decay: float) -> Variables:
    """The exponential mean of weights after one more step, `state`; (m, x) -> d·m + (1 − d)·x.

    The mean of few steps is of few weights, else the first ones would stay in it for long: d ≤ (1 + n) / (10 + n).
    """
    count = state.step.astype(jnp.float32)
    share = jnp.minimum(decay, (1 + count) / (10 + count)) if decay else 0.0
    return jax.tree.map(lambda m, x: share * m + (1 - share) * x, mean, state.variables)


def create(
    model: nn.Module, tx: optax.GradientTransformation, key: PRNGKey, sample: Float[Array, "b *space c"]
) -> TrainState:
    """A freshly initialised state; `sample` is an input of the right shape (b, *space, c)."""
    return from_variables(_init(model)(key, sample), tx)


def shapes(
    model: nn.Module, tx: optax.GradientTransformation, key: PRNGKey, sample: Float[Array, "b *space c"]
) -> TrainState:
    """The shapes of what `create` gives, to read a checkpoint into."""
    variables = jax.eval_shape(_init(model), key, sample)
    return jax.eval_shape(partial(from_variables, tx=tx), variables)


@lru_cache(maxsize=16)
def _init(model: nn.Module) -> Callable[[PRNGKey, Array], Variables]:
    """The model's `init`, traced once for all equal models and inputs of a shape."""
    # random numbers for every layer: without optimisation they compile ten times as fast
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(model.init, compiler_options=options)


def from_variables(variables: Variables, tx: optax.GradientTransformation) -> TrainState:
    """A state at step 0 with given weights and an empty optimiser."""
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(params),
    )


def sgd(
    weight_decay: float = 3e-5, momentum: float = 0.99, clip: float = 12.0
) -> optax.GradientTransformation:
    """Direction of SGD with Nesterov momentum, L2 in the gradient, the gradient's norm clipped; no learning rate."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.add_decayed_weights(weight_decay),
        optax.trace(decay=momentum, nesterov=True),
    )


def adam(weight_decay: float = 1e-5, clip: float | None = None) -> optax.GradientTransformation:
    """Direction of Adam with L2 in the gradient (not decoupled); no learning rate."""
    steps = [optax.add_decayed_weights(weight_decay), _promoting(optax.scale_by_adam())]
    if clip is not None:
        steps.insert(0, optax.clip_by_global_norm(clip))
    return optax.chain(*steps)


CLIP = 12.0  # of the gradient's norm
OPTIMISERS: dict[Optimiser, Callable[..., optax.GradientTransformation]] = {"sgd": sgd, "adam": adam}


def _promoting(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same; Optax's Adam raises its decays, which are floats, to the number of steps, which is an integer."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params)

    return optax.GradientTransformation(tx.init, update)
