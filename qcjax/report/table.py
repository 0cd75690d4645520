"""A table as a page shows it: what stands in each cell, and the words that an interval allows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DASH = "–"


NBSP = "\N{NO-BREAK SPACE}"


NO_DIFFERENCE = "no difference shown"


Results = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Cells of text under a header; the first column names the row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def holds_text(self, column: int) -> bool:
        """Whether a column holds words, which are set flush left, rather than numbers."""
        return any(row[column][:1].isalpha() for row in self.rows)


def judge(measure: str, difference: Mapping[str, Any]) -> str:
    """What a paired interval allows to be said of a difference: better, worse, or no difference shown."""
    low, high = difference.get("low"), difference.get("high")
    if low is None or high is None:
        return "not measured"
    if low <= 0 <= high:
        return NO_DIFFERENCE
    return "better" if (low > 0) == (measure == "dc") else "worse"


def number(value: float | None, digits: int) -> str:
    """A number with a true minus sign, or a dash."""
    if value is None:
        return DASH
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def mean_sd(cell: Mapping[str, Any], measure: str) -> str:
    """E.g. ``0.861 ± 0.064``, with the number of undefined cases where there are any."""
    digits = 3 if measure == "dc" else 1
    if cell["mean"] is None:
        return DASH
    text = f"{number(cell['mean'], digits)} ±{NBSP}{number(cell['sd'], digits)}"
    return text + (f"\n({cell['n_missing']}{NBSP}undefined)" if cell.get("n_missing") else "")


def signed(difference: Mapping[str, Any], measure: str) -> str:
    """E.g. ``+0.012 [0.003, 0.021]``."""
    digits = 3 if measure == "dc" else 1
    if difference["mean"] is None:
        return DASH
    mean = number(difference["mean"], digits)
    sign = "+" if difference["mean"] > 0 else ""
    limits = f"[{number(difference['low'], digits)},{NBSP}{number(difference['high'], digits)}]"
    return f"{sign}{mean} {limits}"


def cohort_table(cohort: Iterable[Mapping[str, Any]]) -> Table:
    """One row per part of the data, as the run wrote them."""
    rows = list(cohort)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    names = [key.replace("_", " ") for key in keys]
    return Table("What the run worked on", names, [[_counts(row.get(key)) for key in keys] for row in rows])


def _counts(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name or 'unknown'} {count}" for name, count in value.items()) or DASH
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or DASH
    return DASH if value is None or value == "" else str(value)


def with_interval(cell: Mapping[str, Any], key: str, digits: int) -> str:
    """E.g. ``0.912 [0.880, 0.940]``."""
    if cell.get(key) is None:
        return DASH
    if cell.get("low") is None:
        return number(cell[key], digits)
    return f"{number(cell[key], digits)} [{number(cell['low'], digits)},{NBSP}{number(cell['high'], digits)}]"
