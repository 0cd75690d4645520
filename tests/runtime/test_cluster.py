"""Cases spread over workers: each case once, whoever dies; few in flight; errors in words."""

import os
import signal
import sys
import threading
from collections import Counter

import dask
import distributed
import pytest

from qcjax.runtime import cluster
from qcjax.runtime.cluster import AHEAD, TASK, Cluster, cluster_of, spread
from tests.cluster_work import DEADLY, lost, work


def cases(count):
    return [{"name": f"{i:03}"} for i in range(count)]


@pytest.fixture(scope="module")
def one():
    """A scheduler with one worker."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as local:
        yield Cluster(scheduler=local.scheduler_address)


def test_the_cases_of_a_killed_worker_are_done_by_others():
    """Of two workers one is killed in the middle: nothing is lost, nothing comes twice."""
    found = []
    for line in spread(Cluster(workers=2), work, {"seconds": 0.02}, iter(cases(100)), lost):
        if not found:
            killed = line["process"]
            os.kill(killed, signal.SIGKILL)
        found.append(line)
    assert Counter(line["name"] for line in found) == Counter(case["name"] for case in cases(100))
    assert not any("lost" in line for line in found)
    assert len({line["process"] for line in found} - {killed}) >= 1
    assert sum(line["process"] == killed for line in found) < 90


def test_a_case_that_kills_every_worker_is_told_and_the_others_are_done():
    given = [*cases(2 * TASK), {"name": DEADLY}, *cases(3 * TASK)[2 * TASK :]]
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        found = list(spread(Cluster(workers=2), work, {"seconds": 0}, iter(given), lost))
    assert Counter(line["name"] for line in found) == Counter(case["name"] for case in given)
    assert [line for line in found if "lost" in line] == [
        {"name": DEADLY, "lost": "each process that worked on it died, 1 times"}
    ]


def test_few_cases_are_in_flight_and_a_job_is_opened_once(one):
    taken = 0

    def counted():
        nonlocal taken
        for case in cases(200):
            taken += 1
            yield case

    most, found = 0, []
    for line in spread(one, work, {"seconds": 0}, counted(), lost):
        most = max(most, taken - len(found))
        found.append(line)
    assert sorted(line["name"] for line in found) == [case["name"] for case in cases(200)]
    assert most <= (AHEAD + 1) * TASK
    (first,) = {line["opened"] for line in found}
    again = list(spread(one, work, {"seconds": 0, "another": True}, cases(3), lost))
    assert {line["opened"] for line in again} == {first + 1}


def test_workers_that_come_later_are_waited_for_and_used(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.2)
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as local:
        timer = threading.Timer(1.0, local.scale, [2])
        timer.start()
        where = Cluster(scheduler=local.scheduler_address)
        found = list(spread(where, work, {"seconds": 0.05}, cases(80), lost))
        timer.join()
    assert len(found) == 80 and len({line["process"] for line in found}) == 2
    assert capsys.readouterr().out.count("Waiting for workers at tcp://") == 1


def test_an_error_of_the_work_ends_the_run(one):
    with pytest.raises(ValueError, match="nothing found, expected something"):
        list(spread(one, work, {"seconds": 0, "fails": True}, cases(3), lost))


def test_no_cases_are_none(one):
    assert list(spread(one, work, {"seconds": 0}, [], lost)) == []


def test_a_scheduler_that_is_not_there_is_named():
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(OSError, match=r"--scheduler: tcp://127\.0\.0\.1:9 not reached"),
    ):
        list(spread(Cluster(scheduler="tcp://127.0.0.1:9"), work, {"seconds": 0}, cases(1), lost))


def test_without_dask_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"need the extra: pip install 'qcjax\[cluster\]'"):
        next(spread(Cluster(workers=1), work, {"seconds": 0}, cases(1), lost))


def test_one_of_both_is_asked_for():
    assert cluster_of(None, None) is None
    assert cluster_of(2, None) == Cluster(workers=2)
    for wrong in ((0, None), (2, "tcp://a:1")):
        with pytest.raises(ValueError, match="--workers"):
            cluster_of(*wrong)
    with pytest.raises(ValueError, match="neither --workers and --scheduler found"):
        Cluster()
