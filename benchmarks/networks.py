"""Rows of the networks: a training step and inference, and on a GPU their variants."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.inputs import MAX_WIDTH_3D, NETWORK_3D, STRIDES_3D, Sizes, network_input, shape_of, targets
from benchmarks.timing import OURS, THEIRS, Contestant, Row, alternate
from benchmarks.workload import batch_of
from qcjax import losses
from qcjax.models import AcdcUNet, MaskAutoencoder, NnUNet
from qcjax.models.cpu.inference import in_parts
from qcjax.train import updates
from qcjax.train.state import TrainState, adam, create, sgd

GOALS = {
    ("train step", "nnunet"): 1.2,
    ("train step", "acdc_unet"): 1.0,
    ("train step", "autoencoder"): 1.0,
    ("inference", "nnunet"): 1.0,
    ("inference", "acdc_unet"): 1.0,
    ("inference", "autoencoder"): 1.0,
}
ENTROPY = losses.SegmentationLoss(
    lambda sums: jnp.zeros(sums.target.shape[:-1]), lambda logits, p, y: losses.cross_entropy_original(p, y)
)


def model_of(name: str, s: Sizes, dtype: Any = jnp.float32) -> nn.Module:
    """The network by name, at the originals' sizes unless `s` says otherwise."""
    if name == "autoencoder":
        return MaskAutoencoder(width=s.width or 32, initialisation="he_uniform", dtype=dtype)
    if name == "acdc_unet":
        return AcdcUNet(width=s.width or 48, random_bias=True, dtype=dtype)
    wide: dict[str, Any] = {} if s.width is None else dict(width=s.width, max_width=15 * s.width)
    if name == NETWORK_3D:
        return NnUNet(**(dict(max_width=MAX_WIDTH_3D) | wide), strides=STRIDES_3D, dtype=dtype)
    return NnUNet(**wide, strides=((1, 1), *((2, 2),) * (s.stages - 1)), dtype=dtype)


def our_step(name: str, s: Sizes, dtype: Any = jnp.float32) -> Contestant:
    """A donated training step, compiled ahead; its state goes on from run to run."""
    model, batch = model_of(name, s, dtype), batch_of(name, s)
    key = jax.random.key(0)
    extra: tuple[Any, ...] = ()
    if name == "autoencoder":
        tx = adam()
        update = updates.make_autoencoder_update(model, tx, "monitoring_original")
        extra = (np.bool_(True),)
        sample = jnp.zeros((1, *batch.label.shape[1:], 4))
    else:
        tx = adam(clip=12.0) if name == "acdc_unet" else sgd()
        loss = ENTROPY if name == NETWORK_3D else losses.SUPERVISED["original"]
        update = updates.make_supervised_update(model, tx, loss)
        sample = batch.image[:1]
    current: list[TrainState] = [create(model, tx, key, sample)]
    arguments = (batch, key, np.float32(5e-4), *extra)
    started = time.perf_counter()
    step = jax.jit(update, donate_argnums=0).lower(current[0], *arguments).compile()
    compile_s = time.perf_counter() - started

    def run() -> None:
        state, metrics = step(current[0], *arguments)
        current[0] = state
        jax.block_until_ready((state, metrics))

    return Contestant(run, compile_s=compile_s)


def our_inference(name: str, s: Sizes, dtype: Any = jnp.float32) -> Contestant:
    """Class probabilities of a batch, compiled ahead, as the experiments compute them."""
    model, x = model_of(name, s, dtype), jnp.asarray(network_input(name, s))
    variables = jax.jit(model.init)(jax.random.key(0), x[:1])
    started = time.perf_counter()
    infer = jax.jit(lambda variables, x: in_parts(partial(model.apply, variables), x))
    apply = infer.lower(variables, x).compile()
    compile_s = time.perf_counter() - started
    return Contestant(lambda: jax.block_until_ready(apply(variables, x)), compile_s=compile_s)


def forward_flops(name: str, s: Sizes) -> float:
    """Floating-point operations of a forward pass over the batch; a training step takes about three times that."""
    model, x = model_of(name, s), network_input(name, s)
    variables = jax.eval_shape(model.init, jax.random.key(0), x[:1])
    cost: Any = jax.jit(model.apply).lower(variables, x).cost_analysis()
    return float(cost["flops"])


