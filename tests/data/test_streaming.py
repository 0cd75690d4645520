"""Rows of arrays on the host, and a thread that makes what comes next."""

import os
import signal
import threading
import time
from typing import NamedTuple

import numpy as np
import pytest

from qcjax.data.streaming import DEPTH, Streamed, prefetched
from qcjax.runtime.stops import Stopped, stoppable


class Pair(NamedTuple):
    a: np.ndarray
    b: np.ndarray


def pair(rows, seed):
    rng = np.random.default_rng(seed)
    return Pair(rng.normal(size=(rows, 2, 3)).astype(np.float32), rng.integers(0, 9, (rows, 4), np.uint8))


@pytest.mark.parametrize("sizes", [(7,), (3, 0, 4), (1, 1, 5)])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (0,)])
def test_rows_are_those_of_all_parts_together(sizes, shape):
    parts = [pair(n, seed) for seed, n in enumerate(sizes)]
    whole = Pair(*map(np.concatenate, zip(*parts, strict=True)))
    indices = np.random.default_rng(0).integers(0, 7, shape).astype(np.int32)
    found = Streamed(parts).rows(indices)
    assert isinstance(found, Pair)
    for x, expected in zip(found, whole, strict=True):
        assert x.dtype == expected.dtype
        np.testing.assert_array_equal(x, expected[indices])


@pytest.mark.parametrize("index", [-1, 7])
def test_a_row_that_is_not_there_is_refused(index):
    with pytest.raises(IndexError, match="expected 0 to 6"):
        Streamed([pair(7, 0)]).rows(np.array([3, index]))


def threads_left():
    return [t for t in threading.enumerate() if t.name == "prefetch"]


class Source:
    """Numbers, and how many of them were asked for."""

    def __init__(self, count, error=None):
        self.count, self.error, self.made = count, error, 0

    def __iter__(self):
        for i in range(self.count):
            self.made += 1
            yield i
        if self.error is not None:
            raise self.error

    def wait_for(self, made):
        until = time.monotonic() + 30
        while self.made < made and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.05)  # time in which more would be made, if the thread went on
        return self.made


def test_the_next_ones_are_made_before_they_are_asked_for_but_not_all():
    source = Source(10)
    with prefetched(source) as items:
        assert source.wait_for(DEPTH) == DEPTH
        for taken, item in enumerate(items, start=1):
            assert item == taken - 1
            assert source.wait_for(min(10, taken + DEPTH)) == min(10, taken + DEPTH)
    assert taken == 10 and not threads_left()


def test_the_same_items_in_the_same_order():
    for count in (0, 1, 2, 50):
        with prefetched(Source(count)) as items:
            assert list(items) == list(range(count))
            assert list(items) == []
        assert not threads_left()


def test_an_error_comes_where_the_item_is_taken():
    with prefetched(Source(3, ValueError("no fourth one"))) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="no fourth one"):
            next(items)
    assert not threads_left()


def test_no_thread_is_left_where_the_taker_stops():
    source = Source(1000)
    with prefetched(source) as items:
        assert next(items) == 0
    with pytest.raises(KeyError), prefetched(source) as items:
        assert next(items) == 0
        raise KeyError
    assert source.made <= 2 * (1 + DEPTH) and not threads_left()


def test_a_signal_while_an_item_is_waited_for():
    waiting = threading.Event()

    def slow():
        yield 0
        os.kill(os.getpid(), signal.SIGTERM)
        waiting.wait(0.2)
        yield 1

    with pytest.raises(Stopped), stoppable(), prefetched(slow()) as items:
        assert next(items) == 0
        next(items)
    assert not threads_left()
