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
jax.monitoring.record_event_duration_secs(jax_setup.COMPILED, 0.2)
assert len(released) == 1, released  # once, though it was prepared twice
jax.jit(lambda x: sum(jax.numpy.sin(x * i) for i in range(1500)))(1.0)
assert len(released) > 1, released  # a busy machine may take that long for a small program, too
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


HOMELESS = """
import pwd

def nobody(uid):
    raise KeyError(uid)

pwd.getpwuid = nobody
from pathlib import Path
try:
    Path.home()
except RuntimeError:
    print("no home")
from qcjax.runtime import jax_setup
jax_setup.prepare()
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: x + 1)(1.0), jax.config.jax_compilation_cache_dir)
"""


def homeless(**variables):
    """What a process says whose account nobody knows, as in containers that run as any user."""
    left_out = ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "JAX_COMPILATION_CACHE_DIR")
    inherited = {k: v for k, v in os.environ.items() if k not in left_out}
    environment = inherited | {"JAX_PLATFORMS": "cpu"} | variables
    done = subprocess.run([sys.executable, "-c", HOMELESS], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr
    return done.stdout.splitlines()


def test_without_home_and_account_everything_runs_without_the_cache():
    first, said, last = homeless()
    assert first == "no home" and last == "2.0 None"
    assert said == "No folder for compiled networks, so each start compiles them; XDG_CACHE_HOME can name one"


def test_without_home_the_cache_is_where_xdg_says(tmp_path):
    assert homeless(XDG_CACHE_HOME=str(tmp_path))[-1] == f"2.0 {tmp_path}/qcjax/jax"
    assert list((tmp_path / "qcjax" / "jax").iterdir())  # it was used


@pytest.mark.parametrize("home", ["/proc", "/dev/null"])
def test_a_home_that_cannot_be_written_to_is_as_good_as_none(home, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    assert jax_setup.cache_folder() is None


def test_a_cache_made_before_on_a_file_system_that_became_read_only(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jax_setup.cache_folder() is not None
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert jax_setup.cache_folder() is None
