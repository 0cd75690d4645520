"""Which files of a folder are images to be segmented, and which of them are a subject's ED and ES."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcjax.data.cine import read_frames
from qcjax.data.datasets import acdc
from qcjax.data.datasets.masks import IMAGE_SUFFIXES
from qcjax.data.dicom import convert_files
from qcjax.data.dicom_headers import is_dicom
from qcjax.data.files import ENDINGS, OTHER_VOLUMES, LeftOut, stem_of, walk
from qcjax.data.findings import InvalidFile
from qcjax.data.geometry import Orientation
from qcjax.data.subject import PHASES, Volume
from qcjax.typing import Real

_CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net's names
_LONG_AXIS = re.compile(r"\d+_LA_(ED|ES|CINE)")  # M&Ms-2's
_FRAME = re.compile(r"(patient\d+)_frame(\d+)")  # ACDC's
MOST_LABELS = 12  # of a label map; an image has more intensities
_PHASE = re.compile(r"(?<![A-Za-z])(ED|ES)(?![A-Za-z])")


@dataclass(frozen=True)
class Image:
    """A file that is to be segmented."""

    name: str  # its path in the folder without ending and channel, "/" between folders
    path: Path
    refused: str = ""  # why it can't be, as far as its name tells


@dataclass(frozen=True)
class Pair:
    """A subject's two phases, by their images' names."""

    subject: str
    ed: str
    es: str


def find_dicom(folder: Path, out: Path) -> list[Path]:
    """The DICOM files in a folder and all below it, but in `out`; of each file that may be one the beginning is read.

    Raises FileNotFoundError where there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: found no such folder; expected one of images")
    found = []
    for place, folders, names in walk(folder, LeftOut()):
        folders[:] = [f for f in folders if (place / f).resolve() != out.resolve()]
        found += [place / name for name in names if stem_of(name) is None and is_dicom(place / name)]
    return found


def series_of(files: Sequence[Path], out: Path) -> list[Image]:
    """The series of DICOM files as images, whose volumes are written to a folder; their names tell of no patient.

    Raises ValueError where pydicom isn't installed.
    """
    images = []
    for row in convert_files(files, out) if files else ():
        name = f"series-{row['series']}"
        refused = row["reason"].replace(" found; expected ", " found, expected ")
        images.append(Image(name, out / f"{name}.nii.gz", refused))
    return images


