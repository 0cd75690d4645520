"""One command line for every experiment: the preset gives the defaults, options override them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import tyro

C = TypeVar("C")


def parse(argv: Sequence[str], config: type[C], presets: Mapping[Any, C], prog: str | None = None) -> C:
    """Resolve a configuration: `--data` chooses the default preset (paper with it, demo without), `--preset` any.

    Exits with a message where an option isn't understood.
    """
    words = [word for option in argv for word in option.split("=", 1)]
    has_data = "--data" in words
    preset = (
        words[words.index("--preset") + 1] if "--preset" in words[:-1] else ("paper" if has_data else "demo")
    )
    default = presets.get(preset, presets["demo"])
    if preset in presets:
        default = replace(default, preset=preset)  # type: ignore[type-var]
    return tyro.cli(config, args=list(argv), default=default, prog=prog)
