"""Counts in sentences."""


def count_of(n: int, noun: str) -> str:
    """E.g. ``1 mask``, ``2,000 masks``."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
