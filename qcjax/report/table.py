"""A table as a page shows it: what stands in each cell, and the words that an interval allows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
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


def judge(difference: Mapping[str, Any], better: int = 1) -> str:
    """What a paired interval allows to be said of a difference: better, worse, or no difference shown.

    Args:
      better: sign of a good difference; with 0, where more is neither good nor bad, it is higher or lower.
    """
    low, high = difference.get("low"), difference.get("high")
    if low is None or high is None:
        return "not measured"
    if low <= 0 <= high:
        return NO_DIFFERENCE
    if better == 0:
        return "higher" if low > 0 else "lower"
    return "better" if (low > 0) == (better > 0) else "worse"


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


def signed(difference: Mapping[str, Any], digits: int, scale: float = 1) -> str:
    """E.g. ``+0.012 [0.003, 0.021]``, or a dash where nothing was measured."""
    if difference["mean"] is None:
        return DASH
    scaled = {k: None if difference[k] is None else scale * difference[k] for k in ("mean", "low", "high")}
    text = with_interval(scaled, "mean", digits)
    return f"+{text}" if float(f"{scaled['mean']:.{digits}f}") > 0 else text


def compared(difference: Mapping[str, Any] | None, digits: int, better: int = 1, scale: float = 1) -> str:
    """A difference and, in a second line, what its interval allows to be said."""
    if not difference or difference["mean"] is None:
        return DASH
    return f"{signed(difference, digits, scale)}\n{judge(difference, better)}"


def seconds_table(
    seconds: Mapping[str, Any],
    names: Mapping[str, str] = MappingProxyType({}),
    published: Mapping[str, float] | None = None,
) -> Table | None:
    """What took how long, nested entries with the names of all levels; None where nothing was measured.

    Args:
      names: what an entry is called for people, where that is another name.
      published: entry -> seconds, for a further column.
    """
    rows = []
    for entry, value in _flat("", seconds):
        shown = names.get(entry, entry.replace("_", " "))
        rows.append([shown, f"{value:,.3g}" if value < 100 else f"{value:,.0f}"])
        if published is not None:
            rows[-1].append(f"{published[entry]:,g}" if entry in published else DASH)
    header = ["what", "this run"] + (["published"] if published is not None else [])
    return Table("Seconds", header, rows) if rows else None


def _flat(name: str, value: Any) -> list[tuple[str, float]]:
    if isinstance(value, Mapping):
        parts = [_flat(f"{name},{NBSP}{key}" if name else str(key), part) for key, part in value.items()]
        return [pair for part in parts for pair in part]
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return [(name, value)] if known else []


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
