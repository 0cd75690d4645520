"""Counts in sentences."""


def count_of(n: int, noun: str) -> str:
    """E.g. ``1 mask``, ``2,000 masks``."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def printable(text: str) -> str:
    """A text with a question mark for what isn't text, as in a file's name of another encoding."""
    return text.encode(errors="replace").decode()
