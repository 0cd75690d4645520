"""The values that options choose from."""

from typing import Literal

Segmenter = Literal["nnunet", "acdc_unet"]
Optimiser = Literal["sgd", "adam"]
View = Literal["SA", "LA"]
Preset = Literal["demo", "small", "paper", "original", "ours"]
ArmName = Literal["baseline", "control", "proposed"]
Stream = Literal["auto", "always", "never"]
ARMS: tuple[ArmName, ...] = ("baseline", "control", "proposed")
