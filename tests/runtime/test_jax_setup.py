"""What is set before the first array exists, and what is measured of the process."""

import os
import platform
import subprocess
import sys

import pytest

from qcjax.runtime import jax_setup

SCRIPT = """
import os
from qcjax.runtime import jax_setup

jax_setup.prepare({deterministic})
import jax.numpy as jnp

print(float(jnp.arange(4.0).sum()), os.environ.get("XLA_FLAGS", ""))
"""


@pytest.mark.parametrize(
    ("deterministic", "given", "flags"),
    [
        (False, "", ""),
        (True, "", "--xla_gpu_deterministic_ops=true"),
        (
            True,
            "--xla_cpu_enable_fast_math=false",
            "--xla_cpu_enable_fast_math=false --xla_gpu_deterministic_ops=true",
        ),
        (True, "--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),
    ],
)
def test_the_flag_for_deterministic_operations_is_set_before_the_first_array(
    tmp_path, deterministic, given, flags
):
    """XLA refuses flags that it doesn't know, so it is run."""
    environment = os.environ | {"XLA_FLAGS": given, "XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    script = SCRIPT.format(deterministic=deterministic)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"6.0 {flags}".strip()


HELD = """
import numpy as np
from qcjax.runtime import jax_setup

before = jax_setup.peak_memory()["host_gib"]
held = np.ones(int(2 * before * jax_setup.GIB) // 8)
del held
print(before, jax_setup.peak_memory()["host_gib"])
"""


def test_peak_memory_of_the_process():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert before > 0.05 and 2 * before < after < 4 * before
    peaks = jax_setup.peak_memory()["device_gib"]
    assert len(peaks) == 8 and all(peak is None or peak > 0 for peak in peaks)


COMPILES = """
from qcjax.runtime import jax_setup

released = []
jax_setup.release_memory = lambda: released.append(True)
jax_setup.prepare()
jax_setup.prepare()
import jax

jax.monitoring.record_event_duration_secs(jax_setup.COMPILED, 0.05)
assert not released
jax.jit(lambda x: sum(jax.numpy.sin(x * i) for i in range(300)))(1.0)
assert len(released) == 1, released
"""


def test_memory_is_released_after_a_program_was_compiled(tmp_path):
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", COMPILES], check=True, env=environment)


FREES = """
from qcjax.runtime import jax_setup


def resident_mib():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS:"))


pieces = [bytearray(2**16) for _ in range(2**12)]
for piece in pieces:
    piece[::4096] = bytes(16 * b"1")
kept = pieces[::64]  # so that the heap doesn't end in what is free
del pieces, piece
before = resident_mib()
jax_setup.release_memory()
print(before, resident_mib())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no malloc_trim")
def test_what_is_freed_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", FREES], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert after < before - 200
