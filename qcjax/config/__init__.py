"""Everything a run can be told, as frozen dataclasses."""

import dataclasses
import json
from typing import Any

from qcjax.config.experiments import AcdcConfig, EmidecConfig, Mnms2Config, RunConfig
from qcjax.config.hosts import Hosts
from qcjax.config.inference import InferenceConfig
from qcjax.config.method import METHODS, PAPER, Method, method_of
from qcjax.config.monitor import MONITORS, Centre, DiceOfMasks, MonitorConfig
from qcjax.config.training import AutoencoderConfig, RefinementConfig, SegmenterConfig, UncertaintyConfig
from qcjax.config.values import ARMS, ArmName, Preset, Segmenter, Stream, View

__all__ = [
    "ARMS",
    "METHODS",
    "MONITORS",
    "PAPER",
    "Method",
    "AcdcConfig",
    "ArmName",
    "AutoencoderConfig",
    "Centre",
    "DiceOfMasks",
    "EmidecConfig",
    "Hosts",
    "InferenceConfig",
    "Mnms2Config",
    "MonitorConfig",
    "Preset",
    "RefinementConfig",
    "RunConfig",
    "Segmenter",
    "SegmenterConfig",
    "Stream",
    "UncertaintyConfig",
    "View",
    "method_of",
    "to_json",
]


def to_json(config: Any) -> dict[str, Any]:
    """A configuration as plain values, paths as text."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))
