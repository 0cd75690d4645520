"""What a page says of a case's structures, each as the journals of `qcjax score` and `qcjax segment` keep it."""

from collections.abc import Mapping, Sequence
from typing import Any

from qcjax.report.table import DASH, number
from qcjax.runtime.line_journal import from_json

Structures = Mapping[str, Mapping[str, Any]]  # key -> what was measured
EXPECTED = ("Dice", "HD (mm)", "decision")  # header of predicted quality
SHOWN_OF_COHORT = ("suspicion", "doubt", "(ml)", "≥")  # ends of the columns whose distribution is drawn


def columns(keys: Sequence[str], unit: str, predicted: bool, doubt: bool = False) -> list[str]:
    """The viewer's columns of numbers.

    Args:
      keys: of the structures.
      unit: of distances.
      predicted: whether quality is predicted.
      doubt: whether there is one, by an image.
    """
    names = [key.upper() for key in keys]
    expected = ["decision", *(f"{name} Dice ≥" for name in names)] if predicted else []
    measures = [f"{name} {m}" for m in ("(ml)", "pDC", f"pHD ({unit})") for name in names]
    return ["suspicion", *(["doubt"] if doubt else []), *expected, *measures]


def numbers(structures: Structures, unit: str) -> dict[str, float]:
    """A case's numbers by column; NaN where there is none."""
    values = {}
    for key, found in structures.items():
        name = key.upper()
        values[f"{name} Dice ≥"] = from_json(found.get("predicted_dice_low"))
        values[f"{name} (ml)"] = from_json(found["volume_ml"])
        values[f"{name} pDC"] = from_json(found["pdc"])
        values[f"{name} pHD ({unit})"] = from_json(found["phd"])
    return values


def of_cohort(values: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a case whose distribution over the cohort is drawn."""
    return {name: value for name, value in values.items() if name.endswith(SHOWN_OF_COHORT)}


def header(unit: str, predicted: bool, doubt: bool = False) -> list[str]:
    """The header of `rows`; arguments as those of `columns`."""
    measures = ["", "ml", "pDC", f"pHD ({unit})", "worst slice"]
    return [*measures, *(["doubt"] if doubt else []), *(EXPECTED if predicted else ())]


def rows(structures: Structures, predicted: bool, doubt: bool = False) -> list[list[str]]:
    """A row of text per structure."""
    made = []
    for key, found in structures.items():
        cells = [key.upper(), number(found["volume_ml"], 1), number(found["pdc"], 2), number(found["phd"], 1)]
        cells.append(DASH if found["worst_slice"] is None else str(found["worst_slice"]))
        cells += [unbounded(found["doubt"], 2)] if doubt else []
        made.append([*cells, *(expected_cells(found) if predicted else ())])
    return made


def reasons(structures: Structures) -> str:
    """Why structures are flagged, as a sentence."""
    told = "; ".join(found["reason"] for found in structures.values() if found["reason"])
    return f"{told[:1].upper()}{told[1:]}." if told else "Nothing is flagged."


def expected_cells(found: Mapping[str, Any]) -> list[str]:
    """Predicted Dice and distance of a structure with their bounds, and the decision, as words under `EXPECTED`.

    Args:
      found: its columns as `qcjax.quality.model.predicted_columns` has them.
    """
    decision = found.get("decision") or DASH
    if found.get("predicted_dice") is None:
        return [DASH, DASH, decision]
    return [
        f"{number(found['predicted_dice'], 2)}, at least {number(found['predicted_dice_low'], 2)}",
        f"{number(found['predicted_hd_mm'], 0)}, at most {unbounded(found['predicted_hd_high_mm'], 0)}",
        decision,
    ]


def unbounded(stored: float | str | None, digits: int) -> str:
    """A number of a line in words; ∞ is one."""
    value = from_json(stored)
    return "∞" if value == float("inf") else number(None if value != value else value, digits)
