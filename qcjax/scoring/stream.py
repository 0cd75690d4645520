"""The stream of cases behind `scoring.score`: reading, rebuilding, judging and writing overlap, in bounded memory.

A mask that can't be scored, for whatever reason, becomes a line with its error, and the others go on.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from qcjax import qc
from qcjax.data.datasets.masks import Images, read_mask
from qcjax.data.findings import InvalidFile
from qcjax.data.mask_cohort import MaskCase
from qcjax.data.subject import Volume
from qcjax.data.write import write_labels
from qcjax.inference.monitor import Monitor, Prepared
from qcjax.labels import label_mapping
from qcjax.metrics.clinical import volume_ml
from qcjax.qc import contrast
from qcjax.qc.label_order import seems_swapped
from qcjax.scoring.table import Line, error_line, output_paths, score_line

GROUP = 8  # cases whose slices share the device's batches
GZIP_LEVEL = 1  # label maps are nearly as small as at 6, and written in half the time


@dataclass(frozen=True)
class Case:
    """A mask in flight; `mask` and `prepared` are None where it can't be used, for the reason in `line`."""

    file: MaskCase
    size: int
    mtime_ns: int
    seconds: float
    mask: Volume | None = None
    prepared: Prepared | None = None
    doubts: np.ndarray | None = None  # (k,) by its image, if there are images
    image_error: str = ""  # why there are none
    line: Line | None = None


