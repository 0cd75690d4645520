"""What is wrong with a data set's files: as an exception while reading, as a list while checking."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qcjax.runtime.messages import sendable


@sendable
@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (error) or suspicious (warning) in a data set."""

    level: Literal["error", "warning"]
    path: Path
    found: str
    expected: str
    subject: str = ""  # "" where it concerns the whole data set

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; expected {self.expected}"


class InvalidFile(ValueError):
    """A file that can't be used: its path, what was found in it and what was expected."""

    def __init__(self, path: Path, found: str, expected: str):
        super().__init__(f"{path}: found {found}; expected {expected}")
        self.path, self.found, self.expected = Path(path), found, expected

    def __reduce__(self) -> tuple[type["InvalidFile"], tuple[Path, str, str]]:
        return InvalidFile, (self.path, self.found, self.expected)

    def finding(self, subject: str = "") -> Finding:
        """The same as an error of a check."""
        return Finding("error", self.path, self.found, self.expected, subject)
