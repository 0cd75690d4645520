"""The command ``qcjax``: one function per subcommand, its docstring the help, its result the exit code."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from qcjax.data import mnms2
from qcjax.data.findings import Finding
from qcjax.data.validate import validate_mnms2
from qcjax.report.page import write_report

DESCRIPTION = "Quality-controlled segmentation of cardiac MR images."


def validate(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")],
    dataset: Literal["mnms2"] = "mnms2",
    split: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None,
) -> int:
    """Check the files of a data set before anything is trained on them.

    Reads every image and mask and tells what is wrong: each error and warning with its file, what was
    found there and what was expected. An error makes a case unusable (a truncated file, a mask on another
    grid than its image, an unknown label, a missing phase, ...); a warning leaves it usable. The exit code
    is 1 where there is an error, else 0. Nothing is changed on disk.

    Example: qcjax validate data/MnM2 --dataset mnms2

    Args:
      folder: The data set's folder. For M&Ms-2, the one with dataset_information.csv, one above it, or the
        flat folder of the 2021 challenge.
      dataset: Which data set it is: its layout, its labels, its diseases and vendors.
      split: A csv with the columns SUBJECT_CODE and PART (train, validation or test), in place of the
        official split by subject code (1-160 train, 161-200 validation, 201-360 test).
    """
    console = Console(soft_wrap=True, highlight=False)
    subjects = mnms2.scan(folder, split).subjects
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("checking", total=len(subjects))
        findings = validate_mnms2(folder, split, on_subject=lambda: progress.advance(task))
    if subjects:
        console.print(Text(mnms2.describe(subjects)))
    return _print_findings(findings, len(subjects), console)


def report(run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]) -> int:
    """Draw the figures and write report.html of a finished run again.

    Reads config.json, results.json, cases.csv and metrics.jsonl in the run's folder, and the images and
    predictions that cases.csv names; the figures and the page are replaced, nothing else changes.

    Example: qcjax report runs/mnms2-20260101-120000

    Args:
      run: The folder that a finished experiment left behind.
    """
    if not (run / "results.json").is_file():
        print(f"{run}: found no results.json; expected the folder of a finished run", file=sys.stderr)
        return 1
    print(write_report(run))
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"validate": validate, "report": report}


def _print_findings(findings: Sequence[Finding], n_subjects: int, console: Console) -> int:
    """Print findings and their count; the exit code."""
    styles = {"error": "bold red", "warning": "yellow"}
    for finding in findings:
        heading = Text.assemble((f"\n{finding.level}", styles[finding.level]), f"  {finding.path}")
        if finding.subject:
            heading.append(f"  (subject {finding.subject})")
        console.print(heading)
        console.print(Text(f"  found     {finding.found}\n  expected  {finding.expected}"))
    count = Counter(f.level for f in findings)
    bad = len({f.subject for f in findings if f.level == "error" and f.subject})
    console.print(
        Text(
            f"\n{n_subjects} subjects checked: {count['error']} errors (in {bad} subjects), "
            f"{count['warning']} warnings."
        )
    )
    return 1 if count["error"] else 0


def main(args: Sequence[str] | None = None) -> None:
    """Run the subcommand that the command line names, and exit with its code."""
    sys.exit(tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="qcjax", description=DESCRIPTION, args=args))


if __name__ == "__main__":
    main()
