"""The table `cases.csv`: one row per segmenter, view, stage, subject and phase."""

import math

from qcjax.labels import CARDIAC
from qcjax.report.columns import Columns, Row

CaseRow = Row  # column -> str, int (`ood`) or float (measures; NaN where undefined or without truth)

GATED = ("oracle_gate", "random_gate", "gated")  # per case, one of two other stages' masks
STAGES = ("segmenter", "mean", "mirrored", "largest", "baseline", "selection", "control", "refined", *GATED)
STRUCTURES = tuple(structure.key for structure in CARDIAC)


def _per_structure(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.format(key) for key in STRUCTURES)


IDENTITY_COLUMNS = (
    "segmenter",
    "view",
    "stage",
    "subject",
    "phase",
    "part",
    "disease",
    "vendor",
    "candidate",
)
VERDICT_COLUMNS = ("ood", "flag", "reason")
NUMBER_COLUMNS = (
    *_per_structure("pdc_{}"),
    *_per_structure("phd_{}_mm"),
    *_per_structure("dc_{}"),
    *_per_structure("hd_{}_mm"),
    *_per_structure("hd95_{}_mm"),
    *_per_structure("assd_{}_mm"),
    *_per_structure("volume_{}_ml"),
    *_per_structure("truth_volume_{}_ml"),
)
UNCERTAINTY_OF_STRUCTURE = {"dice_within_samples": "dws_{}", "pairwise_dice": "pairwise_dice_{}"}
UNCERTAINTY_OF_CASE = ("variance", "variance_foreground", "entropy", "mutual_information")
UNCERTAINTY_COLUMNS = (  # of dropout samples, in a table of a run that drew some
    *(column for pattern in UNCERTAINTY_OF_STRUCTURE.values() for column in _per_structure(pattern)),
    *UNCERTAINTY_OF_CASE,
)
PREDICTED_COLUMNS = _per_structure("predicted_dice_{}")  # in a table of a run whose gate compares it
PATH_COLUMNS = ("image_path", "label_path", "prediction_path", "reconstruction_path")
COLUMNS = (*IDENTITY_COLUMNS, *VERDICT_COLUMNS, *NUMBER_COLUMNS, *PATH_COLUMNS)
_TABLE = Columns(
    COLUMNS,
    NUMBER_COLUMNS,
    ("ood",),
    IDENTITY_COLUMNS,
    "case row",
    (*UNCERTAINTY_COLUMNS, *PREDICTED_COLUMNS),
)
write_cases, read_cases = _TABLE.write, _TABLE.read


def has_truth(row: CaseRow) -> bool:
    """Whether the case was scored against ground truth: its Dice is then always defined."""
    return math.isfinite(row["dc_rv"])


def case_name(row: CaseRow) -> str:
    """E.g. ``201_SA_ES``."""
    return f"{row['subject']}_{row['view']}_{row['phase']}"
