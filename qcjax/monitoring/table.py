"""The table `measures.csv`: one row per segmentation method, subject, phase and structure."""

import math
from collections.abc import Sequence

from qcjax.report.columns import Columns, Row

MeasureRow = Row  # column -> str, int (`n_rules`) or float (NaN where undefined or not measured)

IDENTITY_COLUMNS = ("method", "subject", "phase", "structure")
COLUMNS = (
    "method",
    "subject",
    "phase",
    "disease",
    "structure",  # key
    "dc",  # against the truth; NaN without it
    "distance_unit",  # of all of the row's distances: "mm", or "voxels" in preset `original`
    "hd",  # NaN also where only one of the masks has the structure
    "pdc",  # against the reconstruction; 0 where the structure is absent from either
    "phd",  # NaN there
    "flag",  # "", "suspicious" or "erroneous"
    "reason",
    "agreement",  # mean Dice with the other methods' masks of the same image
    "rules",  # the anatomical rules that are broken, "; " between them
    "n_rules",
    "rca_dc",  # NaN where RCA was not run
    "rca_hd",
    "suspicion",  # of the case: 1 is the limit of what ground-truth masks show; infinite for an absence
    "image_path",
    "label_path",
    "mask_path",
    "reconstruction_path",
)
NUMBER_COLUMNS = ("dc", "hd", "pdc", "phd", "agreement", "rca_dc", "rca_hd", "suspicion")
OPTIONAL_COLUMNS = ("doubt",)  # the image's; runs from before it was measured lack it
_TABLE = Columns(COLUMNS, NUMBER_COLUMNS, ("n_rules",), IDENTITY_COLUMNS, "measure row", OPTIONAL_COLUMNS)
write_measures, read_measures = _TABLE.write, _TABLE.read


def has_truth(row: MeasureRow) -> bool:
    """Whether the mask was scored against ground truth: its Dice is then always defined."""
    return math.isfinite(row["dc"])


def has_rca(row: MeasureRow) -> bool:
    """Whether RCA was run on the mask: its Dice is then always defined."""
    return math.isfinite(row["rca_dc"])


def case_of(row: MeasureRow) -> tuple[str, str, str]:
    """Method, subject and phase: one mask."""
    return row["method"], row["subject"], row["phase"]


def by_case(rows: Sequence[MeasureRow]) -> dict[tuple[str, str, str], list[MeasureRow]]:
    """The rows of each mask, in their order."""
    cases: dict[tuple[str, str, str], list[MeasureRow]] = {}
    for row in rows:
        cases.setdefault(case_of(row), []).append(row)
    return cases
