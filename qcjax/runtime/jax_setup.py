"""What has to be set before the first array exists: compilation cache, memory, devices."""

import ctypes
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jax

from qcjax.runtime.devices import local_devices
from qcjax.runtime.memory import host_peak_bytes
from qcjax.runtime.progress import say

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
TUNED_ALONE = "--xla_gpu_shard_autotuning=false"
COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX's event: a program was compiled, or read from the cache
GIB = 2**30


def prepare(deterministic: bool = False, distributed: bool = False) -> None:
    """Keep compiled networks in the user's cache folder, where there is one, and no more memory than is needed.

    A GPU's memory grows instead of being taken by 75 %; what the compiler has used goes back to the system.

    Anything that the user has set in the environment stands.

    Args:
      deterministic: on a GPU, only operations that give the same bits every time; it counts for what is set before
        the first array exists.
      distributed: several processes make the run. One that finds its programs in its cache must not be waited for by
        others that tune theirs.
    """
    for wanted, flag in ((deterministic, DETERMINISTIC), (distributed, TUNED_ALONE)):
        flags = os.environ.get("XLA_FLAGS", "")
        if wanted and flag.partition("=")[0] not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = cache_folder()
        if folder is None:
            say("No folder for compiled networks, so each start compiles them; XDG_CACHE_HOME can name one")
        jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _release_memory_after_compiling()


def cache_folder() -> Path | None:
    """Where compiled networks are kept; None without a home, as in containers, or where nothing can be written."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "qcjax" / "jax"
        folder.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError):  # RuntimeError: an account that nobody knows, and HOME isn't set
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


@cache
def _release_memory_after_compiling() -> None:
    def release(event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILED and duration_secs > 0.1:
            release_memory()

    jax.monitoring.register_event_duration_secs_listener(release)


def release_memory() -> None:
    """Back to the system what this process has freed; the C library keeps it, of a compiler hundreds of MB."""
    with suppress(AttributeError, OSError):  # other C libraries than glibc don't have it
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory() -> dict[str, Any]:
    """The most that this process has held so far: `host_gib`, and `device_gib` of each of its devices.

    A device that keeps no account of it, such as a CPU, whose memory is the host's, has None.
    """
    accounts = [device.memory_stats() for device in local_devices()]
    peaks = [None if a is None else a.get("peak_bytes_in_use") for a in accounts]
    return {
        "host_gib": host_peak_bytes() / GIB,
        "device_gib": [None if p is None else p / GIB for p in peaks],
    }


def versions() -> dict[str, str]:
    """The versions of qcjax and of the packages that its numbers depend on."""
    from importlib.metadata import version

    import qcjax

    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "nibabel")
    return {"qcjax": qcjax.__version__} | {name: version(name) for name in names}
