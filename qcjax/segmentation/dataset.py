"""Labelled data of any layout for `qcjax train`: subjects, structures and their values in the files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qcjax.config.segmentation import Layout, SegmentationConfig
from qcjax.data.batches import Slices
from qcjax.data.cohort import Cohort
from qcjax.data.datasets import acdc, emidec, folders, mnms2, nnunet
from qcjax.data.datasets.listing import Scan
from qcjax.data.datasets.masks import label_values
from qcjax.data.findings import Finding, InvalidFile
from qcjax.data.geometry import Orientation
from qcjax.data.nifti import read_image, read_labels
from qcjax.data.preprocess import Geometry, plan, prepare_image, prepare_labels
from qcjax.data.subject import Case, Subject
from qcjax.labels import Structure, label_mapping, parse_labels, structures_named
from qcjax.runtime import hosts
from qcjax.runtime.progress import bar, say
from qcjax.runtime.wording import count_of

VIEW = "SA"
NAMED = 20  # findings that are told one by one
ACDC, MNMS2 = {"lv": 3, "myo": 2, "rv": 1}, {"lv": 1, "myo": 2, "rv": 3}
EMIDEC = {"cavity": 1, "myo": 2, "infarction": 3, "no_reflow": 4}
LESIONS = ("infarction", "no_reflow")  # of EMIDEC: absent in some, and in pieces


class _Known(NamedTuple):
    """A data set whose layout tells its structures."""

    scan: Callable[[Path], Scan]
    labels: Mapping[str, int]
    lesions: tuple[str, ...] = ()


LAYOUTS: dict[Layout, _Known] = {
    "acdc": _Known(acdc.scan, ACDC),
    "mnms2": _Known(mnms2.scan, MNMS2),
    "emidec": _Known(emidec.scan, EMIDEC, LESIONS),
}


@dataclass(frozen=True)
class TrainingSet:
    """What a model learns from."""

    layout: str
    subjects: tuple[Subject, ...]  # those with truth, by code
    labels: Mapping[str, int]  # key of each structure -> its value in the files
    may_be_absent: tuple[str, ...] = ()
    in_pieces: tuple[str, ...] = ()

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The structures, in the order of the networks' classes."""
        return structures_named(tuple(self.labels))

    @property
    def mapping(self) -> dict[int, int]:
        """Label value in the files -> id of the structure."""
        return label_mapping(self.structures, self.labels)

    @property
    def cases(self) -> list[Case]:
        """The cases of all subjects."""
        return [case for subject in self.subjects for case in subject.cases]


def find_labelled(config: SegmentationConfig) -> TrainingSet:
    """The labelled subjects of a configuration's data; no image is read.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no data set of a known layout, one whose names or tables have errors, or none with truth; options that
        name structures which the data haven't, or fewer subjects than folds.
    """
    if (config.images is None) != (config.masks is None) or (config.data is None) == (config.images is None):
        raise ValueError("found neither --data nor --images with --masks, or both; expected one of these")
    found = _folders(config) if config.data is None else _data_set(config.data, config.layout)
    if config.labels is not None and config.data is not None:
        raise ValueError("--labels: found with --data; expected with --images and --masks alone")
    data = replace(
        found,
        may_be_absent=config.may_be_absent or found.may_be_absent,
        in_pieces=config.in_pieces or found.in_pieces,
    )
    for option, keys in (("may-be-absent", data.may_be_absent), ("in-pieces", data.in_pieces)):
        if unknown := set(keys) - set(data.labels):
            raise ValueError(
                f"--{option}: {', '.join(sorted(unknown))} found, expected some of {', '.join(data.labels)}"
            )
    if len(data.subjects) < config.folds:
        raise ValueError(
            f"{count_of(len(data.subjects), 'labelled subject')} found, expected at least {config.folds}, one for "
            "each fold"
        )
    return data


def recognised(folder: Path) -> Layout:
    """The layout of a data set's folder. Raises ValueError for none that is known, or several."""
    if nnunet.is_one(folder):
        return "nnunet"
    found = [layout for layout, known in LAYOUTS.items() if known.scan(folder).subjects]
    if len(found) != 1:
        raise ValueError(
            f"{folder}: found {' and '.join(found) or 'no known layout'}; expected ACDC's, M&Ms-2's, EMIDEC's or "
            "nnU-Net's (--layout), or a folder of images and one of masks (--images, --masks)"
        )
    return found[0]


