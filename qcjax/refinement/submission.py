"""The challenge's zip, from the predictions of a run."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qcjax.data.datasets import mnms2
from qcjax.data.nifti import read_image, read_labels
from qcjax.data.subject import Case, Subject
from qcjax.refinement.table import CaseRow, case_name


def write_submission(
    folder: Path, rows: Sequence[CaseRow], subjects: Sequence[Subject], segmenter: str
) -> None:
    """Write `submission.zip`, of a segmenter's refined stage.

    It is made from the files, whichever process or earlier start of the run has made them.
    """
    cases = {c.name: c for s in subjects for c in s.cases}
    own = [r for r in rows if r["segmenter"] == segmenter and r["stage"] == "refined"]

    def predictions() -> Iterator[tuple[Case, Any, Any]]:
        for row in own:
            case = cases[case_name(row)]
            yield case, read_labels(folder / row["prediction_path"]).array, read_image(case.image_path)

    mnms2.write_submission(predictions(), folder / "submission.zip")
