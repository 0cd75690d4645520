"""Tables of the uncertainty report that a check of quality needs: by group, missed and false findings, failures."""

from collections.abc import Mapping
from typing import Any

from qcjax.report.failure_tables import FAILURE_NAMES, measure_table
from qcjax.report.table import DASH, Table, number
from qcjax.uncertainty import published
from qcjax.uncertainty.summary import REFERENCE
from qcjax.uncertainty.tables import OUR_COLUMNS, QUANTITIES, SCORED, Tables, headers, structure_name, told

_FIGURES = (("pearson", "r"), ("spearman", "r"), ("aurc", "value"))


def group_table(tables: Tables) -> Table | None:
    """The measures of both tables for normal and pathological cases."""
    columns = (*OUR_COLUMNS, *published.COLUMNS_2[6:])
    rows = []
    for group in tables["groups"]:
        for arm in tables["arms"]:
            cells = tables["by_group"].get(arm, {}).get(group)
            if cells:
                texts = [told(cells.get(key, {}).get(m), QUANTITIES[m], "\n") for key, m in columns]
                rows.append([f"{group}, {arm}", *texts, str(next(iter(cells.values()))["dc"]["n"])])
    header = ["group, method", *headers(columns), "n"]
    return Table("By group: mean (standard deviation)", header, rows) if rows else None


def detection_table(tables: Tables) -> Table | None:
    """Infarctions and no-reflow where there is none, and those that are missed."""
    rows = []
    for key in (key for key in tables["structures"] if key in SCORED[1:]):
        for arm in tables["arms"]:
            cell = tables["detection"][arm][key]
            if not cell["n_with"] and not cell["n_without"]:
                continue
            volume = cell["false_ml"]
            rows.append(
                [
                    f"{structure_name(key)}, {arm}",
                    of(cell["n_false_normal"], cell["n_normal"]),
                    of(cell["n_false"], cell["n_without"]),
                    number(volume["mean"], 2),
                    number(volume["max"], 2),
                    of(cell["n_missed"], cell["n_with"]),
                ]
            )
    header = ["structure, method", "found in normal cases", "found where the truth has none", "mean of those (ml)",
              "largest (ml)", "missed entirely"]  # fmt: skip
    return Table("False and missed findings", header, rows) if rows else None


def of(part: int, whole: int) -> str:
    """E.g. ``3 of 20``."""
    return f"{part} of {whole}" if whole else DASH


def failure_tables(tables: Tables) -> list[Table]:
    """Per structure: Pearson, Spearman and AURC of each measure with the cases' real Dice, arm by arm."""
    result = []
    for key, arms in _structures_with_failures(tables).items():
        names = [name for name in FAILURE_NAMES if any(name in found for found in arms.values())]
        rows = []
        for name in names:
            row = [FAILURE_NAMES[name]]
            for found in arms.values():
                cell = found.get(name)
                row += (
                    [number(cell[kind][value], 2 if value == "r" else 3) for kind, value in _FIGURES]
                    if cell
                    else [DASH] * len(_FIGURES)
                )
            rows.append(row)
        header = ["measure", *(f"{arm} {name}" for arm in arms for name in ("r", "r_s", "AURC"))]
        n = max((cell["n"] for found in arms.values() for cell in found.values()), default=0)
        result.append(Table(f"{structure_name(key)}, {n} cases", header, rows))
    return result


def failure_interval_tables(tables: Tables) -> list[Table]:
    """Per structure and arm: the same with their intervals, and against the reference measure."""
    result = []
    for key, arms in _structures_with_failures(tables).items():
        for arm, found in arms.items():
            table = measure_table(f"{structure_name(key)}, {arm}", found, REFERENCE)
            result += [table] if table else []
    return result


def _structures_with_failures(tables: Tables) -> dict[str, Mapping[str, Any]]:
    """The regions whose real Dice differs between cases: of the others no measure can tell anything."""
    return {
        key: arms
        for key, arms in tables["failures"].items()
        if any(cell["pearson"]["r"] is not None for found in arms.values() for cell in found.values())
    }


def other_cases_table(cells: list[list[str]]) -> Table | None:
    """Cases that are not pictured, a row each."""
    header = ["case", "variance, foreground (10⁻³)", "certainty, infarction", "DSC (%), infarction"]
    return Table("The other cases, the most uncertain first", header, cells) if cells else None
