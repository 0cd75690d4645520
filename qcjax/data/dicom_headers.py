"""Headers of DICOM images: one a file, or several, each with its own place (enhanced DICOM)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

MAGIC = b"DICM"  # after 128 bytes


@dataclass(frozen=True)
class Image:
    """One image's header."""

    path: Path
    study: str
    series: str
    description: str
    place_mm: Float[np.ndarray, " 3"]  # of the first pixel, as DICOM has it: to the left, back and head
    directions: Float[np.ndarray, "3 2"]  # unit vectors along columns and rows of the picture: x and y
    pixel_mm: tuple[float, float]  # x, y
    shape: tuple[int, int]  # x, y
    time_ms: float | None  # after the R wave
    many: int  # images in the file that have no place of their own
    thickness_mm: float | None  # how far slices lie apart, or how thick they are
    number: int = 0  # in the file

    @property
    def depth_mm(self) -> float:
        """Where it lies along its normal."""
        return float(np.cross(*self.directions.T) @ self.place_mm)

    @property
    def plane(self) -> tuple[Any, ...]:
        """What images of one stack share."""
        return self.study, self.description, self.shape, self.pixel_mm, tuple(self.directions.round(3).flat)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM's do; False for one that can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == MAGIC
    except OSError:
        return False


def read_headers(path: Path) -> list[Image]:
    """The images of a file; none of one that is no DICOM, or has no image with a place.

    Several images without places of their own are one `Image` that says how many.

    Raises ValueError where pydicom isn't installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ValueError(f"{error}; expected the extra: pip install 'qcjax[dicom]'") from error
    try:
        tags = pydicom.dcmread(path, stop_before_pixels=True)
        frames = tags.get("PerFrameFunctionalGroupsSequence")
        if frames is None:
            return [_classic(path, tags)]
        shared = tags.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
        return [_of_frame(path, tags, number, (frame, shared[0])) for number, frame in enumerate(frames)]
    except (
        pydicom.errors.InvalidDicomError,
        AttributeError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        OSError,
    ):
        return []


def _classic(path: Path, tags: Any) -> Image:
    many = int(tags.get("NumberOfFrames", 1))
    placeless = many > 1 and "ImageOrientationPatient" not in tags
    orientation = [1, 0, 0, 0, 1, 0] if placeless else tags.ImageOrientationPatient
    spacing = [1, 1] if placeless else tags.PixelSpacing
    place = [0, 0, 0] if placeless else tags.ImagePositionPatient
    thickness = tags.get("SpacingBetweenSlices") or tags.get("SliceThickness")
    time = tags.get("TriggerTime", tags.get("TemporalPositionIdentifier"))
    return _image(path, tags, (orientation, place, spacing, thickness, time), many)


def _of_frame(path: Path, tags: Any, number: int, groups: tuple[Any, Any]) -> Image:
    """A frame of enhanced DICOM, by its own functional groups and those of all frames."""

    def group(name: str) -> Any:
        return next((g[name].value[0] for g in groups if name in g and g[name].value), None)

    measures, times, content = (
        group(name)
        for name in ("PixelMeasuresSequence", "CardiacSynchronizationSequence", "FrameContentSequence")
    )
    time = None if times is None else times.get("NominalCardiacTriggerDelayTime")
    if time is None and content is not None:
        time = content.get("TemporalPositionIndex")
    thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
    found = (
        group("PlaneOrientationSequence").ImageOrientationPatient,
        group("PlanePositionSequence").ImagePositionPatient,
        measures.PixelSpacing,
        thickness,
        time,
    )
    return _image(path, tags, found, 1, number)


def _image(path: Path, tags: Any, found: tuple[Any, ...], many: int, number: int = 0) -> Image:
    orientation, place, (rows_mm, columns_mm), thickness, time = found
    return Image(
        path,
        str(tags.get("StudyInstanceUID", "")),
        str(tags.SeriesInstanceUID),
        str(tags.get("SeriesDescription", "")),
        np.array(place, float),
        np.array(orientation, float).reshape(2, 3).T,
        (float(columns_mm), float(rows_mm)),
        (int(tags.Columns), int(tags.Rows)),
        None if time is None else float(time),
        many,
        None if not thickness else float(thickness),
        number,
    )
