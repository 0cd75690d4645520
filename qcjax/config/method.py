"""How a preset reads the papers: what the paper says, or what its authors' public code does.

Whoever adds a third reading adds a value to METHODS, and to the tables that the names here are keys of.
"""

from dataclasses import dataclass
from typing import Literal

from qcjax.config.values import Preset


@dataclass(frozen=True)
class Method:
    """A reading of the refinement and the monitoring paper; the defaults are the papers', literally."""

    name: Literal["paper", "original"] = "paper"
    """Key in METHODS, which a monitor keeps in its description."""
    supervised_loss: str = "paper"
    """Key in `losses.SUPERVISED`."""
    autoencoder_loss: str = "paper"
    """The loss of R in the refinement paper, as `losses.autoencoder_loss` knows it."""
    monitor_loss: str | None = None
    """The same in the monitoring paper; None: as --monitor.dice says."""
    initialisation: Literal["he_normal", "he_uniform"] = "he_normal"
    """How the autoencoder's weights begin."""
    random_bias: bool = False
    """Whether `acdc_unet`'s biases begin as PyTorch's do, or at 0."""
    shuffle: bool = True
    """Whether every epoch has an order of its own."""
    by_subject: bool = False
    """Whether a monitor's batches, and the means of its validation loss, never mix subjects."""
    schedule_epochs: int | None = None
    """Where the polynomial schedule of nnunet ends; None: with training."""
    late_schedule: bool = False
    """Whether nnunet's first two epochs have the same learning rate: its counter is applied, then advanced."""
    skip_last_epoch: bool = False
    """Whether supervised training ends one epoch early, and refinement goes on from epoch 200 of 250."""
    resampling: Literal["paper", "original"] = "paper"
    """The way to the prepared grid and back, see `data.preprocess`."""
    spacing_of_all_views: bool = False
    """Whether the target spacing is the median over both views, or over the view's own cases."""
    refinement: Literal["paper", "original"] = "paper"
    """Key in `refinement.run.REFINEMENTS`: how OoD cases are found and learnt from."""
    unit: Literal["mm", "voxels"] = "mm"
    """What distances are measured in."""


PAPER = Method()

ORIGINAL = Method(
    name="original",
    supervised_loss="original",
    autoencoder_loss="original",
    monitor_loss="monitoring_original",
    initialisation="he_uniform",
    random_bias=True,
    shuffle=False,
    by_subject=True,
    schedule_epochs=1000,
    late_schedule=True,
    skip_last_epoch=True,
    resampling="original",
    spacing_of_all_views=True,
    refinement="original",
    unit="voxels",
)

METHODS: dict[str, Method] = {method.name: method for method in (PAPER, ORIGINAL)}


def method_of(preset: Preset) -> Method:
    """The reading of a preset: `demo` and `small` follow the paper."""
    return METHODS.get(preset, PAPER)
