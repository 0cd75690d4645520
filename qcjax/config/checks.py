"""Checks of options, whose messages name the option as it is spelt on the command line."""

import math
from typing import Any


def at_least(least: int, options: Any, *names: str) -> None:
    """Raises ValueError where an option of these names is set and below `least`."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{_spelt(name)}: {value} found, expected at least {least}")


def positive(options: Any, *names: str) -> None:
    """Raises ValueError where an option of these names, or a part of it, is set and isn't a finite number above 0."""
    for name in names:
        values = getattr(options, name)
        for value in values if isinstance(values, tuple) else (values,):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{_spelt(name)}: {value} found, expected a number above 0")


def share(options: Any, *names: str) -> None:
    """Raises ValueError where an option of these names isn't between 0 and 1, both included."""
    for name in names:
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise ValueError(f"--{_spelt(name)}: {value} found, expected 0 to 1")


def check_dropout(options: Any) -> None:
    """Raises ValueError where the probability of dropout isn't at least 0 and below 1."""
    if not 0 <= options.dropout < 1:
        raise ValueError(f"--dropout: {options.dropout} found, expected at least 0 and below 1")


def check_size(options: Any) -> None:
    """Raises ValueError where the side of the networks' input isn't a multiple of 64 pixels."""
    if options.size < 64 or options.size % 64:
        raise ValueError(f"--size: {options.size} found, expected a multiple of 64")


def _spelt(name: str) -> str:
    """On the command line; of a group of options, the parser says which."""
    return name.replace("_", "-")
