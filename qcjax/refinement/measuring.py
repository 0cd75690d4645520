"""The cases of D_te, measured on the host while the devices work on the next ones."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import numpy as np

from qcjax.runtime import hosts
from qcjax.train.arm import Arm
from qcjax.typing import Integer, Variables

Measures = tuple[np.ndarray, np.ndarray]  # pDC and pHD, (k,) each
Measure = Callable[[int, np.ndarray, np.ndarray], Measures]  # of a case, its mask, its reconstruction
Keep = Callable[[int, Measures], Callable[[np.ndarray], None] | None]

AHEAD = 32  # how many cases may wait for their turn, with their probabilities on the devices


def measure_cases(
    arm: Arm,
    variables: Variables,
    autoencoder: Variables,
    measure: Measure,
    keep: Keep = lambda case, measures: None,
    cases: Integer[np.ndarray, " m"] | None = None,
) -> Measures:
    """pDC and pHD of a segmenter on every case of D_te, or on the n of `cases` (ascending), (n, k) each.

    Args:
      measure: (case, mask (s, h, w), reconstruction (s, h, w)) -> pDC and pHD, (k,) each; called by threads.
      keep: (case, its measures) -> what takes its class probabilities (s, h, w, k) float16, by a thread, or None;
        asked case by case, in order. What it gives has returned when this returns.
    """
    data, predictor = arm.data, arm.networks.predictor
    indices, first = data.unlabelled_indices, data.unlabelled.first
    if cases is not None:
        indices = indices[data.unlabelled.slices_of(cases)]
        first = np.concatenate([[0], np.cumsum(np.diff(first)[cases])])

    def case_at(place: int) -> int:
        return place if cases is None else int(cases[place])

    results = predictor.reconstruct(variables, autoencoder, data.slices, indices, first)
    waiting: deque[tuple[Future[Measures], Callable[[], np.ndarray]]] = deque()
    found: list[Measures] = []
    kept: deque[Future[None]] = deque()
    with ThreadPoolExecutor() as pool, closing(results):

        def measure_next() -> None:
            # here and not in a thread, in an order that no timing changes: several processes fetch together
            measuring, probabilities = waiting.popleft()
            measures = hosts.lead(measuring.result)
            take = keep(case_at(len(found)), measures)
            found.append(measures)
            if take is not None:
                kept.append(pool.submit(take, probabilities()))
            if len(kept) > AHEAD:
                hosts.lead(kept.popleft().result)

        for place, result in enumerate(results):
            measuring = pool.submit(measure, case_at(place), result.labels, result.rebuilt)
            waiting.append((measuring, result.probabilities))
            if len(waiting) > AHEAD:
                measure_next()
        while waiting:
            measure_next()
        hosts.lead(lambda: [future.result() for future in kept])
    pdc, phd = zip(*found, strict=True)
    return np.stack(pdc), np.stack(phd)