def find_images(
    folder: Path, out: Path | None = None, series: Sequence[Image] = ()
) -> tuple[list[Image], str]:
    """The images in a folder and all below it, by name, and what was left out, in words; none is read.

    Left out are masks beside their images (`*_gt`, `*_pred`, `*_seg`), hidden files, and folders that a run of ours
    left.

    Args:
      out: a folder that isn't looked into.
      series: those that were found in DICOM files; then nothing that is left out is named, for folders of DICOM files
        are often called after patients.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no image in it, or two of one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: found no such folder; expected one of images")
    images = {image.name: image for image in series}
    left_out = LeftOut()
    for place, folders, names in walk(folder, left_out):
        if out is not None:
            folders[:] = [f for f in folders if (place / f).resolve() != out.resolve()]
        stems = {stem: name for name in names if (stem := stem_of(name)) is not None}
        for name in names:
            if name.lower().endswith(OTHER_VOLUMES) and not (series and is_dicom(place / name)):
                left_out.add("file of a format that isn't read", (place / name).relative_to(folder))
        for stem, name in stems.items():
            if _is_mask(stem, stems):
                left_out.add("mask", (place / name).relative_to(folder))
                continue
            image = _image(folder, place, stem, name)
            if image.name in images:
                raise ValueError(
                    f"{image.path}: found also {images[image.name].path.name}; expected one file of each image"
                )
            images[image.name] = image
    if not images:
        raise ValueError(
            f"{folder}: found no images; expected files that end in {', '.join(ENDINGS)}, or DICOM files"
        )
    return [images[name] for name in sorted(images)], left_out.in_words(not series)


def _is_mask(stem: str, stems: dict[str, str]) -> bool:
    bare = next((stem.removesuffix(s) for s in IMAGE_SUFFIXES if stem.endswith(s)), None)
    return bare is not None and (bare in stems or f"{bare}_0000" in stems)


def _image(folder: Path, place: Path, stem: str, name: str) -> Image:
    refused, channel = "", _CHANNEL.fullmatch(stem)
    if channel is not None:
        stem = channel[1]
        if channel[2] != "0000":
            stem, refused = (
                f"{stem}_{channel[2]}",
                f"channel {int(channel[2])} found, expected one channel, 0000",
            )
    if _LONG_AXIS.fullmatch(stem):
        refused = "a long-axis view by its name found, expected short-axis images"
    return Image((place.relative_to(folder) / stem).as_posix(), place / name, refused)


def read_image_frames(image: Image, orientation: Orientation | None) -> list[Volume]:
    """The frames of an image, as `read_frames` gives them.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: one that can't be read, is refused by its name, or is a mask.
    """
    if image.refused:
        raise InvalidFile(image.path, *image.refused.split(" found, expected ", 1))
    frames = read_frames(image.path, orientation)
    values = whole_values(frames[0].array)
    if len(values) > 1:  # one alone is a constant image, which is told of as such
        listed = ", ".join(f"{v:g}" for v in values)
        raise InvalidFile(image.path, f"no values but {listed}, as a mask has", "the intensities of an image")
    return frames


def whole_values(array: Real[np.ndarray, "x y slices"]) -> list[float]:
    """All values of an array that has a dozen whole ones at the most, as label maps do; none of another's."""
    for part in (array[..., array.shape[2] // 2], array):  # one slice mostly tells
        values = np.unique(part)
        if len(values) > MOST_LABELS or not np.array_equal(values, np.round(values)):
            return []
    return values.tolist()


def find_pairs(images: Sequence[Image], table: Path | None = None) -> list[Pair]:
    """The ED and ES images of subjects: as a table says, else as ACDC's Info.cfg or names with ED and ES tell.

    Args:
      table: csv with the columns subject, ed, es; the latter are images' names or paths as in `cases.csv`.

    Raises:
      ValueError: a table that lacks a column, or names an image that isn't there.
    """
    if table is not None:
        return _read_pairs(table, {image.name for image in images})
    found: dict[str, dict[str, str]] = {}
    frames: dict[Path, dict[str, str]] = {}
    for image in images:
        if image.refused:
            continue
        place, stem = image.path.parent, Path(image.name).name
        frame, phase = _FRAME.fullmatch(stem), _PHASE.search(stem)
        if frame is not None:
            phases = frames.setdefault(place, _phases(place))
            named = phases.get(frame[2].lstrip("0"))
            if named:
                found.setdefault(frame[1], {})[named] = image.name
        elif phase is not None:
            subject = (stem[: phase.start()] + stem[phase.end() :]).strip("_- ") or place.name
            key = (Path(image.name).parent / subject).as_posix()
            found.setdefault(key, {})[phase[1]] = image.name
    return [Pair(s, v["ED"], v["ES"]) for s, v in sorted(found.items()) if set(v) == set(PHASES)]


def _phases(place: Path) -> dict[str, str]:
    """Number of a frame -> its phase, by an Info.cfg."""
    try:
        said = acdc.read_information(place / acdc.INFORMATION)
    except InvalidFile:
        return {}
    return {said[p.lower()].lstrip("0"): p for p in PHASES if p.lower() in said}


def _read_pairs(table: Path, names: set[str]) -> list[Pair]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        absent = {"subject", "ed", "es"} - set(reader.fieldnames or ())
        if absent:
            raise ValueError(f"{table}: columns {sorted(absent)} not found, expected subject, ed, es")
        pairs = []
        for number, row in enumerate(reader, start=2):
            stems = []
            for column in ("ed", "es"):
                stem = stem_of(row[column] or "") or row[column]
                if stem not in names:
                    raise ValueError(
                        f"{table}, line {number}: {column} {stem!r} found, expected one of the images"
                    )
                stems.append(stem)
            pairs.append(Pair(row["subject"], *stems))
    return pairs