def their_contestants(originals: Any, name: str, s: Sizes, training: bool) -> dict[str, Contestant]:
    """PyTorch eager; on a GPU also compiled, and both in bfloat16."""
    import torch

    x = originals.tensor(network_input(name, s))
    scales = [originals.tensor(t) for t in targets(name, s)]

    def contestant(compiled: bool, half: bool) -> Contestant:
        model = originals.network(name)
        call = torch.compile(model) if compiled else model
        autocast = torch.autocast(originals.device.type, dtype=torch.bfloat16, enabled=half)

        def forward(x: Any) -> Any:
            with autocast:
                return call(x)

        if not training:
            model.eval()
            run = originals.inference(model, forward, x)
        else:
            run = originals.train_step(model, forward, x, scales)
        if not compiled:
            return Contestant(run)
        started = time.perf_counter()
        run()
        return Contestant(run, compile_s=time.perf_counter() - started)

    found = {THEIRS: contestant(False, False)}
    if originals.device.type == "cuda" and name != NETWORK_3D:
        found[f"{THEIRS} compiled"] = contestant(True, False)
        found[f"{THEIRS} bfloat16"] = contestant(False, True)
        found[f"{THEIRS} compiled bfloat16"] = contestant(True, True)
    return found


def network_row(name: str, kind: str, s: Sizes, originals: Any | None) -> Row:
    """One network's `train step` or `inference`."""
    ours = our_step if kind == "train step" else our_inference
    contestants = {OURS: ours(name, s)}
    if jax.devices()[0].platform != "cpu" and name != NETWORK_3D:
        contestants[f"{OURS} bfloat16"] = ours(name, s, jnp.bfloat16)
    if originals is not None:
        contestants |= their_contestants(originals, name, s, kind == "train step")
    measured = alternate(contestants, s.repeats)
    shape = shape_of(name, s)
    passes = 3 if kind == "train step" else 1
    work = f"batch {shape[0]} of {'×'.join(str(n) for n in shape[1:])}"
    flops = {"tflop": passes * forward_flops(name, s) / 1e12}
    return Row(f"{kind}, {name}", work, "s", measured, GOALS.get((kind, name)), extra=flops)


def matmul_ceiling(s: Sizes, originals: Any | None) -> Mapping[str, float]:
    """Measured TFLOP/s of a large matrix product: the better of the two sides, by precision."""
    gpu = jax.devices()[0].platform != "cpu"
    n = 8192 if gpu else min(2048, 16 * s.size)
    rates: dict[str, float] = {}
    for name, dtype in {"float32": jnp.float32, "bfloat16": jnp.bfloat16}.items():
        if name == "bfloat16" and not gpu:
            continue
        contestants = {OURS: _our_product(n, dtype)}
        if originals is not None:
            contestants[THEIRS] = _their_product(originals, n, name)
        measured = alternate(contestants, s.repeats)
        rates[name] = 2 * n**3 / min(min(m.values) for m in measured.values()) / 1e12
    return rates


def _our_product(n: int, dtype: Any) -> Contestant:
    a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
    product = jax.jit(jnp.matmul)
    return Contestant(lambda: product(a, a).block_until_ready())


def _their_product(originals: Any, n: int, dtype: str) -> Contestant:
    import torch

    a = torch.randn(n, n, device=originals.device).to(getattr(torch, dtype))

    def run() -> None:
        torch.matmul(a, a)
        originals.wait()

    return Contestant(run)


def shares(rows: list[Row], ceiling: Mapping[str, float]) -> list[dict[str, Any]]:
    """What share of the ceiling of its precision each contestant reaches, by row."""
    table = []
    for row in rows:
        if "tflop" not in row.extra:
            continue
        for name, measured in row.measured.items():
            top = ceiling.get("bfloat16" if "bfloat16" in name else "float32")
            if top:
                share = row.extra["tflop"] / measured.median / top
                table.append({"row": row.name, "side": name, "share": share})
    return table
