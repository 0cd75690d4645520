"""One command line for every experiment: the preset gives the defaults, options override them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import tyro

from qcjax import hosts, runtime
from qcjax.config import Preset, RunConfig
from qcjax.faults import exit_code

C = TypeVar("C", bound=RunConfig)


def start(config: C, experiment: Callable[[C], None]) -> int:
    """Run an experiment, with other processes where the configuration says so; the exit code."""
    runtime.prepare(config.deterministic, config.distributed)

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

    Exits with a message where an option isn't understood.
    """
    words = [word for option in argv for word in option.split("=", 1)]
    has_data = "--data" in words
    preset = (
        words[words.index("--preset") + 1] if "--preset" in words[:-1] else ("paper" if has_data else "demo")
    )
    default = presets.get(preset, presets["demo"])
    if preset in presets:
        default = replace(default, preset=cast(Preset, preset))
    return tyro.cli(config, args=list(argv), default=default, prog=prog)
