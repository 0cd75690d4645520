"""The table `cases.csv`: one row per arm, subject, prediction, position and structure."""

import math
from collections.abc import Iterable
from pathlib import Path

from qcjax.labels import EMIDEC_REGIONS
from qcjax.metrics import infarct
from qcjax.report.columns import Columns, Row

ARMS = ("baseline", "control", "proposed")
GROUPS = ("normal", "pathological")
POSITIONS = ("all", *infarct.POSITIONS)
STRUCTURES = tuple(region.key for region in EMIDEC_REGIONS)

IDENTITY_COLUMNS = ("arm", "fold", "subject", "group", "prediction", "position", "structure")
MEASURES = (  # of one structure at one position
    "dc",
    "hd_mm",
    "volume_ml",
    "true_volume_ml",
    "volume_error_ml",
    "volume_error_percent",
    "brier",
    "brier_volume",
    "dice_within_samples",
    "pairwise_dice",
    "pdc",
    "phd_mm",
)
CASE_MEASURES = (  # of the whole case, repeated in its rows
    "variance",
    "variance_foreground",
    "variance_interior",
    "entropy",
    "expected_entropy",
    "mutual_information",
    "ece",
)
PATH_COLUMNS = ("image_path", "label_path", "mask_path", "variance_path", "mean_path")
COLUMNS = (*IDENTITY_COLUMNS, *MEASURES, *CASE_MEASURES, *PATH_COLUMNS)
_TABLE = Columns(COLUMNS, (*MEASURES, *CASE_MEASURES), ("fold",), IDENTITY_COLUMNS, "case row")
write_cases, read_cases = _TABLE.write, _TABLE.read


def is_uncertainty_table(path: Path) -> bool:
    """Whether a `cases.csv` is this experiment's: its header names arms and positions."""
    with path.open(encoding="utf-8") as file:
        return {"arm", "position"} <= set(file.readline().strip().split(","))


def has_truth(row: Row) -> bool:
    """Whether the row was scored against ground truth: its Dice is then always defined."""
    return math.isfinite(row["dc"])


def select(rows: Iterable[Row], **wanted: str) -> list[Row]:
    """The rows whose columns have these values."""
    return [row for row in rows if all(row[column] == value for column, value in wanted.items())]
