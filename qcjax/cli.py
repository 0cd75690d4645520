"""The command ``qcjax``: one function per subcommand, its docstring the help, its result the exit code.

What a subcommand works with is imported when it runs, so that help, and a mistyped option's message, come at once.
"""

import os

# before NumPy loads: cases run in parallel already, and threads that wait for each other's small products
# take several times as long
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import getdoc
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro
from rich.console import Console
from rich.text import Text

from qcjax.config import MONITORS, Centre, DiceOfMasks
from qcjax.labels import parse_labels
from qcjax.runtime.exits import exit_code
from qcjax.runtime.wording import printable
from qcjax.scoring.command import score
from qcjax.segmentation.command import calibrate, export, segment, train
from qcjax.segmentation.refine_command import refine

DESCRIPTION = (
    "Quality-controlled segmentation of cardiac MR images: knows, without ground truth, which results to distrust. "
    "`qcjax SUBCOMMAND --help` explains all options of one. The experiments of the papers are programs of their own: "
    "python -m experiments.mnms2 --help, .acdc and .emidec alike."
)


def validate(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")],
    dataset: Literal["mnms2", "acdc", "emidec"] = "mnms2",
    split: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None,
) -> int:
    """Check the files of a data set before anything is trained on them.

    Reads every image and mask and tells what is wrong: each error and warning with its file, what was
    found there and what was expected. An error makes a case unusable (a truncated file, a mask on another
    grid than its image, an unknown label, a missing phase, ...); a warning leaves it usable. The exit code
    is 1 where there is an error, 2 for an option that makes no sense, else 0. Nothing is changed on disk.

    Example: qcjax validate data/ACDC --dataset acdc

    Args:
      folder: The data set's folder. For M&Ms-2, the one with dataset_information.csv, one above it, or the
        flat folder of the 2021 challenge. For ACDC, the one with training and testing in it (either may be
        missing), or one of folders patientNNN. For EMIDEC, the one with folders like Case_P001 in it, or one
        above it.
      dataset: Which data set it is: its layout, its labels, its diseases and vendors.
      split: For M&Ms-2, a csv with the columns SUBJECT_CODE and PART (train, validation or test), in place
        of the official split by subject code (1-160 train, 161-200 validation, 201-360 test).
    """
    from rich.progress import Progress

    from qcjax.data.datasets import acdc, emidec, mnms2
    from qcjax.data.findings import print_findings
    from qcjax.data.validate import validate_acdc, validate_emidec, validate_mnms2

    console = Console(soft_wrap=True, highlight=False)
    if dataset != "mnms2" and split is not None:
        print(f"{split}: found --split for {dataset.upper()}; expected it for mnms2 alone", file=sys.stderr)
        return 2
    finders = {"mnms2": lambda: mnms2.scan(folder, split), "acdc": lambda: acdc.scan(folder)}
    finders["emidec"] = lambda: emidec.scan(folder)
    subjects = finders[dataset]().subjects
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("checking", total=len(subjects))

        def advance() -> None:
            progress.advance(task)

        if dataset == "mnms2":
            findings = validate_mnms2(folder, split, advance)
        else:
            findings = {"acdc": validate_acdc, "emidec": validate_emidec}[dataset](folder, advance)
    if subjects:
        describe = {"mnms2": mnms2, "acdc": acdc, "emidec": emidec}[dataset].describe
        console.print(Text(describe(subjects)))
    return 1 if print_findings(findings, len(subjects), console) else 0


def dicom(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")],
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
) -> int:
    """Turn DICOM series into volumes that `qcjax segment` reads, without a patient's name or dates.

    Every file below the folder is looked at. A series becomes series-….nii.gz, a cine with its frames: slices are
    sorted by place, frames by trigger time, and slices that are a series each are one. series.csv tells slices,
    frames and spacing, or why a series can't be used. Series are named by a hash (the first 12 digits of the SHA-256
    of SeriesInstanceUID): nothing of a patient is taken over, nor what files and folders are called. The exit code
    is 1 where no series could be used.

    Example: qcjax dicom export/ --out scans

    Args:
      folder: The folder of DICOM files.
      out: Where the volumes go.
    """
    from qcjax.data.dicom import convert

    ended: list[int] = []

    def run() -> None:
        rows = convert(folder, out)
        for row in rows:
            told = row["reason"] or f"{row['slices']} slices, {row['frames']} frames"
            print(f"series {row['series']}: {told}")
        ended.append(sum(not row["reason"] for row in rows))
        print(f"{ended[0]} of {len(rows)} series written to {printable(str(out))}")

    return exit_code(run) or (0 if ended[0] else 1)


def report(run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]) -> int:
    """Draw the figures and write report.html of a finished run again.

    Reads config.json, results.json, metrics.jsonl and the table of cases in the run's folder, and the images
    and masks that the table names; the figures and the page are replaced, nothing else changes. The table
    tells which experiment it was: measures.csv that of monitoring, cases.csv that of refinement or, by its
    columns, of uncertainty.

    Example: qcjax report runs/mnms2-20260101-120000

    Args:
      run: The folder that a finished experiment left behind.
    """
    from qcjax.monitoring.page import write_monitoring_report
    from qcjax.refinement.page import write_report
    from qcjax.uncertainty.page import write_uncertainty_report
    from qcjax.uncertainty.table import is_uncertainty_table

    def write() -> None:
        table = next((run / n for n in ("measures.csv", "cases.csv") if (run / n).is_file()), None)
        if table is None or not (run / "results.json").is_file():
            missing = "measures.csv or cases.csv" if table is None else "results.json"
            raise FileNotFoundError(f"{run}: found no {missing}; expected the folder of a finished run")
        if table.name == "measures.csv":
            print(write_monitoring_report(run))
        elif is_uncertainty_table(table):
            print(write_uncertainty_report(run))
        else:
            print(write_report(run))

    return exit_code(write)


