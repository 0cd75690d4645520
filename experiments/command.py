"""One command line for every experiment: the preset gives the defaults, options override them."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

import tyro

from qcjax.config import Preset, RunConfig
from qcjax.runtime import hosts, jax_setup
from qcjax.runtime.exits import exit_code

C = TypeVar("C", bound=RunConfig)


def start(config: C, experiment: Callable[[C], None]) -> int:
    """Run an experiment, with other processes where the configuration says so; the exit code."""
    jax_setup.prepare(config.deterministic, config.distributed)

    def joined() -> None:
        hosts.start(config.distributed, config.hosts)
        experiment(config)

    code = exit_code(joined)
    if code == 1 and hosts.count() > 1:
        hosts.leave(code)
    return code


def results_folder(out: Path | None, experiment: str) -> Path:
    """Where the results go: as asked, or a new folder with the time in its name, the same for all processes."""
    return hosts.same(out or Path("runs") / f"{experiment}-{datetime.now():%Y%m%d-%H%M%S}")


def parse(argv: Sequence[str], config: type[C], presets: Mapping[Any, C], prog: str | None = None) -> C:
    """Resolve a configuration: `--data` chooses the default preset (paper with it, demo without), `--preset` any.

    Exits with a message where an option isn't understood, or one of any number of values is given twice: the
    last would count alone.
    """
    words = [word for option in argv for word in option.split("=", 1)]
    preset = "paper" if "--data" in words else "demo"
    for word, following in pairwise(words):
        preset = following if word == "--preset" else preset
    default = presets.get(preset, presets["demo"])
    if preset in presets:
        default = replace(default, preset=cast(Preset, preset))
    for name, kind in get_type_hints(config).items():
        option = f"--{name.replace('_', '-')}"
        if get_args(kind)[-1:] == (...,) and words.count(option) > 1:
            print(f"error: {option}: found twice, expected once, with all of its values", file=sys.stderr)
            sys.exit(2)
    return tyro.cli(config, args=list(argv), default=default, prog=prog)
