"""The tables of the uncertainty report, as text, and the published numbers beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qcjax.labels import EMIDEC_REGIONS
from qcjax.report import table
from qcjax.report.table import DASH, NBSP, Table, judge, number
from qcjax.uncertainty import published
from qcjax.uncertainty.summary import BETWEEN_PREDICTIONS, COMPARED
from qcjax.uncertainty.table import CASE_MEASURES

Tables = Mapping[str, Any]  # what `summarise_uncertainty` returns


@dataclass(frozen=True)
class Quantity:
    """How a column of `cases.csv` is told: its number times `scale` is in `unit`."""

    name: str
    unit: str
    scale: float
    digits: int
    better: int = 0  # sign of a good difference; 0 where more is neither good nor bad

    @property
    def header(self) -> str:
        """The name with its unit, if it has one: the head of a column."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


QUANTITIES = {
    "dc": Quantity("DSC", "%", 100, 1, 1),
    "hd_mm": Quantity("HD", "mm", 1, 1, -1),
    "volume_error_ml": Quantity("VD", "cm³", 1, 2, -1),
    "volume_error_percent": Quantity("PD", "%", 1, 2, -1),
    "brier": Quantity("BS", "10⁻²", 100, 2, -1),
    "brier_volume": Quantity("BS, whole volume", "10⁻²", 100, 3, -1),
    "dice_within_samples": Quantity("DiceWithinSamples", "", 1, 3),
    "pairwise_dice": Quantity("pairwise Dice of the samples", "", 1, 3),
    "pdc": Quantity("pDC", "", 1, 3),
    "ece": Quantity("expected calibration error", "%", 100, 2, -1),
    "entropy": Quantity("predictive entropy", "10⁻²", 100, 3),
    "expected_entropy": Quantity("expected entropy", "10⁻²", 100, 3),
    "mutual_information": Quantity("mutual information", "10⁻³", 1000, 3),
    "variance": Quantity("variance, whole image", "10⁻³", 1000, 3),
    "variance_foreground": Quantity("variance, foreground", "10⁻³", 1000, 3),
    "variance_interior": Quantity("variance, away from borders", "10⁻³", 1000, 3),
}
STRUCTURE_NAMES = {region.key: region.name for region in EMIDEC_REGIONS}
SHORT_NAMES = {"myocardium": "myo.", "infarction": "infarct", "no_reflow": "NR"}
COMPARISON_WORDS = {
    "proposed - baseline": "proposed − baseline",
    "control - baseline": "control − baseline",
    "proposed - control": "proposed − control",
}
OUR_COLUMNS = (*published.COLUMNS_1[:3], ("myocardium", "volume_error_ml"), *published.COLUMNS_1[3:])
SCORED = ("myocardium", "infarction", "no_reflow")


def structure_name(key: str) -> str:
    """The name of a structure for people; the key itself where it has none."""
    return STRUCTURE_NAMES.get(key, key)


def arm_name(arm: str) -> str:
    """E.g. ``control (ours)``: the paper has no control."""
    return f"{arm} (ours)" if arm == "control" else arm


def told(cell: Mapping[str, Any] | None, quantity: Quantity, between: str = NBSP) -> str:
    """E.g. ``65.0 (29.7)``, with the number of undefined cases where there are any."""
    if not cell or cell.get("mean") is None:
        return DASH
    text = number(cell["mean"] * quantity.scale, quantity.digits)
    if cell["sd"] is not None:
        text += f"{between}({number(cell['sd'] * quantity.scale, quantity.digits)})"
    return text + (f"\n{cell['n_missing']}{NBSP}undefined" if cell["n_missing"] else "")


def signed(cell: Mapping[str, Any], quantity: Quantity) -> str:
    """E.g. ``+2.1 [−0.4, 4.6]``."""
    return table.signed(cell, quantity.digits, quantity.scale)


def verdict(cell: Mapping[str, Any], quantity: Quantity) -> str:
    """What the interval allows to be said: better, worse, higher, lower, or no difference shown."""
    return judge(cell, quantity.better)


def difference(cell: Mapping[str, Any], quantity: Quantity) -> str:
    """A paired difference with its interval, in the quantity's unit; a dash where there are no pairs."""
    return table.compared(cell, quantity.digits, quantity.better, quantity.scale) if cell["n"] else DASH