def _data_set(folder: Path, layout: Layout) -> TrainingSet:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: found no such folder; expected a data set (--data)")
    if layout == "auto":
        layout = recognised(folder)
        say(f"{folder}: taken for the layout {layout}")
    if layout == "nnunet":
        dataset = nnunet.scan(folder)
        return TrainingSet(layout, _labelled(dataset.scan), dataset.labels)
    known = LAYOUTS[layout]
    return TrainingSet(layout, _labelled(known.scan(folder)), known.labels, known.lesions, known.lesions)


def _folders(config: SegmentationConfig) -> TrainingSet:
    assert config.images is not None and config.masks is not None
    subjects = _labelled(folders.scan(config.images, config.masks, say))
    labels = None if config.labels is None else parse_labels(config.labels)
    if labels is None:
        paths = [case.label_path for subject in subjects for case in subject.cases]
        occurring = set().union(*hosts.share(lambda path: label_values(path), [p for p in paths if p]))
        labels = {f"label{value}": value for value in sorted(occurring)}
        say(f"{config.masks}: the labels {', '.join(map(str, labels.values()))} occur")
    return TrainingSet("folders", subjects, labels)


def _labelled(scan: Scan) -> tuple[Subject, ...]:
    """The short-axis cases with truth of subjects that have any; ValueError for errors of names and tables."""
    errors = [f for f in scan.findings if f.level == "error"]
    if errors:
        _refuse(errors)
    subjects = []
    for subject in scan.subjects:
        cases = tuple(c for c in subject.cases if c.view == VIEW and c.label_path is not None)
        if cases:
            subjects.append(replace(subject, cases=cases))
    if not subjects:
        raise ValueError(
            f"{count_of(len(scan.subjects), 'subject')} found, none with masks of the short axis"
        )
    return tuple(subjects)


def _refuse(errors: Sequence[Finding]) -> None:
    for finding in errors[:NAMED]:
        say(f"error: {finding}")
    raise ValueError(f"the data have {count_of(len(errors), 'error')}; the first: {errors[0]}")


def prepare_checked(
    data: TrainingSet, config: SegmentationConfig, orientation: Orientation | None = None
) -> Cohort:
    """All cases, read, checked and prepared; every file that can't be used is told of before it ends in an error.

    Args:
      orientation: what the axes of all are brought to; None: as stored, but for the slices.

    Raises:
      ValueError: any file that can't be used.
    """
    mapping, spacing = data.mapping, (config.spacing_mm, config.spacing_mm)

    def one(case: Case) -> tuple[Geometry, np.ndarray, np.ndarray] | Finding:
        assert case.label_path is not None
        try:
            image = read_image(case.image_path, orientation)
            geometry = plan(image, spacing, config.size)
            labels = read_labels(case.label_path, mapping, like=image)
            return geometry, prepare_image(image, geometry), prepare_labels(labels, geometry)
        except InvalidFile as error:
            return error.finding(case.subject)
        except (OSError, ValueError) as error:
            return Finding("error", case.image_path, str(error), "an image with its mask", case.subject)
        finally:
            advance()

    with bar(f"Checking and preparing images at {config.spacing_mm:g} mm, cases", len(data.cases)) as advance:
        parts = hosts.share(one, data.cases)
    if errors := [part for part in parts if isinstance(part, Finding)]:
        _refuse(errors)
    sound = [part for part in parts if not isinstance(part, Finding)]
    geometries, images, labels = zip(*sound, strict=True)
    present = np.unique(np.concatenate([np.unique(x) for x in labels]))
    absent = [s.key for s in data.structures if s.id not in present]
    if absent:
        raise ValueError(
            f"no mask has {', '.join(absent)}; expected each of {', '.join(data.labels)} in some"
        )
    return Cohort(tuple(data.cases), geometries, Slices(np.concatenate(images), np.concatenate(labels)))
