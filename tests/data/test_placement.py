"""Data that stream from the host: chosen by themselves, and the same results as from the devices."""

import os
import signal
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import chex
import jax
import numpy as np
import pytest

from qcjax.data.placement import GIB, free_bytes, place
from qcjax.data.streaming import Streamed
from qcjax.refinement.autoencoder import train_autoencoder
from qcjax.refinement.refine import Pool, measure_unlabelled, refine
from qcjax.refinement.refine_original import OriginalPool, Records, refine_original
from qcjax.runtime.devices import Devices
from qcjax.runtime.stops import Stopped, stoppable
from qcjax.train.arm import ViewData
from qcjax.train.monitor import MonitorTraining
from qcjax.train.segmenter import train_segmenter
from qcjax.uncertainty.training import FoldTraining, VolumeNetwork
from tests.slow import slow
from tests.train import drawn_cohorts
from tests.train.toy import without_times


class Rows(NamedTuple):
    x: np.ndarray


def bytes_of(count):
    """An array that says it is so large, without the memory."""
    return Rows(np.broadcast_to(np.uint8(0), (count,)))


class Fake(Devices):
    """Devices with as much limit and use, or None where they don't tell; nothing goes to them."""

    def __init__(self, *memory):
        names = ("bytes_limit", "bytes_in_use")
        stats = [m if m is None else dict(zip(names, m, strict=False)) for m in memory]
        self.devices = [SimpleNamespace(memory_stats=lambda s=s: s) for s in stats]

    def replicate(self, tree):
        return "placed", tree


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (((100, 30),), 70),
        (((100, 30), (100, 90)), 10),
        (((100,),), 100),
        ((None,), None),
        (((100, 30), None), None),
        (((),), None),
    ],
)
def test_what_the_fullest_device_has_free(memory, expected):
    assert free_bytes(Fake(*memory)) == expected


@pytest.mark.parametrize(
    ("size", "memory", "stream", "streams"),
    [
        (50, (130, 30), "auto", False),
        (51, (130, 30), "auto", True),
        (51, None, "auto", False),
        (51, (130, 30), "never", False),
        (1, (130, 30), "always", True),
        (1, None, "always", True),
    ],
)
def test_auto_streams_what_would_take_more_than_half_of_what_is_free(size, memory, stream, streams):
    found = place([bytes_of(size - 1), bytes_of(1)], Fake(memory), stream)
    if streams:
        assert isinstance(found, Streamed) and found.first[-1] == size
    else:
        kind, rows = found
        assert kind == "placed" and rows.x.shape == (size,)


