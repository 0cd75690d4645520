"""What is wrong with a data set's files: as an exception while reading, as a list while checking."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from qcjax.runtime.messages import sendable
from qcjax.runtime.wording import count_of


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


def print_findings(findings: Sequence[Finding], n_subjects: int, console: Console) -> int:
    """Print findings and their counts; the number of errors."""
    styles = {"error": "bold red", "warning": "yellow"}
    for finding in findings:
        heading = Text.assemble((f"\n{finding.level}", styles[finding.level]), f"  {finding.path}")
        if finding.subject:
            heading.append(f"  (subject {finding.subject})")
        console.print(heading)
        console.print(Text(f"  found     {finding.found}\n  expected  {finding.expected}"))
    count = Counter(f.level for f in findings)
    bad = len({f.subject for f in findings if f.level == "error" and f.subject})
    console.print(
        Text(
            f"\n{count_of(n_subjects, 'subject')} checked: {count_of(count['error'], 'error')} "
            f"(in {count_of(bad, 'subject')}), {count_of(count['warning'], 'warning')}."
        )
    )
    return count["error"]
