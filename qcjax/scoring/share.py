"""Shares of a list of masks, scored by processes that know nothing of each other but a common folder of results.

Each share keeps a journal of its own below `shares/`, and a lock; nothing else is common but files that are written
whole. Which masks are a share's follows from their names alone.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qcjax.data.mask_cohort import MaskCase
from qcjax.runtime.lock import holder, lock_folder, unlock_folder

SHARES, JOURNAL = "shares", "scores.jsonl"
EXPECTED = "INDEX/COUNT with an index from 1 to the count, such as 2/8, the second of eight"


@dataclass(frozen=True, order=True)
class Share:
    """One part of a list that is split in `count` parts; ValueError unless 1 <= index <= count."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"share: {self} found, expected {EXPECTED}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Share":
        """The share that a text such as "2/8" names. Raises ValueError where it isn't of that form."""
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"--share: {text!r} found, expected {EXPECTED}")
        return cls(int(found[1]), int(found[2]))

    def of(self, files: Sequence[MaskCase]) -> list[MaskCase]:
        """The masks that are in this share, in their order."""
        return [file for file in files if share_of(file.name, self.count) == self]

    def folder(self, out: Path) -> Path:
        """Where it keeps its journal and its lock."""
        return out / SHARES / f"{self.index}-of-{self.count}"


def share_of(name: str, count: int) -> Share:
    """Which of `count` shares a mask is in: by its name alone, so that it stays there when others come and go."""
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return Share(1 + int.from_bytes(digest[:8], "big") % count, count)


def shares_in(out: Path) -> list[Share]:
    """All that ever began in a folder of results, of whatever count."""
    found = []
    for path in (out / SHARES).glob("*-of-*"):
        index, _, count = path.name.partition("-of-")
        if index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
            found.append(Share(int(index), int(count)))
    return sorted(found)


def journal_path(out: Path, share: Share | None) -> Path:
    """The journal of a share, or of the whole."""
    return (out if share is None else share.folder(out)) / JOURNAL


def claim(out: Path, share: Share | None) -> None:
    """Take a folder of results, or a share's part of it, for this process.

    Shares of one count have nothing in common, so they don't hinder each other; the whole and its shares, and shares of
    different counts, do.

    Raises:
      ValueError: another process is at work there on what this one would do; says which, where, and since when.
      OSError: nothing can be written there.
    """
    own = out if share is None else share.folder(out)
    lock_folder(own)
    # having its own lock first, of two that begin at once at least one sees the other
    try:
        if share is not None and (who := holder(out)):
            raise ValueError(f"{out}: another run is at work there, without --share ({who}); wait for it")
        for other in shares_in(out):
            if share is not None and other.count == share.count:
                continue
            if who := holder(other.folder(out)):
                raise ValueError(
                    f"{out}: share {other} is at work there ({who}); wait for it, or choose another --out"
                )
    except (ValueError, OSError):
        unlock_folder(own)
        raise
