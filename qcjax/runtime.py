"""What has to be set before the first array exists: compilation cache, memory, devices."""

import os
from pathlib import Path

import jax


def prepare() -> None:
    """Keep compiled networks in the user's cache folder, and let the GPU's memory grow instead of taking 75 % of it.

    Anything that the user has set in the environment stands.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "qcjax" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def versions() -> dict[str, str]:
    """Of qcjax and of what its numbers depend on."""
    from importlib.metadata import version

    import qcjax

    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "nibabel")
    return {"qcjax": qcjax.__version__} | {name: version(name) for name in names}
