"""The subcommands `train`, `calibrate`, `export`, `segment`; what each needs is imported when it runs."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from qcjax.config.segmentation import EFFORTS
from qcjax.labels import parse_labels
from qcjax.runtime.exits import exit_code
from qcjax.runtime.wording import count_of, printable

if TYPE_CHECKING:
    from qcjax.quality.check import Row
    from qcjax.segmentation.segment import Outcome

FLAGGED_LISTED = 20  # on the terminal


def train(
    out: Annotated[Path, tyro.conf.arg(metavar="MODEL")],
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    layout: Literal["auto", "acdc", "mnms2", "emidec", "nnunet"] = "auto",
    images: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    masks: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    labels: Annotated[str | None, tyro.conf.arg(metavar="lv=1,myo=2,rv=3")] = None,
    preset: Literal["fast", "full"] = "fast",
    may_be_absent: tuple[str, ...] = (),
    in_pieces: tuple[str, ...] = (),
    folds: int | None = None,
    epochs: int | None = None,
    cycles: int | None = None,
    width: int | None = None,
    size: int | None = None,
    patch: int | None = None,
    spacing_mm: float | None = None,
    monitor_epochs: int | None = None,
    licence: str = "",
    keep: bool = False,
    keep_training_slices: bool = False,
    seed: int = 0,
    devices: int | None = None,
) -> int:
    """Train a model on your own labelled images; `qcjax segment` then segments others with it.

    The data are a data set's folder (--data), or a folder of images and one of masks (--images, --masks). The subjects
    are split into folds; each fold's network learns from the others' subjects and is judged on its own, and the mean of
    all networks is the model. A monitor is trained beside them. Started again on the same --out, training goes on.

    Example: qcjax train --data data/ACDC --out model

    Args:
      out: The folder of the model: model.json, weights.safetensors, monitor, README.md, report.html; and training,
        which holds what it takes to go on and can be deleted in the end.
      data: The data set's folder.
      layout: Of --data: ACDC, M&Ms-2 (its short axis), EMIDEC, or nnU-Net's raw layout; auto: whichever is recognised.
      images: A folder of NIfTI images, in subfolders too; with --masks in place of --data.
      masks: Their masks, at the images' own relative names, which may have the suffix _gt, _pred or _seg.
      labels: With --masks, the structures and their values in the files; none: every value that occurs.
      preset: fast: small 2-D networks, for a CPU. full: full sizes, for a GPU.
      may_be_absent: Structures that a sound mask may lack, such as infarction: not having them is no error.
      in_pieces: Structures that may be in several pieces; of all others only the largest piece of a mask is kept.
      folds: How many networks, each trained without a fold of the subjects.
      epochs: Passes of each network over its training slices.
      cycles: How often the learning rate falls to 0 meanwhile.
      width: Channels of the networks' first stage.
      size: Height and width of the prepared slices in pixels.
      patch: Height and width of what the networks train on, drawn from the slices.
      spacing_mm: In-plane spacing of the prepared slices.
      monitor_epochs: Passes of the monitor over the masks.
      licence: What the model may be used for, in a sentence: it stands in its card, and qcjax segment says it.
      keep: Keep the masks and probabilities that each fold's network predicts for its own subjects, in held_out.
      keep_training_slices: Leave the prepared training slices with their masks in the model's folder, so that qcjax
        refine needs no data but it. They are patients' images, without names: hand such a model on only where you may
        hand on the data, or delete training_slices.safetensors first.
      seed: Of the folds, the initial weights, the order and the augmentation.
      devices: How many devices share each batch; default all.
    """
    from qcjax.runtime import jax_setup
    from qcjax.segmentation.run import Training

    def run() -> None:
        given: dict[str, Any] = dict(
            data=data, out=out, images=images, masks=masks, layout=layout, labels=labels, licence=licence,
            keep=keep, keep_training_slices=keep_training_slices, seed=seed,
            may_be_absent=may_be_absent, in_pieces=in_pieces, devices=devices,
        )  # fmt: skip
        sizes: dict[str, Any] = dict(
            folds=folds,
            epochs=epochs,
            cycles=cycles,
            width=width,
            size=size,
            patch=patch,
            spacing_mm=spacing_mm,
        )
        given |= {name: value for name, value in sizes.items() if value is not None}
        config = replace(EFFORTS[preset], **given)
        if monitor_epochs is not None:
            options = replace(config.monitor.autoencoder, epochs=monitor_epochs)
            config = replace(config, monitor=replace(config.monitor, autoencoder=options))
        jax_setup.prepare()
        Training(config).run()
        print(f"{out}: segment images with qcjax segment --model {out}")

    return exit_code(run)


def calibrate(
    truth: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    out: Annotated[Path, tyro.conf.arg(metavar="MODEL")],
    images: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    masks: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    model: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None,
    labels: Annotated[str | None, tyro.conf.arg(metavar="lv=1,myo=2,rv=3")] = None,
    subject: Annotated[str | None, tyro.conf.arg(metavar="REGEX")] = None,
    devices: int | None = None,
) -> int:
    """Calibrate predicted quality on your own cases whose true masks are known, from 9 subjects on.

    What a model predicts, and above all its bounds, hold for subjects like those that it learnt from. Another scanner,
    or other hands that draw the truth, shift them. With --images the model segments them and is compared with the
    truth: `qcjax segment` predicts better then. With --masks those of another tool are: `qcjax score --model` does.
    Both may be given. It says what predictions and bounds were worth on these cases before, and, with at least 10
    subjects, after calibration on the others.

    Example: qcjax calibrate --images scans --truth truth --out model-here

    Args:
      truth: The true masks; a_gt is the truth of image a.
      out: Where the calibrated model goes: the model's files with another quality.json, and calibration.json, which
        names no subject.
      images: The images, at the truths' own relative names.
      masks: Masks of any tool, at the truths' own relative names, which may have the suffix _gt, _pred or _seg.
      model: The folder of a trained model; by default the one that comes with qcjax.
      labels: The value of each structure in truth and masks; by default as in the model's own.
      subject: What names the subject in a truth's path below --truth, a regular expression as of qcjax monitor train.
      devices: How many devices to use; all by default.
    """
    from qcjax.data.datasets.masks import SUBJECT
    from qcjax.runtime import jax_setup
    from qcjax.segmentation.calibration import calibrate
    from qcjax.segmentation.model import Model

    jax_setup.prepare()

    def run() -> None:
        values = None if labels is None else parse_labels(labels)
        loaded = Model.load(model, devices)
        told = calibrate(loaded, truth, out, images, masks, values, subject or SUBJECT)
        for kind, rows in told.items():
            print("Masks of the model:" if kind == "segmented" else "Masks from elsewhere:")
            for row in rows:
                print(f"  {in_words(row)}")
        print(f"{out}: use it with --model")

    return exit_code(run)


def in_words(row: "Row") -> str:
    """A structure's row of what predictions are worth."""
    when = "calibrated on the others" if row.calibrated else "as it was"
    if not row.n:
        return f"{row.structure.upper()}, {when}: no mask with a prediction"
    return (
        f"{row.structure.upper()}, {when}: predicted Dice off by {row.error:.3f} (bias {row.bias:+.3f}), Dice at least "
        f"its lower bound in {row.covered:.0%}, HD at most its upper bound in {row.covered_hd:.0%} of "
        f"{count_of(row.n, 'mask')} of {count_of(row.subjects, 'subject')}"
    )


