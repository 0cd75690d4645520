"""What is set before the first array exists, and what is measured of the process."""

import os
import subprocess
import sys

import pytest

from qcjax import runtime

SCRIPT = """
import os
from qcjax import runtime

runtime.prepare({deterministic})
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
from qcjax import runtime

before = runtime.peak_memory()["host_gib"]
held = np.ones(int(2 * before * runtime.GIB) // 8)
del held
print(before, runtime.peak_memory()["host_gib"])
"""


def test_peak_memory_of_the_process():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert before > 0.05 and 2 * before < after < 4 * before
    peaks = runtime.peak_memory()["device_gib"]
    assert len(peaks) == 8 and all(peak is None or peak > 0 for peak in peaks)
