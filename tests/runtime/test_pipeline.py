"""Three stages: order, groups, bounds, and errors."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from qcjax.runtime.pipeline import in_stages


def test_results_come_in_order_and_groups_hold_enough() -> None:
    groups: list[list[int]] = []

    def compute(found: Sequence[int]) -> Iterator[tuple[int, int]]:
        groups.append(list(found))
        yield from ((x, 10 * x) for x in found)

    made = list(in_stages(range(7), lambda x: x, compute, lambda x, y: (x, y), 3))
    assert made == [(x, 10 * x) for x in range(7)]
    assert groups == [[0, 1, 2], [3, 4, 5], [6]]
    groups.clear()
    list(in_stages([5, 1, 1, 1, 4], lambda x: x, compute, lambda x, y: y, 3, lambda x: x))
    assert groups == [[5], [1, 1, 1], [4]]


def test_few_items_are_alive_whatever_their_number() -> None:
    alive, most, lock = 0, 0, threading.Lock()

    def read(x: int) -> int:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return x

    def finish(x: int, y: int) -> int:
        nonlocal alive
        with lock:
            alive -= 1
        return x

    assert list(in_stages(range(500), read, lambda g: ((x, x) for x in g), finish, 4)) == list(range(500))
    assert most < 60


def test_an_error_of_any_stage_comes_out() -> None:
    def fail(*_: int) -> int:
        raise RuntimeError("no")

    for stages in ((fail, fail), (int, fail)):
        with pytest.raises(RuntimeError, match="no"):
            list(in_stages(range(3), stages[0], lambda g: ((x, x) for x in g), stages[1], 1))
