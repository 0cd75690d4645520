"""What lies in a data set's folder: subjects and what is wrong with names and tables; lists for people."""

import codecs
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qcjax.data.files import LeftOut
from qcjax.data.findings import Finding, InvalidFile
from qcjax.data.subject import Subject


@dataclass(frozen=True)
class Scan:
    """What lies in a folder: subjects by code, and what was wrong with names and tables."""

    subjects: list[Subject]
    findings: list[Finding]
    table: Path | None = None  # the csv with diseases and vendors, where there is one

    def sound(self) -> list[Subject]:
        """The subjects.

        Raises:
          ValueError: an error that concerns the whole data set.
        """
        for finding in self.findings:
            if finding.level == "error" and not finding.subject:
                raise ValueError(str(finding))
        return self.subjects


def left_out_findings(folder: Path, left_out: LeftOut) -> list[Finding]:
    """A warning that counts and names what a reader left out; none where there is nothing."""
    if not left_out.found:
        return []
    return [Finding("warning", folder, f"left out: {left_out}", "files of the data set alone")]


def read_text(path: Path, what: str) -> str:
    """The text of a table or a list, in UTF-8 or, with its mark, UTF-16.

    Raises:
      InvalidFile: no readable file, or no text; says what was expected.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidFile(path, f"no readable file ({error.strerror})", what) from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:
        raise InvalidFile(path, "bytes of value 0, as in UTF-16 without its mark", f"{what}, in UTF-8")
    return data.decode("utf-8-sig", errors="replace")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of text with the cells of all rows below each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def counted(values: Iterable[str]) -> str:
    """E.g. ``DCM 20, NOR 20, unknown 1``."""
    return ", ".join(f"{value or 'unknown'} {n}" for value, n in sorted(Counter(values).items()))


def some(codes: Sequence[str]) -> str:
    """A list of subjects, cut where it gets long."""
    return f"subject{'s' * (len(codes) > 1)} {', '.join(codes[:8])}{' ...' * (len(codes) > 8)}"