class Stream:
    """Scores masks with one monitor and writes their reconstructions and inconsistency maps."""

    def __init__(
        self,
        monitor: Monitor,
        out: Path,
        labels: Mapping[str, int],
        hd_limit_mm: float,
        dc_limit: float,
        images: Images | None = None,
        doubt_limit: float = contrast.DOUBT_LIMIT,
    ) -> None:
        self.monitor, self.out, self.images = monitor, out, images
        self.limits, self.doubt_limit = (hd_limit_mm, dc_limit), doubt_limit
        self.mapping = label_mapping(monitor.structures, labels)
        # id of a structure -> value in the files
        self._values = np.zeros(1 + max(self.mapping.values()), np.min_scalar_type(max(self.mapping)))
        for value, label in self.mapping.items():
            self._values[label] = value

    def lines(self, files: Sequence[MaskCase]) -> Iterator[Line]:
        """The cases' lines in order; at most 2 (workers + GROUP) masks are in memory at a time."""
        workers = max(2, min(16, os.cpu_count() or 2))
        waiting = iter(files)
        reading: deque[Future[Case]] = deque()
        finishing: deque[Future[Line]] = deque()
        pool = ThreadPoolExecutor(workers)
        try:
            while True:
                for file in islice(waiting, workers + GROUP - len(reading)):
                    reading.append(pool.submit(self.read, file))
                if not reading:
                    break
                group = [reading.popleft().result() for _ in range(min(GROUP, len(reading)))]
                for case, rebuilt, seconds in self._rebuilt(group):
                    finishing.append(pool.submit(self.finish, case, rebuilt, seconds))
                while len(finishing) > workers:
                    yield finishing.popleft().result()
            while finishing:
                yield finishing.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def read(self, file: MaskCase) -> Case:
        """The host's part before the autoencoder: a mask from its file, prepared."""
        started, size, mtime_ns = time.monotonic(), -1, -1
        try:
            stat = file.path.stat()
            size, mtime_ns = stat.st_size, stat.st_mtime_ns
            output_paths(file.name)
            mask = read_mask(file.path, self.mapping, self.monitor.orientation)
            prepared = self.monitor.prepare(mask.array, mask.spacing_mm)
            doubts, image_error = self._doubts(mask, file.name)
            seconds = time.monotonic() - started
            return Case(file, size, mtime_ns, seconds, mask, prepared, doubts, image_error)
        except Exception as error:  # whatever is wrong with one mask, the others go on
            return Case(file, size, mtime_ns, time.monotonic() - started, line=_failed(error))

    def _doubts(self, mask: Volume, name: str) -> tuple[np.ndarray | None, str]:
        """How little its image shows each structure, or why that isn't known."""
        if self.images is None:
            return None, ""
        try:
            image = self.images.read(mask, name)
        except Exception as error:  # the mask itself can be judged all the same
            return None, _in_words(error)
        first = image.array.flat[0]
        if not np.any(image.array != first):
            return None, f"found a constant image (every voxel is {first:g}); expected intensities that vary"
        return contrast.doubts(image.array, mask.array, self.monitor.structures), ""

    def _rebuilt(self, group: Sequence[Case]) -> Iterator[tuple[Case, np.ndarray | Line | None, float]]:
        """Each case with its reconstruction, or with the line that says why there is none, and its seconds."""
        started = time.monotonic()
        usable = [case for case in group if case.prepared is not None]
        found = self._reconstruct([case.prepared for case in usable if case.prepared is not None])
        rebuilt = dict(zip((case.file.path for case in usable), found, strict=True))
        share = (time.monotonic() - started) / max(1, len(usable))
        for case in group:
            yield case, rebuilt.get(case.file.path), share if case.file.path in rebuilt else 0.0

    def _reconstruct(self, prepared: Sequence[Prepared]) -> list[np.ndarray | Line]:
        if not prepared:
            return []
        try:
            return list(self.monitor.reconstruct(prepared))
        except Exception as error:
            # of a group one at a time: the fault of one is no fault of the others
            if len(prepared) == 1:
                return [_failed(error)]
            return [rebuilt for one in prepared for rebuilt in self._reconstruct([one])]

    def finish(self, case: Case, rebuilt: np.ndarray | Line | None, seconds: float) -> Line:
        """The host's part after it: judge a case and write its two volumes, or take away what an earlier run left.

        Args:
          rebuilt: (slices, size, size) uint8, or the line of the error that came instead; None where there is nothing.
          seconds: its share of the autoencoder's time.
        """
        started = time.monotonic()
        line = rebuilt if isinstance(rebuilt, dict) else case.line
        if line is None:
            try:
                line = self._judge(case, np.asarray(rebuilt))
            except Exception as error:
                line = _failed(error)
        if line["status"] == "error":
            self._remove_outputs(case.file.name)
        return {
            "name": case.file.name,
            "path": case_key(case.file),
            "size": case.size,
            "mtime_ns": case.mtime_ns,
            "seconds": round(case.seconds + seconds + time.monotonic() - started, 4),
            **line,
        }

    def _judge(self, case: Case, rebuilt: np.ndarray) -> Line:
        assert case.mask is not None and case.prepared is not None
        score = self.monitor.assess(case.prepared, rebuilt)
        flags = qc.flags(score.pdc, score.phd_mm, score.structures, *self.limits, score.unit)
        if case.doubts is not None:
            flags += contrast.flags(case.doubts, score.structures, self.doubt_limit)
        differs = qc.inconsistency_map(case.mask.array, score.reconstruction)
        outputs = self._values[score.reconstruction], differs.astype(np.uint8)
        for path, volume in zip(output_paths(case.file.name), outputs, strict=True):
            write_labels(self.out / path, volume, case.mask, GZIP_LEVEL)
        spacing, ids = case.mask.spacing_mm, [s.id for s in score.structures]
        volumes_ml = [volume_ml(case.mask.array == i, spacing) for i in ids]
        about = case.doubts, case.image_error, case.mask.axes, case.mask.notes
        line = score_line(score, volumes_ml, flags, *about)
        return line | {"seems_swapped": seems_swapped(case.mask.array, score.structures)}

    def _remove_outputs(self, name: str) -> None:
        with suppress(OSError, ValueError):  # a name that is refused has none
            for path in output_paths(name):
                (self.out / path).unlink(missing_ok=True)


def case_key(file: MaskCase) -> str:
    """What names a mask in the journal."""
    return str(file.path)


def _failed(error: Exception) -> Line:
    """The error in words; its traceback would keep the mask alive. An invalid file is no better the next time."""
    return error_line(_in_words(error), retry=not isinstance(error, InvalidFile))


def _in_words(error: Exception) -> str:
    if isinstance(error, InvalidFile):
        return f"found {error.found}; expected {error.expected}"
    return f"{type(error).__name__}: {error}"
