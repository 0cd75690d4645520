"""Processes that were forked after JAX had started: without its threads, what they compute there would never end."""

import os
import sys

_forked_from: int | None = None  # the process that was forked with JAX at work in it


def check() -> None:
    """Raises RuntimeError in a process that was forked from one in which JAX had started."""
    if _forked_from is not None:
        raise RuntimeError(
            f"process {os.getpid()}: forked from process {_forked_from} after JAX had started there, so nothing can be "
            'computed here; expected a new process, as of multiprocessing.get_context("spawn")'
        )


def _after_fork() -> None:
    global _forked_from
    bridge = sys.modules.get("jax._src.xla_bridge")  # JAX has no public name for it
    if bridge is not None and bridge.backends_are_initialized():
        _forked_from = os.getppid()


os.register_at_fork(after_in_child=_after_fork)
