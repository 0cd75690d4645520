"""The stream of images behind `qcjax segment`: reading, segmenting, judging and writing overlap, in bounded memory.

An image that can't be segmented, for whatever reason, becomes a line with its error, and the others go on.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcjax import qc
from qcjax.data.cine import read_frames, write_label_frames
from qcjax.data.findings import InvalidFile
from qcjax.runtime.pipeline import in_stages
from qcjax.segmentation.inputs import Image
from qcjax.segmentation.model import Model, Prediction, Prepared
from qcjax.segmentation.settings import Limits
from qcjax.segmentation.table import Line, error_line, frame_line, mask_path

SLICES = 64  # so many or more share the device's batches
GZIP_LEVEL = 1  # label maps are nearly as small as at 6, and written in half the time


@dataclass(frozen=True)
class Case:
    """An image in flight; `frames` is empty where it can't be used, for the reason in `line`."""

    image: Image
    size: int
    mtime_ns: int
    seconds: float
    frames: tuple[Prepared, ...] = ()
    line: Line | None = None

    @property
    def slices(self) -> int:
        """How many slices all frames have, at least 1."""
        return max(1, sum(len(frame.stack) for frame in self.frames))


class Stream:
    """Segments images with one model and writes their masks."""

    def __init__(self, model: Model, out: Path, limits: Limits) -> None:
        self.model, self.out, self.limits = model, out, limits

    def lines(self, images: Iterable[Image]) -> Iterator[Line]:
        """The images' lines in order."""
        return in_stages(images, self.read, self.segmented, self.finish, SLICES, lambda case: case.slices)

    def read(self, image: Image) -> Case:
        """The host's part before the networks: an image from its file, prepared."""
        started, size, mtime_ns = time.monotonic(), -1, -1
        try:
            stat = image.path.stat()
            size, mtime_ns = stat.st_size, stat.st_mtime_ns
            mask_path(image.name)
            if image.refused:
                raise InvalidFile(image.path, *image.refused.split(" found, expected ", 1))
            volumes = read_frames(image.path, self.model.orientation)
            frames = tuple(self.model.prepare_frames(volumes))
            return Case(image, size, mtime_ns, time.monotonic() - started, frames)
        except Exception as error:  # whatever is wrong with one image, the others go on
            return Case(image, size, mtime_ns, time.monotonic() - started, line=_failed(error))

    def segmented(self, group: Sequence[Case]) -> Iterator[tuple[Case, tuple[Any, float]]]:
        """Each case with its frames' predictions, or the line that says why there are none; and its seconds."""
        started = time.monotonic()
        usable = [case for case in group if case.frames]
        found = self._predicted(usable)
        total = sum(case.slices for case in usable)
        seconds = (time.monotonic() - started) / max(1, total)
        for case in group:
            yield case, (found.get(case.image.name), seconds * case.slices if case.frames else 0.0)

    def _predicted(self, cases: Sequence[Case]) -> dict[str, list[Prediction] | Line]:
        if not cases:
            return {}
        try:
            flat = self.model.predict([frame for case in cases for frame in case.frames])
        except Exception as error:
            # of a group one at a time: the fault of one is no fault of the others
            if len(cases) == 1:
                return {cases[0].image.name: _failed(error)}
            return {k: v for case in cases for k, v in self._predicted([case]).items()}
        found: dict[str, list[Prediction] | Line] = {}
        first = 0
        for case in cases:
            found[case.image.name] = flat[first : first + len(case.frames)]
            first += len(case.frames)
        return found

    def finish(self, case: Case, found: tuple[Any, float]) -> Line:
        """The host's part after them: judge an image's masks and write them, or take away what an earlier run left."""
        started = time.monotonic()
        predictions, seconds = found
        line = predictions if isinstance(predictions, dict) else case.line
        if line is None:
            try:
                line = self._judged(case, predictions)
            except Exception as error:
                line = _failed(error)
        if line["status"] == "error":
            with suppress(OSError, ValueError):  # a name that is refused has none
                (self.out / mask_path(case.image.name)).unlink(missing_ok=True)
        return {
            "name": case.image.name,
            "path": str(case.image.path),
            "size": case.size,
            "mtime_ns": case.mtime_ns,
            "seconds": round(case.seconds + seconds + time.monotonic() - started, 4),
            **line,
        }

    def _judged(self, case: Case, predictions: Sequence[Prediction]) -> Line:
        limits, lines, labels = self.limits, [], []
        for number, (frame, found) in enumerate(zip(case.frames, predictions, strict=True), start=1):
            result = self.model.result(frame, found, limits.coverage)
            score = result.score
            flags = qc.flags(
                score.pdc, score.phd_mm, score.structures, limits.hd_limit_mm, limits.dc_limit, score.unit
            )
            labels.append(result.labels)
            accept = None if self.model.quality is None else limits.accept
            lines.append(frame_line(number if len(predictions) > 1 else None, result, flags, accept))
        write_label_frames(self.out / mask_path(case.image.name), labels, case.frames[0].volume, GZIP_LEVEL)
        statuses = [line["status"] for line in lines]
        worst = next((s for s in ("erroneous", "suspicious") if s in statuses), "")
        notes = list(case.frames[0].volume.notes)
        return {"status": worst, "frames": lines, "notes": notes, "error": "", "retry": False}


def _failed(error: Exception) -> Line:
    """The error in words; its traceback would keep the image alive. An invalid file is no better the next time."""
    if isinstance(error, InvalidFile):
        return error_line(f"found {error.found}; expected {error.expected}", retry=False)
    return error_line(f"{type(error).__name__}: {error}", retry=True)