def table_1(tables: Tables) -> Table:
    """The paper's Table 1, published and ours; myocardium's volume error added to ours."""
    header = ["method", *headers(OUR_COLUMNS), "n"]
    rows = []
    for arm, cells in published.TABLE_1.items():
        paper = dict(zip(published.COLUMNS_1, cells, strict=True))
        rows.append(
            [
                f"{arm}, published",
                *(paper.get(column, DASH) for column in OUR_COLUMNS),
                str(published.N_CASES),
            ]
        )
    rows += _our_rows(tables, "all", OUR_COLUMNS)
    return Table("Myocardium and infarction: mean (standard deviation)", header, rows)


def table_2(tables: Tables) -> Table:
    """The paper's Table 2, published and ours: means, with no-reflow."""
    header = ["method", *headers(published.COLUMNS_2), "n"]
    rows = [
        [f"{authors}, published", *cells, str(published.N_CASES)]
        for authors, cells in published.TABLE_2.items()
    ]
    rows += _our_rows(tables, "all", published.COLUMNS_2, "\n")
    caption = "With no-reflow (NR): the published means, and our mean (standard deviation)"
    return Table(caption, header, rows)


def position_tables(tables: Tables) -> list[Table]:
    """Our columns of both tables at each slice position."""
    columns = tuple(dict.fromkeys((*OUR_COLUMNS, *published.COLUMNS_2)))
    return [
        Table(
            f"{position}: mean (standard deviation)",
            ["method", *headers(columns), "n"],
            _our_rows(tables, position, columns, "\n"),
        )
        for position in tables["positions"]
        if position != "all" and position in tables["measures"].get("deterministic", {})
    ]


def position_summary_tables(tables: Tables) -> list[Table]:
    """Dice and DiceWithinSamples per structure by slice position (the paper's Fig. 2)."""
    found = tables["measures"].get("deterministic", {})
    positions = [position for position in tables["positions"] if position != "all" and position in found]
    result = []
    for key in tables["structures"] if positions else ():
        rows = [
            [arm_name(arm), *(told(found[p].get(arm, {}).get(key, {}).get(m), QUANTITIES[m])
                              for m in ("dc", "dice_within_samples") for p in positions)]
            for arm in tables["arms"]
        ]  # fmt: skip
        header = ["method", *(f"{name}, {p}" for name in ("DSC (%)", "certainty") for p in positions)]
        result.append(Table(structure_name(key), header, rows))
    return result


def difference_tables(tables: Tables, position: str = "all") -> list[Table]:
    """Per structure: paired differences between the arms in every measure, and what they allow to be said."""
    comparisons = [name for name, cells in tables["differences"].items() if position in cells]
    result = []
    for key in tables["structures"] if comparisons else ():
        cells = {name: tables["differences"][name][position].get(key, {}) for name in comparisons}
        rows = []
        for column in COMPARED:
            found = [cells[name].get(column) for name in comparisons]
            if any(cell and cell["n"] for cell in found):
                counts = dict.fromkeys(str(cell["n"]) for cell in found if cell)
                rows.append(
                    [QUANTITIES[column].header,
                     *(difference(cell, QUANTITIES[column]) if cell else DASH for cell in found),
                     f",{NBSP}".join(counts)]
                )  # fmt: skip
        if rows:
            header = ["measure", *(COMPARISON_WORDS[name] for name in comparisons), "pairs"]
            result.append(Table(structure_name(key), header, rows))
    return result


def position_difference_tables(tables: Tables) -> list[Table]:
    """Per structure: differences in Dice and DiceWithinSamples at each slice position."""
    result = []
    for key in tables["structures"] if tables["differences"] else ():
        rows = []
        for column in ("dc", "dice_within_samples"):
            for position in (p for p in tables["positions"] if p != "all"):
                cells = [c.get(position, {}).get(key, {}).get(column) for c in tables["differences"].values()]
                if any(cell and cell["n"] for cell in cells):
                    quantity = QUANTITIES[column]
                    texts = [difference(cell, quantity) if cell else DASH for cell in cells]
                    name = quantity.header if column == "dc" else "certainty"
                    rows.append([f"{position}, {name}", *texts])
        if rows:
            header = ["position, measure", *(COMPARISON_WORDS[name] for name in tables["differences"])]
            result.append(Table(structure_name(key), header, rows))
    return result