def test_it_is_said_where_data_stream_and_why(capsys):
    place([bytes_of(3 * GIB)], Fake((5 * GIB, GIB // 2)), "auto", "Slices of SA")
    said = capsys.readouterr().out
    assert "Slices of SA stay on the host" in said and "3.00 GiB (free on a device: 4.50 GiB)" in said
    place([bytes_of(GIB // 2)], Fake(None), "always")
    assert "0.50 GiB (free on a device: unknown)" in capsys.readouterr().out
    place([bytes_of(10)], Fake((5 * GIB, 0)))
    assert capsys.readouterr().out == ""


def streaming(arm):
    """The same arm, its slices on the host."""
    data = arm.data
    parts = data.training, data.validation, data.unlabelled
    return replace(arm, data=ViewData.place(data.view, *parts, arm.devices, "always"))


def trained(arm):
    """Weights, predictions and journal."""
    autoencoder, supervised = train_autoencoder(arm), train_segmenter(arm)
    variables = arm.load(supervised, supervised.candidates()[0])
    supervised.close()
    predictor, slices, where = arm.networks.predictor, arm.data.slices, arm.data.unlabelled_indices[:5]
    places = np.arange(10, dtype=np.uint32).reshape(5, 2)
    found = (
        arm.devices.unreplicate((autoencoder, variables)),
        predictor.probabilities(variables, slices, where),
        predictor.uncertainty(variables, slices, where, places, jax.random.key(1), 2),
        measure_unlabelled(arm, variables, autoencoder),
    )
    return jax.device_get(found), without_times(arm.journal.read())


def compilations(step):
    """How often a step was compiled; None where JAX doesn't tell, as of several devices."""
    return step._cache_size() if hasattr(step, "_cache_size") else None


def prefetching():
    return [t for t in threading.enumerate() if t.name == "prefetch"]


@pytest.mark.parametrize(
    ("name", "count"),
    [("nnunet", 1), pytest.param("nnunet", 2, marks=slow), pytest.param("acdc_unet", 1, marks=slow)],
)
def test_training_and_prediction_from_the_host_are_those_from_the_devices(make_arm, name, count):
    """Bit for bit, with augmentation and dropout; and a step is compiled once for both."""
    resident, host = make_arm("resident", name, count), streaming(make_arm("host", name, count))
    assert isinstance(host.data.slices, Streamed) and not isinstance(resident.data.slices, Streamed)
    expected, journal = trained(resident)
    compiled = compilations(resident.networks.supervised_step)
    found, other = trained(host)
    chex.assert_trees_all_equal(found, expected)
    assert other == journal and len(journal) == 2 + 3
    assert compilations(resident.networks.supervised_step) == compiled
    assert not prefetching()


@pytest.mark.parametrize("original", [False, pytest.param(True, marks=slow)])
def test_refinement_from_the_host_is_that_from_the_devices(make_arm, monkeypatch, original):
    monkeypatch.setattr(Pool, "detect", lambda self, candidates, cases=None: (np.arange(6) < 2, {}))
    monkeypatch.setattr(Records, "ood", lambda self: np.arange(6) < 2)
    kind, run = (OriginalPool, refine_original) if original else (Pool, refine)
    results = []
    for arm in (make_arm("resident", original=original), streaming(make_arm("host", original=original))):
        pool = kind(arm, train_autoencoder(arm), [train_segmenter(arm)])
        run(pool, "refined", 2, True)
        weights = [arm.devices.unreplicate(pool.load(c)) for c in pool.candidates()]
        results.append((jax.device_get(weights), without_times(arm.journal.read())))
        for checkpoints in pool.stages:
            checkpoints.close()
    (expected, journal), (found, other) = results
    chex.assert_trees_all_equal(found, expected)
    assert other == journal and any(line["stage"] == "refined" for line in journal)


def test_a_stop_with_batches_made_ahead_makes_no_difference(make_arm, monkeypatch):
    """A signal in the middle of an epoch, while the thread is at work; started again, the journal is the same."""
    whole = streaming(make_arm("whole"))
    train_segmenter(whole).close()
    cut, rows, calls = streaming(make_arm("cut")), Streamed.rows, []

    def signalling(self, indices):
        calls.append(None)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return rows(self, indices)

    with monkeypatch.context() as patch:
        patch.setattr(Streamed, "rows", signalling)
        with pytest.raises(Stopped, match="SIGTERM in epoch"), stoppable():
            train_segmenter(cut)
    assert not prefetching()
    train_segmenter(cut).close()
    assert without_times(cut.journal.read()) == without_times(whole.journal.read())


@pytest.mark.parametrize(
    ("count", "reading"),
    [(1, "paper"), pytest.param(2, "paper", marks=slow), pytest.param(1, "original", marks=slow)],
)
def test_a_monitor_is_trained_alike_from_the_host(tmp_path, monkeypatch, count, reading):
    monkeypatch.setattr(MonitorTraining, "export", lambda self, variables, epoch, loss: (variables, epoch))
    devices, results = Devices(count), []
    for stream in ("never", "always"):
        training = drawn_cohorts.monitor_training(tmp_path / stream, devices, reading, stream=stream)
        results.append((training.run(), without_times(training.journal.read())))
    (expected, journal), (found, other) = results
    chex.assert_trees_all_equal(found, expected)
    assert other == journal and len(journal) == 2
    assert not prefetching()


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=slow)])
def test_volumes_are_learnt_alike_from_the_host(tmp_path, count):
    cohort, devices, results = drawn_cohorts.volumes(), Devices(count), []
    network = VolumeNetwork(drawn_cohorts.VOLUMES, devices)
    for stream in ("never", "always"):
        folder = tmp_path / stream
        folder.mkdir()
        placed = place([cohort.volumes], devices, stream)
        training = FoldTraining(network, "proposed", 0, cohort, placed, np.arange(5) < 1, folder)
        variables = jax.device_get(devices.unreplicate(training.run()))
        results.append((variables, without_times(training.journal.read())))
    (expected, journal), (found, other) = results
    chex.assert_trees_all_equal(found, expected)
    assert other == journal and len(journal) == 2
    assert compilations(network.step("proposed")) in (1, None)
    assert not prefetching()
