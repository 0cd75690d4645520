"""Pictures of single cases: before and after refinement, and flagged masks with their inconsistency maps."""

from pathlib import Path

import matplotlib

from qcjax.refinement.table import CaseRow
from qcjax.report import style
from qcjax.report.pictures import _load, draw_inconsistency, most_changed, overlay, prepare_slice, show_image


@matplotlib.rc_context(style.STYLE)
def draw_refinement(before: CaseRow, after: CaseRow, run_dir: Path, path: Path) -> Path | None:
    """A case before refinement, its reconstruction, after, and the truth (refinement paper, Fig. 4).

    The slice is the one where before and after differ most.

    Args:
      before, after: rows of the same case at two stages.
      run_dir: where relative paths start.

    Returns:
      The picture's path; None where a file that it needs is not named or not there.
    """
    names = [before["prediction_path"], before["reconstruction_path"], after["prediction_path"]]
    with_truth = bool(before["label_path"])
    loaded = _load(run_dir, before["image_path"], [*names, *([before["label_path"]] if with_truth else [])])
    if loaded is None:
        return None
    image, labels, spacing_mm = loaded
    shown = prepare_slice(image, labels, spacing_mm, most_changed(labels[0], labels[2]))
    titles = [f"before, slice {shown.number} of {shown.of}", "its reconstruction", "after", "ground truth"]
    figure, axes = style.new_figure(5.55, 2, 2)
    for axis, title, mask in zip((*axes[0], *axes[1]), titles, (*shown.labels, None), strict=False):
        if mask is None:
            axis.axis("off")
            continue
        show_image(axis, shown, title)
        overlay(axis, mask)
    figure.legend(handles=style.structure_handles(), loc="outside lower left", ncols=3)
    return style.save(figure, path, dpi=170)


def draw_flagged(row: CaseRow, run_dir: Path, path: Path) -> Path | None:
    """`draw_inconsistency` of a case of a run, in the slice where mask and reconstruction differ most.

    Returns:
      The picture's path; None where a file that it needs is not named or not there.
    """
    loaded = _load(run_dir, row["image_path"], [row["prediction_path"], row["reconstruction_path"]])
    if loaded is None:
        return None
    image, (mask, reconstruction), spacing_mm = loaded
    return draw_inconsistency(
        image, mask, reconstruction, spacing_mm, most_changed(mask, reconstruction), path
    )
