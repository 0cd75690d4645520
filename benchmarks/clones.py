"""Clones of the authors' repositories: where they are, whether they can be used."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

REFINEMENT_URL = "https://github.com/robustml-eurecom/MnMs2"
MONITORING_URL = "https://github.com/robustml-eurecom/quality_control_CMR"
REFINEMENT_FILES = ("utils.py", "baseline_1.py", "baseline_2.py", "reconstructor.py")
MONITORING_FILES = ("CA.py",)
NEEDED = ("torch", "pandas", "skimage", "batchgenerators", "medpy")
WHERE = (
    f"Without the PyTorch originals: ours alone. To compare, clone {REFINEMENT_URL} and {MONITORING_URL}, install "
    "the extra `benchmark`, and give --mnms2 and --quality-control."
)


@dataclass(frozen=True)
class Clones:
    """Folders of both repositories."""

    refinement: Path
    monitoring: Path


def find(refinement: Path | None, monitoring: Path | None) -> Clones | None:
    """Both clones; None where neither is given.

    Raises:
      ValueError: only one is given, a folder isn't a clone, or a package that they import isn't installed.
    """
    if refinement is None and monitoring is None:
        return None
    if refinement is None or monitoring is None:
        missing, url = (
            ("--mnms2", REFINEMENT_URL) if refinement is None else ("--quality-control", MONITORING_URL)
        )
        raise ValueError(f"{missing}: not given, expected a clone of {url}; both are needed, or neither")
    for option, folder, files, url in (
        ("--mnms2", refinement, REFINEMENT_FILES, REFINEMENT_URL),
        ("--quality-control", monitoring, MONITORING_FILES, MONITORING_URL),
    ):
        lost = [name for name in files if not (folder / name).is_file()]
        if lost:
            raise ValueError(f"{option} {folder}: no {', '.join(lost)} found, expected a clone of {url}")
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise ValueError(
            f"{', '.join(absent)}: not installed, expected for the clones; see the extra `benchmark`"
        )
    return Clones(refinement.resolve(), monitoring.resolve())
