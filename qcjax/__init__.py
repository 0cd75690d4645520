"""qcjax: quality-controlled cardiac MR segmentation in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcjax.inference.monitor import Monitor

__version__ = "0.1.0"
__all__ = ["Monitor", "__version__"]


def __getattr__(name: str) -> Any:
    """`qcjax.Monitor`, imported when it is used: the commands that need no JAX start without it."""
    if name == "Monitor":
        from qcjax.inference.monitor import Monitor

        return Monitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