def monitor(
    action: Annotated[Literal["train"], tyro.conf.Positional],
    masks: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    labels: Annotated[str | None, tyro.conf.arg(metavar="lv=1,myo=2,rv=3")] = None,
    preset: Literal["small", "paper", "original"] = "small",
    size: int | None = None,
    spacing_mm: float | None = None,
    epochs: int | None = None,
    centre: Centre | None = None,
    dice: DiceOfMasks | None = None,
    may_be_absent: tuple[str, ...] = (),
    validation: float = 0.2,
    subject: Annotated[str | None, tyro.conf.arg(metavar="REGEX")] = None,
    seed: int = 0,
    devices: int | None = None,
    on_nonfinite: Literal["stop", "skip"] = "stop",
    skip_invalid: bool = False,
) -> int:
    """Train a monitor on masks that you trust; `qcjax score` then judges others by it.

    An autoencoder learns what masks look like; no image is needed. The masks are NIfTI files anywhere below
    --masks, with any labels, slices of any size in any number; where masks lie beside images, only those
    named *_gt, *_pred or *_seg are taken. A subject's masks (--subject) stay together when a part is
    held out for validation. Started again on the same --out, training goes on where it was.

    Example: qcjax monitor train --masks truth --out monitor --labels lv=1,myo=2,rv=3

    Args:
      action: train.
      masks: The folder of masks to learn from.
      out: The folder of the monitor: monitor.json, weights.safetensors, checkpoints, metrics.jsonl.
      labels: The structures and their values in the files, lv=1,myo=2,rv=3; none: every value that occurs.
      preset: small: 128 x 128 pixels at 1.8 mm, minutes on a CPU. paper: as published, 256 x 256 at 1.25 mm and 500
        epochs, for a GPU. original: the same as the authors' public code trains it.
      size: Height and width of the prepared slices in pixels, a multiple of 64; what doesn't fit is cut off.
      spacing_mm: In-plane spacing of the prepared slices.
      epochs: Passes over the masks.
      centre: What lies in the middle of the prepared slices: that of the image (of presets paper and original), or the
        median of the mask's foreground (of small), so that it is judged alike wherever it lies.
      dice: Dice loss: the paper's generalised one (of presets paper and original); mixed: half of it slice by slice, so
        that a thin right ventricle is rebuilt too (of small); or plain soft Dice, where structures differ much in size.
      may_be_absent: Structures that a sound mask may lack, such as infarction: not having them is no error.
      validation: Share of the subjects that is held out, to choose the best epoch and to set the scale of suspicion.
      subject: What names the subject in a mask's path below --masks, without .nii.gz: a regular expression, of which
        the first group counts, or else all that it matches. By default the path up to the first _ or / after a digit
        (patient001 of patient001_frame01, s1 of s1/ED, all of ACDC_000); without a digit the folder, or in --masks
        itself the name up to the first _. A run that goes on keeps its own.
      seed: Of the split, the initial weights, the order and the augmentation.
      devices: How many devices share each batch; default all.
      on_nonfinite: Where a loss or a gradient isn't finite: stop and name the batch, or leave the batch out and count
        it.
      skip_invalid: Leave masks out whose files have errors, instead of stopping; they are named and counted.
    """
    from qcjax.runtime import jax_setup
    from qcjax.scoring.own_masks import train_on_folder

    def train() -> None:
        default = MONITORS[preset]
        config = replace(
            default,
            size=default.size if size is None else size,
            spacing_mm=default.spacing_mm if spacing_mm is None else spacing_mm,
            centre=default.centre if centre is None else centre,
            dice=default.dice if dice is None else dice,
            may_be_absent=may_be_absent,
        )
        if epochs is not None:
            config = replace(config, autoencoder=replace(config.autoencoder, epochs=epochs))
        jax_setup.prepare()
        values = None if labels is None else parse_labels(labels)
        trained = train_on_folder(
            masks, out, values, config, preset, validation, seed, devices, subject, on_nonfinite, skip_invalid
        )
        best = trained.description["epoch"]
        print(f"{trained.run}: epoch {best} is the best; judge masks by it with qcjax score")

    return exit_code(train)


COMMANDS: dict[str, Callable[..., int]] = {
    "segment": segment,
    "train": train,
    "refine": refine,
    "calibrate": calibrate,
    "export": export,
    "dicom": dicom,
    "validate": validate,
    "report": report,
    "monitor": monitor,
    "score": score,
}


def in_short(command: Callable[..., int]) -> str:
    """A subcommand's first sentence and its example, from its docstring; ValueError where it has none."""
    paragraphs = (getdoc(command) or "").split("\n\n")
    examples = [p for p in paragraphs if p.startswith("Example: ")]
    if not examples:
        raise ValueError(
            f"{command.__name__}: a docstring without example found, expected 'Example: qcjax …'"
        )
    return f"{paragraphs[0]}\n\n{examples[0]}"


def main(args: Sequence[str] | None = None) -> None:
    """Run the subcommand that the command line names, and exit with its code."""
    given = sys.argv[1:] if args is None else args
    choices = []
    for name, command in COMMANDS.items():
        # the list of all says each in short, the help of one all of it
        text = None if name in given else in_short(command)
        choices.append(Annotated[Any, tyro.conf.subcommand(name, constructor=command, description=text)])
    sys.exit(tyro.cli(Union[tuple(choices)], prog="qcjax", description=DESCRIPTION, args=given))  # type: ignore[call-overload]  # noqa: UP007


if __name__ == "__main__":
    main()
