"""What workers of a cluster are given in tests: cases that say who did them, fail, or kill their process."""

import os
import signal
import threading
import time
from contextlib import contextmanager

import psutil

from qcjax.runtime.cluster import kept_open

DEADLY = "deadly"  # a case's name


def work(job, cases):
    """The name of each case, the process that did it, and how often that process opened the job."""
    opened = kept_open(job, _opened)
    lines = []
    for case in cases:
        if case["name"] == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if job.get("fails"):
            raise ValueError("nothing found, expected something")
        time.sleep(job["seconds"])
        lines.append({"name": case["name"], "process": os.getpid(), "opened": opened})
    return lines


_count = 0


def _opened(job):
    global _count
    _count += 1
    return _count


def lost(case, why):
    """The line of a case that is given up."""
    return {"name": case["name"], "lost": why}


def _is_worker(process):
    try:
        return any("spawn_main" in part for part in process.cmdline())
    except psutil.Error:  # it has just ended
        return False


@contextmanager
def one_killed_after(journal):
    """Kill one of this process's workers once there is a line in a journal; yields what it is told of that."""
    told, over = [], threading.Event()

    def watch():
        while not over.wait(0.02):
            workers = [p for p in psutil.Process().children(recursive=True) if _is_worker(p)]
            if workers and journal.exists() and journal.stat().st_size:
                workers[0].kill()
                told.append(workers[0].pid)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()