def export(
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    to: Literal["stablehlo", "onnx"],
    model: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None,
) -> int:
    """Write a model's networks as files that run without qcjax, such as in a viewer.

    Written to --out: segmenter (prepared slices in, probabilities out, the mean of all networks), autoencoder (the
    monitor's: one-hot masks in, probabilities out), both for any number of slices, and export.json, which tells how
    images and masks are prepared and brought back. StableHLO is jax.export's, for CPU, CUDA and TPU, and needs JAX
    alone; ONNX needs jax2onnx to be written, and any ONNX runtime to be used.

    Example: qcjax export --model model --to stablehlo --out exported

    Args:
      out: Where the files go.
      to: Their format.
      model: The folder of a trained model; by default the one that comes with qcjax.
    """
    from qcjax.runtime import jax_setup
    from qcjax.segmentation.export import export_model
    from qcjax.segmentation.model import Model

    jax_setup.prepare()

    def run() -> None:
        for path in export_model(Model.load(model, 1), out, to):
            print(printable(str(path)))

    return exit_code(run)


def segment(
    images: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    model: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None,
    pairs: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None,
    bodies: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None,
    fail_on: Literal["suspicious", "erroneous"] | None = None,
    hd_limit_mm: float = 50.0,
    dc_limit: float = 0.5,
    accept: float = 0.8,
    coverage: float = 0.9,
    pictures: int = 40,
    workers: int | None = None,
    scheduler: Annotated[str | None, tyro.conf.arg(metavar="tcp://HOST:PORT")] = None,
    devices: int | None = None,
) -> int:
    """Segment a folder of images, and tell which masks to distrust.

    Without --model, the model that comes with qcjax segments short-axis cine MR: left ventricle, myocardium and right
    ventricle. It was trained on ACDC and is for research only (CC BY-NC-SA 4.0), no medical device.

    For every structure it predicts Dice and Hausdorff distance against a truth that nobody has, each with a bound that
    holds for --coverage of new subjects that are like the model's own, and decides: accept, review or reject.

    Written to --out: masks/ (on each image's own grid, with the label values that the model was trained with),
    cases.csv (a row per image, frame and structure), subjects.csv (volumes, ejection fraction and mass of pairs of ED
    and ES and of cines), summary.json, and report.html with the most doubtful masks first. What can't be segmented
    becomes a row with its reason. Started again, it goes on.

    The exit code is 0, or 1 where it couldn't start or go on; with --fail-on it is 2 where a mask is flagged so, or an
    image couldn't be segmented; 75 after SIGTERM and 130 after Ctrl-C: started again, it goes on.

    Example: qcjax segment --images scans --out masks

    Args:
      images: The images, .nii or .nii.gz, in subfolders too: short-axis stacks, single slices, cines (every frame); and
        DICOM series, of which no patient's name is taken over. Masks beside them (*_gt, *_pred, *_seg) are left out.
        nnU-Net's channel _0000 is dropped from the names.
      out: Where the results go.
      model: The folder of a trained model; by default the one that comes with qcjax.
      pairs: A csv with the columns subject, ed, es that names two images of each subject. By default pairs are found by
        names with ED and ES, and by ACDC's Info.cfg.
      bodies: A csv with the columns subject, height_cm, weight_kg: volumes and masses are indexed by body surface.
      fail_on: Exit with code 2 where a mask is at least so bad, or an image couldn't be segmented.
      hd_limit_mm: A structure is suspicious where its pseudo Hausdorff distance is above this.
      dc_limit: A structure is suspicious where its pseudo Dice is below this.
      accept: A structure is accepted where the lower bound of its predicted Dice is at least this, rejected where not
        even the predicted Dice is, else to be reviewed.
      coverage: The probability with which each bound holds.
      pictures: How many images are pictured in the report, the most doubtful first.
      workers: Spread the images over so many processes of this machine (extra cluster). What one had in hand when it
        died is done by others.
      scheduler: Spread them over the workers of this Dask scheduler, which have the same folders under the same names.
      devices: How many devices to use, or each worker; all by default.
    """
    from qcjax.runtime import jax_setup
    from qcjax.runtime.cluster import cluster_of
    from qcjax.segmentation.model import Model
    from qcjax.segmentation.segment import Segmentation
    from qcjax.segmentation.settings import Limits

    jax_setup.prepare()
    ended: list[Outcome] = []

    def run() -> None:
        cluster = cluster_of(workers, scheduler)
        loaded = Model.load(model, None if cluster else devices)
        if loaded.description.get("licence"):
            print(f"The model: {loaded.description['licence']}")
        if loaded.quality is None:
            print(
                "The model predicts no quality: it has no quality.json, as one of fewer than 9 subjects has none"
            )
        limits = Limits(hd_limit_mm, dc_limit, accept, coverage)
        opened = Segmentation.open(loaded, images, out, pairs, limits, bodies)
        ended.append(opened.run(pictures, cluster, devices))

    code = exit_code(run)
    if code:
        return code
    outcome = ended[0]
    console = Console(soft_wrap=True, highlight=False)
    for entry in outcome.doubtful[:FLAGGED_LISTED]:
        text = f"{entry.status:<10}  suspicion {entry.suspicion:.2f}  {entry.name}"
        console.print(printable(text), markup=False)
    if len(outcome.doubtful) > FLAGGED_LISTED:
        console.print(f"... and {len(outcome.doubtful) - FLAGGED_LISTED} more, in cases.csv")
    counts = ", ".join(
        f"{outcome.summary[n]} {n.replace('_', ' ')}" for n in ("erroneous", "suspicious", "without_flag")
    )
    console.print(f"{count_of(outcome.summary['images'], 'image')}: {counts}")
    if any(outcome.summary["decisions"].values()):
        decided = ", ".join(f"{name} {n}" for name, n in outcome.summary["decisions"].items())
        console.print(f"By the lower bound of the predicted Dice, frames: {decided}")
    for sentence in outcome.summary["drift_in_words"]:
        console.print(sentence, markup=False)
    console.print(printable(f"Report: {out / 'report.html'}"), markup=False)
    if outcome.summary["errors"]:
        lost = count_of(outcome.summary["errors"], "image")
        print(f"{lost} couldn't be segmented; cases.csv says why", file=sys.stderr)
    return 2 if outcome.fails(fail_on) else 0
