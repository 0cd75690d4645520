"""qcjax: quality-controlled cardiac MR segmentation in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from qcjax.inference.monitor import Monitor
    from qcjax.segmentation.model import Model

__version__ = "0.1.0"
__all__ = ["Model", "Monitor", "__version__", "load"]


def load(model: "Path | str | None" = None, devices: int | None = None) -> "Model":
    """The model in a folder, or without one the model that comes with qcjax; errors as of `Model.load`."""
    from qcjax.segmentation.model import Model

    return Model.load(model, devices)


def __getattr__(name: str) -> Any:
    """`qcjax.Model` and `qcjax.Monitor`, imported when used: the commands that need no JAX start without them."""
    if name == "Monitor":
        from qcjax.inference.monitor import Monitor

        return Monitor
    if name == "Model":
        from qcjax.segmentation.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
