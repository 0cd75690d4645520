"""DICOM files of cardiac MR: series found, sorted into slices and frames, and written as volumes without a name.

Nothing of a patient is taken over: neither names nor dates, nor what files and folders are called.
"""

import csv
import gzip
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float, Float32

from qcjax.data.dicom_headers import Image, is_dicom, read_headers
from qcjax.runtime.files import version_of, write_whole, written_table

PARALLEL = 1e-3  # how far unit vectors may differ
SAME_PLACE_MM = 0.05
UNEVEN = 0.05  # of the distance of slices
SIZES = ("slices", "frames", "x_mm", "y_mm", "slice_mm", "frame_s")
COLUMNS = ("series", "file", *SIZES, "reason", "source")  # source: a hash of the files' sizes and times
TABLE = "series.csv"


class Refused(ValueError):
    """A series that is no stack or cine, in words that name no patient."""


@dataclass(frozen=True)
class Stack:
    """A series as a volume."""

    array: Float32[np.ndarray, "x y slices frames"]
    affine: Float[np.ndarray, "4 4"]  # voxel indices -> mm to the right, front and head
    spacing_mm: tuple[float, float, float]
    frame_s: float  # 0 of a still image


def find_series(files: Iterable[Path]) -> dict[str, list[Image]]:
    """The series of some files, by a hash of their identifiers; what is no DICOM image is passed over.

    Slices that a scanner stored as a series each, in the same planes of one study, are one.

    Raises ValueError where pydicom isn't installed.
    """
    found: dict[str, list[Image]] = defaultdict(list)
    for path in sorted(files):
        for image in read_headers(path):
            found[image.series].append(image)
    single: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for series, images in found.items():
        if len({round(i.depth_mm, 1) for i in images}) == 1 and len({i.plane for i in images}) == 1:
            single[(*images[0].plane, len(images))].append(series)
    for parts in single.values():
        for other in parts[1:]:
            found[parts[0]] += found.pop(other)
    named = {hashlib.sha256(series.encode()).hexdigest()[:12]: images for series, images in found.items()}
    return {name: named[name] for name in sorted(named)}


def read_stack(images: Sequence[Image]) -> Stack:
    """A series as a volume, its slices by place, its frames by trigger time.

    Raises:
      Refused: images of several planes or sizes, two at one place and time, frames that some slices lack, or slices
        that aren't evenly apart.
    """
    first = images[0]
    if any(image.many > 1 for image in images):
        raise Refused(
            "several images in one file found; expected the place of each, as enhanced DICOM has it"
        )
    for what, values in (
        ("sizes", {i.shape for i in images}),
        ("pixel sizes", {i.pixel_mm for i in images}),
    ):
        if len(values) > 1:
            raise Refused(f"{len(values)} {what} found; expected the same in all images")
    if any(np.abs(i.directions - first.directions).max() > PARALLEL for i in images):
        raise Refused("images of several directions found; expected parallel slices")
    slices = _by_place(images)
    frames = _frames(slices)
    places = np.array([s[0].place_mm for s in frames])
    step = (places[-1] - places[0]) / max(1, len(places) - 1)
    steps = np.diff(places, axis=0)
    distance = float(np.linalg.norm(step)) or _thickness(first)
    if len(steps) and np.abs(steps - step).max() > max(UNEVEN * distance, SAME_PLACE_MM):
        lengths = np.linalg.norm(steps, axis=1)
        raise Refused(f"slices {lengths.min():.1f} to {lengths.max():.1f} mm apart found; expected even ones")
    if not len(steps):
        step = np.cross(*first.directions.T) * distance
    lps = np.eye(4)
    lps[:3, :2] = first.directions * first.pixel_mm
    lps[:3, 2], lps[:3, 3] = step, places[0]
    files: dict[Path, Float32[np.ndarray, "n y x"]] = {}
    array = np.stack([np.stack([_pixels(i, files) for i in s], -1) for s in frames], 2)
    times = [i.time_ms for i in frames[0] if i.time_ms is not None]
    frame_s = float(np.median(np.diff(times))) / 1000 if len(times) > 1 else 0.0
    return Stack(array, np.diag([-1, -1, 1, 1]) @ lps, (*first.pixel_mm, distance), frame_s)


def _by_place(images: Sequence[Image]) -> list[list[Image]]:
    slices: list[list[Image]] = []
    for image in sorted(images, key=lambda i: i.depth_mm):
        if slices and image.depth_mm - slices[-1][0].depth_mm < SAME_PLACE_MM:
            slices[-1].append(image)
        else:
            slices.append([image])
    return slices


