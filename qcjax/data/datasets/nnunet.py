"""nnU-Net's raw layout: ``dataset.json``, ``imagesTr/NAME_0000.nii.gz``, ``labelsTr/NAME.nii.gz``.

``dataset.json`` says in `channel_names` (before version 2: `modality`) what the channels are, in `labels` which value
stands for what, and in `file_ending` how the files end (before version 2 always .nii.gz).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcjax.data.datasets.folders import FileCase, subjects_of
from qcjax.data.datasets.listing import Scan
from qcjax.data.findings import Finding
from qcjax.data.subject import Subject
from qcjax.runtime.files import read_object

INFORMATION, IMAGES, MASKS = "dataset.json", "imagesTr", "labelsTr"
CHANNEL = "_0000"  # of the one channel, in images' names
ENDINGS = (".nii.gz", ".nii")
_NOT_LABELS = ("background", "ignore")


@dataclass(frozen=True)
class Dataset:
    """What a folder of nnU-Net's raw layout holds."""

    labels: dict[str, int]  # key of each structure -> its value
    scan: Scan


def find(folder: Path) -> list[Subject]:
    """The labelled subjects in a folder, by code; no image is read.

    Raises:
      ValueError: no data set of this layout, or one that can't be used.
    """
    return scan(folder).scan.sound()


def is_one(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / INFORMATION).is_file() and (folder / IMAGES).is_dir()


def scan(folder: Path) -> Dataset:
    """As `find`, but with whatever is wrong with single files as findings instead of exceptions.

    A subject is what a file's name begins with, up to the first _ after a digit.

    Raises:
      ValueError: a `dataset.json` that is damaged or tells of what can't be used: several channels, regions in place of
        labels, an ending of another format.
    """
    folder = Path(folder)
    path = folder / INFORMATION
    information = read_object(path, "nnU-Net's dataset.json")
    labels = read_labels(path, information)
    channels = information.get("channel_names", information.get("modality", {"0": ""}))
    if len(channels) != 1:
        raise ValueError(f"{path}: found {len(channels)} channels; expected one")
    ending = information.get("file_ending", ENDINGS[0])
    if ending not in ENDINGS:
        raise ValueError(f"{path}: found file_ending {ending!r}; expected {' or '.join(ENDINGS)}")
    findings, cases = [], []
    masks = {p.name.removesuffix(ending): p for p in sorted((folder / MASKS).glob(f"[!.]*{ending}"))}
    images = {
        p.name.removesuffix(f"{CHANNEL}{ending}"): p
        for p in (folder / IMAGES).glob(f"[!.]*{CHANNEL}{ending}")
    }
    for name, mask in masks.items():
        if name in images:
            cases.append(FileCase.of(name, images[name], mask))
        else:
            expected = f"{IMAGES}/{name}{CHANNEL}{ending}"
            findings.append(Finding("error", mask, "a mask without its image", expected, name))
    findings += [
        Finding("warning", images[name], "an image without its mask", f"{MASKS}/{name}{ending}", name)
        for name in sorted(set(images) - set(masks))
    ]
    if not masks:
        findings.append(Finding("error", folder / MASKS, "no masks", f"files named like NAME{ending}"))
    return Dataset(labels, Scan(subjects_of(cases), findings))


def read_labels(path: Path, information: Mapping[str, Any]) -> dict[str, int]:
    """Key of each structure -> its value, the background left out.

    Raises:
      ValueError: no labels, an ignore label, regions, or two names that are one key.
    """
    found = information.get("labels")
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: found labels {found!r}; expected names with their values")
    if all(re.fullmatch(r"\d+", str(k)) and isinstance(v, str) for k, v in found.items()):
        found = {v: int(k) for k, v in found.items()}  # version 1 had them the other way round
    labels: dict[str, int] = {}
    for name, value in found.items():
        if name == "ignore":
            raise ValueError(f"{path}: found a label to ignore; expected masks that label every voxel")
        if not isinstance(value, int):
            raise ValueError(f"{path}: found {name} = {value!r}; expected one value (regions can't be used)")
        key = re.sub(r"\W+", "_", str(name).strip()).lower()
        if value == 0 or name in _NOT_LABELS:
            continue
        if key in labels or value in labels.values():
            raise ValueError(f"{path}: found {name} = {value} twice; expected each name and each value once")
        labels[key] = value
    if not labels:
        raise ValueError(f"{path}: found no label but the background; expected at least one")
    return labels
