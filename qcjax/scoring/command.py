"""The subcommand `score`; what it works with is imported when it runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from qcjax.labels import parse_labels
from qcjax.runtime.exits import exit_code
from qcjax.runtime.wording import count_of, printable

if TYPE_CHECKING:
    from qcjax.quality.model import Expectation

FLAGGED_LISTED = 20  # on the terminal


def score(
    masks: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    monitor: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None,
    model: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None,
    images: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    labels: Annotated[str | None, tyro.conf.arg(metavar="lv=1,myo=2,rv=3")] = None,
    fail_on: Literal["suspicious", "erroneous"] | None = None,
    hd_limit_mm: float = 50.0,
    dc_limit: float = 0.5,
    doubt_limit: float = 1.5,
    accept: float = 0.8,
    coverage: float = 0.9,
    pictures: int = 40,
    workers: int | None = None,
    scheduler: Annotated[str | None, tyro.conf.arg(metavar="tcp://HOST:PORT")] = None,
    allow_missing_images: bool = False,
    devices: int | None = None,
) -> int:
    """Judge masks without ground truth: which are to be distrusted, in which structure and slice, and why.

    A monitor rebuilds every NIfTI mask below a folder; where mask and rebuilt mask disagree, the mask is
    doubted. Written to --out: scores.csv (a row per case and structure), summary.json, report.html with the
    flagged cases first, and in maps/ the reconstruction and the inconsistency map of each mask on its own
    grid. A mask that can't be read becomes rows with its error. Started again, it goes on.

    With --model in place of --monitor, the monitor of a model of `qcjax train` judges, and the Dice and Hausdorff
    distance of every structure are predicted, each with a bound that holds for --coverage of the masks that are like
    those which the model learnt from, and it is decided: accept, review or reject. For masks of another tool, calibrate
    first: `qcjax calibrate`.

    The exit code is 0, or 1 where it couldn't start or go on; with --fail-on it is 2 where a case is flagged so, or
    couldn't be scored, or lacks its image of --images; 75 after SIGTERM and 130 after Ctrl-C: started again, it goes
    on.

    Example: qcjax score --monitor runs/monitor --masks predictions --out scores --fail-on erroneous

    Args:
      masks: The masks, .nii or .nii.gz, or .nrrd, .mha, .mhd, .hdr, in subfolders too; links are followed.
      out: Where the results go.
      monitor: The folder of a trained monitor (of experiments.emidec, monitors/fold-0 and so on), or of a run of
        experiments.acdc.
      model: The folder of a model of `qcjax train`, in place of a monitor's.
      images: The images, for the pictures, and to doubt a mask that isn't where they show its ventricles: each at its
        mask's own relative name, which may lack the mask's suffix _gt, _pred or _seg, or end
        in _0000 as those of nnU-Net. They may lie beside the masks: a is no mask where a_gt, a_pred or a_seg is in the
        same folder.
      labels: The value of each structure in the masks; by default that of the masks that the monitor was
        trained on.
      fail_on: Exit with code 2 where a case is at least so bad, or couldn't be scored.
      hd_limit_mm: A structure is suspicious where its pseudo Hausdorff distance is above this; in voxels for a
        monitor of preset original, which measures in them.
      dc_limit: A structure is suspicious where its pseudo Dice is below this.
      doubt_limit: With --images, a ventricle is suspicious where its doubt is above this: 1 where it is as little
        brighter than the myocardium as in 2 of 100 sound masks. Of cine MR; inf where blood isn't bright.
      accept: With --model, a structure is accepted where the lower bound of its predicted Dice is at least this,
        rejected where not even the predicted Dice is, else to be reviewed.
      coverage: With --model, the probability with which each bound holds.
      pictures: How many cases are pictured in the report, the most doubtful first; the others are in its table.
      workers: Spread the masks over so many processes of this machine (extra cluster). What one had in hand when it
        died is done by others.
      scheduler: Spread them over the workers of this Dask scheduler, which have the same folders under the same names.
      allow_missing_images: With --images and --fail-on, a mask without an image that can be used is no failure.
      devices: How many devices to use, or each worker; all by default.
    """
    from qcjax.inference.monitor import Monitor
    from qcjax.runtime import jax_setup
    from qcjax.runtime.cluster import cluster_of
    from qcjax.scoring.score import Outcome, ScoringRun

    jax_setup.prepare()
    try:
        values = parse_labels(labels) if labels is not None else None
        cluster = cluster_of(workers, scheduler)
        loaded = Monitor.load(_judging(monitor, model), None if cluster else devices)
        expectation = None if model is None else _expectation(model, accept, coverage)
        limits = hd_limit_mm, dc_limit, doubt_limit
        scoring = ScoringRun.open(loaded, masks, out, values, images, *limits, expectation)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    ended: list[Outcome] = []
    code = exit_code(lambda: ended.append(scoring.run(pictures, cluster, devices)))
    if code:
        return code
    scores = ended[0]
    console = Console(soft_wrap=True, highlight=False)
    for entry in scores.flagged[:FLAGGED_LISTED]:
        measure = "suspicion" if images is None else "suspicion or doubt"
        text = f"{entry.status:<10}  {measure} {entry.suspicion:.2f}  {entry.name}"
        console.print(printable(text), markup=False)
    if len(scores.flagged) > FLAGGED_LISTED:
        console.print(f"... and {len(scores.flagged) - FLAGGED_LISTED} more, in scores.csv")
    counts = ", ".join(f"{scores.summary[name]} {name}" for name in ("erroneous", "suspicious", "untouched"))
    console.print(f"{count_of(scores.summary['cases'], 'mask')}: {counts}")
    if any(scores.summary["decisions"].values()):
        decided = ", ".join(f"{name} {n}" for name, n in scores.summary["decisions"].items())
        console.print(f"By the lower bound of the predicted Dice: {decided}")
    console.print(printable(f"Report: {out / 'report.html'}"), markup=False)
    for name, what in (
        ("errors", "couldn't be scored; scores.csv says why"),
        ("without_image", "judged without an image, of which none could be used; scores.csv says why"),
        ("seem_swapped", "with rv within the myocardium and lv beside it: lv and rv seem swapped (--labels)"),
        ("with_unusual_geometry", "of unusual geometry; the column geometry of scores.csv says how"),
    ):
        if scores.summary[name]:
            print(f"{count_of(scores.summary[name], 'mask')} {what}", file=sys.stderr)
    return 2 if scores.fails(fail_on, allow_missing_images) else 0


def _judging(monitor: Path | None, model: Path | None) -> Path:
    """The folder of the monitor that judges; ValueError where none or two are named."""
    found = [folder for folder in (monitor, model) if folder is not None]
    if len(found) != 1:
        raise ValueError(
            f"{'both' if found else 'neither'} --monitor and --model found, expected one of them"
        )
    return found[0]


def _expectation(model: Path, accept: float, coverage: float) -> "Expectation":
    """What a model expects of masks; ValueError where it has learnt nothing of their quality."""
    from qcjax.quality.model import FILE, Expectation, QualityModel

    quality = QualityModel.load(model)
    if quality is None:
        raise ValueError(f"{model}: found no {FILE}; expected a model of at least 9 subjects, or --monitor")
    return Expectation(quality, accept, coverage)
