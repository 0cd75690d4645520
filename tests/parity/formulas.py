"""Weights and inputs of the parity tests, made by formulas, so that nobody has to store them.

NumPy alone, exact on every machine: integers are hashed, and fractions of 2^32 are what everything is made of.
"""

import zlib

import numpy as np

CLASSES = 4
# not square, so that nothing can be transposed unnoticed
SHAPE = {"nnunet": (64, 128), "acdc_unet": (32, 64), "autoencoder": (64, 128)}
BATCH = 2
STEPS_PER_EPOCH = 5
EPOCHS = 4
FIRST_MONITORING_EPOCH = 8  # epochs below 10 have another loss
SAMPLES = 48  # of every stored weight, gradient and statistic
OUTPUT_SAMPLES = 4096  # of every stored output


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float64 in [0, 1): a function of the name and the index (the finaliser of MurmurHash3)."""
    h = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(
        zlib.crc32(name.encode())
    )
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return ((h ^ (h >> np.uint32(16))) / 2.0**32).reshape(shape)


def state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All weights of a network, functions of the keys and shapes of its PyTorch state dictionary.

    Kernels are He-uniform, as they come out of a fresh initialisation; what belongs to batch norm is near its
    initial value, but not at it. The counters of batch norm are left out.
    """
    state = {}
    for name, shape in shapes.items():
        signed = 2 * uniform(name, shape) - 1
        if name.endswith("num_batches_tracked"):
            continue
        if len(shape) > 1:
            transposed = ".tu." in name or name.startswith("decoder.")
            array = np.sqrt(6 / (np.prod(shape[2:]) * shape[0 if transposed else 1])) * signed
        elif name.endswith("running_var"):
            array = 1 + 0.3 * signed
        elif name.endswith("weight"):
            array = 1 + 0.2 * signed
        else:
            array = 0.1 * signed
        state[name] = array.astype(np.float32)
    return state


def away_from_kinks(network: str, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights with other biases, so that few leaky ReLUs have inputs near zero.

    A gradient jumps where such an input changes sign, and two float32 implementations put about one input in a
    million on different sides. Where batch norm comes first, half the channels are mostly above zero and half
    below; in `acdc_unet`, where it comes last and would magnify a channel's few exceptions, all are above.
    """
    state = dict(state)
    norms = {k.removesuffix(".running_mean") for k in state if k.endswith(".running_mean")}
    for name, array in state.items():
        layer, _, kind = name.rpartition(".")
        if network == "acdc_unet":
            if layer not in norms and kind == "bias" and len(array) != CLASSES:
                state[name] = array + np.float32(4.5)
        elif layer in norms and kind == "weight":
            state[name] = array * np.float32(0.4)
        elif layer in norms and kind == "bias":
            side = 2 * np.round(uniform(f"{name} side", array.shape)) - 1
            state[name] = (side * (0.8 + array)).astype(np.float32)
    return state


def labels(name: str, shape: tuple[int, int], batch: int = BATCH) -> np.ndarray:
    """Hearts (batch, *shape) uint8: a disc in a ring, and a disc beside them; sizes and places vary."""
    h, w = shape
    y, x = np.mgrid[:h, :w]
    result = np.zeros((batch, h, w), np.uint8)
    for i, (a, b, c, d) in enumerate(uniform(name, (batch, 4))):
        centre = np.array([h * (0.4 + 0.2 * a), w * (0.35 + 0.15 * b)])
        radius = min(h, w) * (0.12 + 0.1 * c)
        distance = np.hypot(y - centre[0], x - centre[1])
        beside = np.hypot((y - centre[0]) / (1 + d), x - centre[1] - 2.1 * radius)
        result[i][beside < radius] = 3
        result[i][distance < 1.4 * radius] = 2
        result[i][distance < radius] = 1
    return result


def images(name: str, label: np.ndarray) -> np.ndarray:
    """Images (batch, h, w) float32 to go with labels: a level per class, waves, and noise; about z-scored."""
    b, h, w = label.shape
    y, x = np.mgrid[:h, :w]
    level = np.array([-0.4, 1.6, 0.2, 1.2])[label]
    waves = 0.3 * (np.abs(y / h - 0.5) + np.abs(((x / 16) % 2) - 1))
    return (level + waves + 0.6 * (uniform(name, (b, h, w)) - 0.5)).astype(np.float32)


def probabilities(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Class probabilities (*shape, k) float32, all positive."""
    p = 0.02 + uniform(name, (*shape, CLASSES)) ** 2
    return (p / p.sum(-1, keepdims=True)).astype(np.float32)


def predictions(name: str, label: np.ndarray) -> np.ndarray:
    """Class probabilities (*label.shape, k) float32 that favour the labels but don't everywhere agree with them."""
    return (0.55 * np.eye(CLASSES)[label] + 0.45 * probabilities(name, label.shape)).astype(np.float32)


def batches(network: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """What a network is trained on: (image (b, h, w), label (b, h, w)) per step of an epoch."""
    truths = [labels(f"truth {i}", SHAPE[network]) for i in range(STEPS_PER_EPOCH)]
    return [(images(f"image {i}", truth), truth) for i, truth in enumerate(truths)]


def sampled(array: np.ndarray, count: int = SAMPLES) -> np.ndarray:
    """What is stored of an array: norm, largest magnitude, sum weighted by a formula, some elements; float32.

    The first three see every element, and the weighted sum its place.
    """
    flat = np.asarray(array, np.float64).ravel()
    elements = np.zeros(count)
    taken = flat[:: max(1, flat.size // count)][:count]
    elements[: taken.size] = taken
    weighted = flat @ (2 * uniform("weighted sum", flat.shape) - 1)
    return np.array([np.sqrt(flat @ flat), np.abs(flat).max(), weighted, *elements], np.float32)


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of two samples: of elements relative to the largest, of sums relative to the norm."""
    norm, largest = expected[:2].astype(np.float64)
    scale = np.full(expected.shape, largest)
    scale[[0, 2]] = norm
    return float((np.abs(found.astype(np.float64) - expected) / scale).max())
