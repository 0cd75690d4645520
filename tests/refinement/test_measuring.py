"""Cases measured on the host while the devices work."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from qcjax import qc
from qcjax.inference.predictor import Reconstruction
from qcjax.labels import RV
from qcjax.qc import original as qc_original
from qcjax.refinement import measuring
from qcjax.refinement.measuring import measure_cases
from qcjax.refinement.refine import measure_unlabelled
from qcjax.refinement.refine_original import measure_rv
from qcjax.runtime.stops import Stopped
from tests.slow import slow

N = 5


def arm_of(results):
    """An arm whose predictor gives these."""
    predictor = SimpleNamespace(reconstruct=lambda *args: results)
    cohort = SimpleNamespace(first=np.arange(N + 1))
    data = SimpleNamespace(slices=None, unlabelled_indices=None, unlabelled=cohort)
    return SimpleNamespace(data=data, networks=SimpleNamespace(predictor=predictor))


def result(case, fetched=None):
    def probabilities():
        if fetched is not None:
            fetched.append(case)
        return np.full((1, 2, 2, 4), case, np.float16)

    mask = np.full((1, 2, 2), case, np.uint8)
    return Reconstruction(mask, mask + 1, probabilities)


def every_case():
    yield from map(result, range(N))


def measure(case, mask, rebuilt):
    time.sleep(0.02 * (N - case))  # the first ends last
    return np.array([float(mask.max())]), np.array([float(rebuilt.max())])


def test_measures_are_in_order_whatever_ends_first():
    pdc, phd = measure_cases(arm_of(every_case()), {}, {}, measure)
    assert pdc.tolist() == [[0], [1], [2], [3], [4]] and phd.tolist() == [[1], [2], [3], [4], [5]]


def test_what_is_to_be_kept_is_fetched_and_taken_before_the_end():
    fetched, asked, taken = [], [], {}

    def keep(case, measures):
        asked.append((case, measures[0].tolist(), measures[1].tolist()))

        def take(probabilities):
            time.sleep(0.1)
            taken[case] = probabilities

        return take if case in (1, 4) else None

    results = (result(case, fetched) for case in range(N))
    measure_cases(arm_of(results), {}, {}, measure, keep)
    assert asked == [(case, [case], [case + 1]) for case in range(N)]
    assert fetched == [1, 4] and sorted(taken) == [1, 4] and taken[4].max() == 4


def test_the_devices_do_not_wait_for_the_host():
    all_asked_for = threading.Event()

    def results():
        yield from every_case()
        all_asked_for.set()

    def waiting(case, mask, rebuilt):
        assert all_asked_for.wait(30), "the next case was not asked for while this one was measured"
        return np.zeros(1), np.zeros(1)

    measure_cases(arm_of(results()), {}, {}, waiting)


def test_no_more_than_a_few_cases_wait(monkeypatch):
    monkeypatch.setattr(measuring, "AHEAD", 1)
    given, settled, waited = 0, 0, []

    def results():
        nonlocal given
        for case in range(N):
            given += 1
            waited.append(given - settled)
            yield result(case)

    def keep(case, measures):
        nonlocal settled
        settled += 1

    measure_cases(arm_of(results()), {}, {}, measure, keep)
    assert settled == N and max(waited) == 2


def test_errors_and_stops_pass_through():
    def fails(*args):
        raise ValueError("no mask")

    with pytest.raises(ValueError, match="no mask"):
        measure_cases(arm_of(every_case()), {}, {}, fails)
    with pytest.raises(ValueError, match="no mask"):
        measure_cases(arm_of(every_case()), {}, {}, measure, lambda case, measures: fails)

    def stopped():
        yield result(0)
        raise Stopped(15)

    closed = []

    def endless():
        try:
            while True:
                yield result(0)
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match="no mask"):
        measure_cases(arm_of(endless()), {}, {}, fails)
    assert closed
    threads = threading.active_count()
    with pytest.raises(Stopped):
        measure_cases(arm_of(stopped()), {}, {}, measure)
    assert threading.active_count() == threads


@pytest.mark.parametrize("devices", [pytest.param(1, marks=slow), 8])
def test_both_variants_measure_what_the_networks_give(make_arm, devices):
    arm = make_arm(devices=devices)
    predictor, data, cohort = arm.networks.predictor, arm.data, arm.data.unlabelled
    m = arm.devices.replicate(arm.state("segmenter").variables)
    r = arm.devices.replicate(arm.state("autoencoder").variables)
    p = predictor.probabilities(m, data.slices, data.unlabelled_indices)
    masks = list(cohort.split(p.argmax(-1).astype(np.uint8)))
    rebuilt = list(cohort.split(predictor.rebuild_probabilities(r, p).argmax(-1).astype(np.uint8)))
    spacings = [g.spacing_mm for g in cohort.geometries]
    expected = [qc.pseudo_measures(*x) for x in zip(masks, rebuilt, spacings, strict=True)]
    pdc, phd = measure_unlabelled(arm, m, r)
    assert pdc.shape == phd.shape == (6, 3)
    np.testing.assert_array_equal(pdc, [e[0] for e in expected])
    np.testing.assert_array_equal(phd, [e[1] for e in expected])
    of_rv = [qc_original.pseudo_measures(*x, (RV,)) for x in zip(masks, rebuilt, strict=True)]
    pdc, phd = measure_rv(arm, m, r)
    np.testing.assert_array_equal(pdc, [e[0][0] for e in of_rv])
    np.testing.assert_array_equal(phd, [e[1][0] for e in of_rv])