def _frames(slices: Sequence[Sequence[Image]]) -> list[list[Image]]:
    """Each slice's images by time."""
    counts = sorted({len(s) for s in slices})
    if len(counts) > 1:
        raise Refused(f"{counts[0]} to {counts[-1]} images a slice found; expected as many in each")
    if counts[0] == 1:
        return [list(s) for s in slices]
    found = []
    for images in slices:
        times = [i.time_ms for i in images]
        if None in times:
            raise Refused(f"{len(images)} images at one place without trigger times found; expected them")
        if len(set(times)) < len(times):
            raise Refused("two images at one place and one trigger time found; expected one")
        found.append(sorted(images, key=lambda i: i.time_ms or 0.0))
    return found


def _thickness(image: Image) -> float:
    if image.thickness_mm is None:
        raise Refused("a single slice without thickness found; expected SliceThickness")
    return image.thickness_mm


def _pixels(image: Image, files: dict[Path, Float32[np.ndarray, "n y x"]]) -> Float32[np.ndarray, "x y"]:
    """An image's pixels; those of a file of several are kept in `files`."""
    import SimpleITK as sitk  # noqa: N813

    found = files.get(image.path)
    if found is None:
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            found = sitk.GetArrayFromImage(sitk.ReadImage(str(image.path))).astype(np.float32)
        except RuntimeError:
            raise Refused("an image whose pixels can't be read found; expected a sound file") from None
        if found.ndim != 3 or found.shape[1:] != image.shape[::-1] or len(found) <= image.number:
            raise Refused(f"pixels of shape {found.shape} found; expected grey ones, as the header says")
        if len(found) > 1:
            files[image.path] = found
    return found[image.number].T


def convert(folder: Path, out: Path) -> list[dict[str, Any]]:
    """Write each series of a folder as `series-….nii.gz`, and `series.csv`; its rows, with why a series is refused.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no DICOM image in it, or pydicom isn't installed.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: found no such folder; expected one of DICOM files")
    rows = convert_files((p for p in folder.rglob("*") if p.is_file() and is_dicom(p)), out)
    if not rows:
        raise ValueError(f"{folder}: found no DICOM images; expected some")
    return rows


def convert_files(files: Iterable[Path], out: Path) -> list[dict[str, Any]]:
    """The same for some files; a series whose volume is there, of the same files, isn't read again.

    Raises what `find_series` raises.
    """
    known, rows = _known(out / TABLE), []
    for name, images in find_series(files).items():
        versions = sorted({(*(version_of(i.path) or ()), str(i.path)) for i in images})
        source = hashlib.sha256(repr(versions).encode()).hexdigest()[:12]
        row = known.get(name)
        if row is None or row["source"] != source or (row["file"] and not (out / row["file"]).is_file()):
            row = dict.fromkeys(COLUMNS, "") | {"series": name, "source": source}
            row |= _converted(images, out, f"series-{name}.nii.gz")
        rows.append(row)
    if rows:
        with written_table(out / TABLE) as table:
            writer = csv.DictWriter(table, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    return rows


def _converted(images: Sequence[Image], out: Path, file: str) -> dict[str, Any]:
    """What a series' row says of it, whose volume is written, unless it is refused."""
    try:
        stack = read_stack(images)
    except Refused as error:
        (out / file).unlink(missing_ok=True)  # of files that were there before
        return {"reason": str(error)}
    write_whole(out / file, _nifti(stack))
    _, _, slices, frames = stack.array.shape
    sizes = slices, frames, *(round(v, 4) for v in (*stack.spacing_mm, stack.frame_s))
    return {"file": file, **dict(zip(SIZES, sizes, strict=True))}


def _known(table: Path) -> dict[str, dict[str, Any]]:
    """The rows that an earlier start left, by series."""
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows: list[dict[str, Any]] = [row for row in csv.DictReader(file) if set(row) == set(COLUMNS)]
    for row in rows:
        row |= {name: float(row[name]) if "." in row[name] else int(row[name]) for name in SIZES if row[name]}
    return {row["series"]: row for row in rows}


def _nifti(stack: Stack) -> bytes:
    still = stack.array.shape[3] == 1
    volume = nib.Nifti1Image(stack.array[..., 0] if still else stack.array, stack.affine)
    volume.header.set_xyzt_units("mm", "sec")
    if not still:
        volume.header.set_zooms((*stack.spacing_mm, stack.frame_s))
    return gzip.compress(volume.to_bytes(), 1, mtime=0)