def certainty_table(tables: Tables) -> Table | None:
    """DiceWithinSamples and mean pairwise Dice of the samples, per arm and structure."""
    found = tables["measures"].get("deterministic", {}).get("all", {})
    rows = [
        [f"{arm_name(arm)}, {structure_name(key)}",
         *(told(found[arm][key][m], QUANTITIES[m]) for m in ("dice_within_samples", "pairwise_dice"))]
        for key in tables["structures"]
        for arm in tables["arms"]
        if found.get(arm, {}).get(key, {}).get("dice_within_samples", {}).get("n")
    ]  # fmt: skip
    header = ["method, structure", "DiceWithinSamples", "pairwise Dice"]
    return Table("How much the samples agree: mean (standard deviation)", header, rows) if rows else None


def mean_prediction_table(tables: Tables) -> Table | None:
    """What the mean of the samples changes against the deterministic prediction."""
    rows = [
        [f"{arm_name(arm)}, {structure_name(key)}",
         *(difference(cells[column], QUANTITIES[column]) for column in BETWEEN_PREDICTIONS), str(cells["dc"]["n"])]
        for arm, structures in tables["mean_prediction"].items()
        for key, cells in structures.items()
        if cells["dc"]["n"]
    ]  # fmt: skip
    header = ["method, structure", *(QUANTITIES[c].header for c in BETWEEN_PREDICTIONS), "n"]
    return Table("Mean of the samples − deterministic prediction", header, rows) if rows else None


def calibration_tables(tables: Tables) -> list[Table]:
    """Brier scores and whole-image measures: of every arm, and their differences."""
    arms, comparisons = tables["arms"], list(tables["differences"])
    found = tables["measures"].get("deterministic", {}).get("all", {})
    lines = [
        (f"{QUANTITIES[column].header}, {structure_name(key)}", QUANTITIES[column],
         [found.get(arm, {}).get(key, {}).get(column) for arm in arms],
         [tables["differences"][name].get("all", {}).get(key, {}).get(column) for name in comparisons])
        for column in ("brier", "brier_volume")
        for key in tables["structures"]
    ]  # fmt: skip
    whole = tables["case"].get("deterministic", {})
    lines += [
        (QUANTITIES[column].header, QUANTITIES[column],
         [whole.get(arm, {}).get(column) for arm in arms],
         [tables["case_differences"][name].get(column) for name in comparisons])
        for column in ("ece", *(c for c in CASE_MEASURES if c != "ece"))
    ]  # fmt: skip
    lines = [line for line in lines if any(cell and cell["n"] for cell in line[2])]
    if not lines:
        return []
    header = ["measure", *map(arm_name, arms)]
    rows = [[name, *(told(cell, quantity) for cell in cells)] for name, quantity, cells, _ in lines]
    result = [Table("Calibration and uncertainty: mean (standard deviation)", header, rows)]
    if comparisons:
        header = ["measure", *(COMPARISON_WORDS[name] for name in comparisons)]
        rows = [
            [name, *(difference(cell, quantity) if cell else DASH for cell in cells)]
            for name, quantity, _, cells in lines
        ]
        result.append(Table("Differences", header, rows))
    return result


def headers(columns: Sequence[tuple[str, str]]) -> list[str]:
    """E.g. ``infarct DSC (%)``."""
    return [f"{SHORT_NAMES[key]} {QUANTITIES[measure].header}" for key, measure in columns]


def _our_rows(
    tables: Tables, position: str, columns: Sequence[tuple[str, str]], between: str = NBSP
) -> list[list[str]]:
    found = tables["measures"].get("deterministic", {}).get(position, {})
    rows = []
    for arm in tables["arms"]:
        cells = found.get(arm, {})
        texts = [told(cells.get(key, {}).get(m), QUANTITIES[m], between) for key, m in columns]
        n = max((cell["dc"]["n"] for cell in cells.values()), default=0)
        rows.append([f"{arm}, ours", *texts, str(n)])
    return rows
