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
    return float((np.abs(found.astype(np.float64) - expected) / np.maximum(scale, 1e-30)).max())


def logits(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Logits (*shape, k) float32 of everything between doubtful and certain."""
    return (12 * uniform(name, (*shape, CLASSES)) - 6).astype(np.float32)


def loss_case(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (b, h, w, k) and labels (b, h, w): "all classes", one class "absent" from all, "empty" slices."""
    label = labels(f"loss {name}", (24, 40), batch=3)
    if name == "absent":
        label[label == 3] = 0
    elif name == "empty":
        label[1:] = 0
    return logits(f"loss {name}", label.shape) + 3 * np.eye(CLASSES, dtype=np.float32)[label], label


LOSS_CASES = ("all classes", "absent", "empty")


def target_cases() -> dict[str, np.ndarray]:
    """Labels (b, h, w) uint8 of a heart and of noise."""
    noise = np.floor(CLASSES * uniform("target", (1, 64, 96))).astype(np.uint8)
    return {"heart": labels("target", (64, 128)), "noise": noise}


def optimiser_case(step: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parameters, and gradients whose norm is above 12 at step 0, below it at 1, and mixed in size at 2."""
    shapes = {"kernel": (3, 4, 5), "bias": (7,)}
    parameters = {k: (uniform(k, s) - 0.5).astype(np.float32) for k, s in shapes.items()}
    scale = (40.0, 0.1, 3.0)[step]
    gradients = {k: (scale * (uniform(f"{k} {step}", s) - 0.5)).astype(np.float32) for k, s in shapes.items()}
    return parameters, gradients


# (x, y, slices), spacing in mm, border of zeros in voxels, side of the square, and target spacing (h, w) in mm
VOLUMES = {
    "padded": ((50, 62, 3), (1.5, 1.5, 9.0), (3, 5), 80, (1.3, 1.3)),
    "cropped": ((87, 84, 3), (1.1, 1.1, 10.0), (2, 0), 64, (1.25, 1.25)),
    "mixed": ((57, 96, 2), (1.2, 1.2, 8.0), (0, 7), 72, (1.35, 1.35)),
    "oblong pixels": ((57, 76, 2), (1.4, 0.9, 8.0), (0, 7), 72, (0.8, 1.5)),
}


def volume(name: str) -> tuple[np.ndarray, np.ndarray]:
    """An image like a scan (x, y, slices) float32 in whole numbers, with borders of zeros, and its labels uint8."""
    (x, y, slices), _, (border_x, border_y), _, _ = VOLUMES[name]
    label = labels(f"volume {name}", (x, y), batch=slices)
    image = np.round(300 + 100 * images(f"volume {name}", label))
    inside = np.zeros((x, y), bool)
    inside[border_x : x - border_x, border_y : y - border_y] = True
    return (image * inside).transpose(1, 2, 0).astype(np.float32), label.transpose(1, 2, 0)


METRIC_CASES = ("alike", "apart", "absent from one", "absent from both", "one slice")


def metric_case(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Two label maps (slices, h, w) uint8."""
    slices = 1 if name == "one slice" else 4
    first = labels(f"metric {name}", (48, 56), batch=slices)
    second = np.roll(first, (2, -1), (1, 2)) if name != "apart" else first[:, ::-1, ::-1].copy()
    if name.startswith("absent"):
        second[second == 3] = 0
    if name == "absent from both":
        first[first == 3] = 0
    return first, second


# evaluations, cases, and the share of undefined measures
HISTORIES = {
    "plain": (6, 12, 0.0),
    "some undefined": (6, 12, 0.12),
    "many undefined": (5, 9, 0.5),
    "all undefined": (3, 5, 1.0),
    "two cases": (6, 2, 0.1),
    "one case": (6, 1, 0.2),
}


def history(name: str, phase: str) -> tuple[np.ndarray, np.ndarray]:
    """pDC and pHD (evaluations, cases) float64 with ties; undefined is 0 and infinity; a few cases are far off."""
    evaluations, cases, undefined = HISTORIES[name]
    shape = (evaluations, cases)
    off = uniform(f"{name} {phase} off", (cases,)) < 0.2
    pdc = np.round(16 * (0.6 + 0.4 * uniform(f"{name} {phase} dc", shape))) / 16 - 0.5 * off
    phd = np.round(3 + 8 * uniform(f"{name} {phase} hd", shape)) + 20 * off
    missing = uniform(f"{name} {phase} missing", shape) < undefined
    return np.where(missing, 0, pdc), np.where(missing, np.inf, phd)
