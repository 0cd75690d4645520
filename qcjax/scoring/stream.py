"""What `scoring.score` does with each mask: read, rebuild, judge, write; see `inference.cases`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qcjax import qc
from qcjax.data.datasets.masks import Images, read_mask
from qcjax.data.mask_cohort import MaskCase
from qcjax.data.subject import Volume
from qcjax.data.write import write_labels
from qcjax.inference.cases import CaseStages, CaseStream, in_words
from qcjax.inference.entries import sha256
from qcjax.inference.monitor import DESCRIPTION, WEIGHTS, Monitor, Prepared, Score
from qcjax.inference.signals import signals_of
from qcjax.labels import label_mapping
from qcjax.metrics.clinical import volume_ml
from qcjax.qc import contrast
from qcjax.qc.label_order import seems_swapped
from qcjax.quality.model import Expectation, QualityModel
from qcjax.runtime import jax_setup
from qcjax.runtime.cluster import Cluster, kept_open, spread
from qcjax.runtime.line_journal import Line
from qcjax.scoring.table import error_line, output_paths, score_line

GROUP = 8  # cases whose slices share the device's batches
GZIP_LEVEL = 1  # label maps are nearly as small as at 6, and written in half the time


class Case(NamedTuple):
    """A mask in flight."""

    mask: Volume
    prepared: Prepared
    doubts: np.ndarray | None  # (k,) by its image, if there are images
    image_error: str  # why there are none


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
        expectation: Expectation | None = None,
    ) -> None:
        self.expectation = expectation
        self.monitor, self.out, self.images = monitor, out, images
        self.limits, self.doubt_limit = (hd_limit_mm, dc_limit), doubt_limit
        self.labels, self.mapping = dict(labels), label_mapping(monitor.structures, labels)
        # id of a structure -> value in the files
        self._values = np.zeros(1 + max(self.mapping.values()), np.min_scalar_type(max(self.mapping)))
        for value, label in self.mapping.items():
            self._values[label] = value
        stages = CaseStages(self._outputs, self._read, self._reconstruct, self._judge, error_line)
        self.cases = CaseStream(stages, GROUP, lambda case: 1, ahead=GROUP)

    def lines(self, files: Iterable[MaskCase]) -> Iterator[Line]:
        """The cases' lines in order."""
        return self.cases.lines(files)

    def spread_lines(
        self, files: Iterable[MaskCase], cluster: Cluster, devices: int | None
    ) -> Iterator[Line]:
        """The cases' lines as they come from the workers of a cluster, which have the same folders.

        Args:
          devices: how many each worker uses; None: all that it has.
        """
        folder, expected = self.monitor.run.absolute(), self.expectation
        job = {
            "monitor": str(folder),
            "monitor_sha256": monitor_sha256(folder),
            "out": str(self.out.absolute()),
            "labels": self.labels,
            "limits": [*self.limits, self.doubt_limit],
            "images": None if self.images is None else str(self.images.folder.absolute()),
            # a monitor that belongs to a model lies in its folder
            "model": None if expected is None else str(folder.parent),
            "expected": {} if expected is None else expected.settings,
            "devices": devices,
        }
        cases = ({"name": f.name, "group": f.group, "path": str(f.path)} for f in files)
        return spread(cluster, work, job, cases, lambda case, why: self.cases.lost(_file(case), why))

    def _outputs(self, name: str) -> list[Path]:
        return [self.out / path for path in output_paths(name)]

    def _read(self, file: MaskCase) -> Case:
        image = self.images.find(file.name, file.path) if self.images else None
        mask = read_mask(file.path, self.mapping, self.monitor.orientation, image)
        prepared = self.monitor.prepare(mask.array, mask.spacing_mm)
        return Case(mask, prepared, *self._doubts(mask, file.name))

    def _reconstruct(self, cases: Sequence[Case]) -> list[np.ndarray]:
        return list(self.monitor.reconstruct([case.prepared for case in cases]))

    def _doubts(self, mask: Volume, name: str) -> tuple[np.ndarray | None, str]:
        """How little its image shows each structure, or why that isn't known."""
        if self.images is None:
            return None, ""
        try:
            image = self.images.read(mask, name)
        except Exception as error:  # the mask itself can be judged all the same
            return None, in_words(error)
        first = image.array.flat[0]
        if not np.any(image.array != first):
            return None, f"found a constant image (every voxel is {first:g}); expected intensities that vary"
        return contrast.doubts(image.array, mask.array, self.monitor.structures), ""

    def _judge(self, file: MaskCase, case: Case, rebuilt: np.ndarray) -> Line:
        """Of a reconstruction (slices, size, size) uint8; its two volumes are written."""
        score = self.monitor.assess(case.prepared, rebuilt)
        flags = qc.flags(score.pdc, score.phd, score.structures, *self.limits, score.unit)
        if case.doubts is not None:
            flags += contrast.flags(case.doubts, score.structures, self.doubt_limit)
        differs = qc.inconsistency_map(case.mask.array, score.reconstruction)
        outputs = self._values[score.reconstruction], differs.astype(np.uint8)
        for path, volume in zip(self._outputs(file.name), outputs, strict=True):
            write_labels(path, volume, case.mask, GZIP_LEVEL)
        spacing, ids = case.mask.spacing_mm, [s.id for s in score.structures]
        volumes_ml = [volume_ml(case.mask.array == i, spacing) for i in ids]
        about = case.doubts, case.image_error, case.mask.axes, case.mask.notes
        line = score_line(score, volumes_ml, flags, *about, self._predicted(case.mask, score, flags))
        return line | {"seems_swapped": seems_swapped(case.mask.array, score.structures)}

    def _predicted(self, mask: Volume, score: Score, flags: Sequence[qc.Flag]) -> dict[str, Line] | None:
        if self.expectation is None:
            return None
        erroneous = {flag.structure for flag in flags if flag.kind == "erroneous"}
        absent = [not (mask.array == s.id).any() for s in score.structures]
        lost = [a and s.key in erroneous for a, s in zip(absent, score.structures, strict=True)]
        return self.expectation.columns(signals_of(mask.array, mask.spacing_mm, score), absent, lost)


def work(job: Line, cases: Sequence[Line]) -> list[Line]:
    """What a worker of a cluster does: the lines of some masks, by what `spread_lines` sends.

    Raises:
      FileNotFoundError: the worker doesn't see a folder.
      ValueError: it sees another monitor or model, or has fewer devices.
    """
    return list(kept_open(job, _opened).lines([_file(case) for case in cases]))


def _opened(job: Line) -> Stream:
    jax_setup.prepare()
    monitor, expectation = Monitor.load(Path(job["monitor"]), job["devices"]), None
    if job["model"] is not None:
        quality = QualityModel.load(Path(job["model"]))
        if quality is not None:
            expectation = Expectation(quality, job["expected"]["accept"], job["expected"]["coverage"])
    if (
        monitor_sha256(monitor.run) != job["monitor_sha256"]
        or (expectation.settings if expectation else {}) != job["expected"]
    ):
        raise ValueError(
            f"{monitor.run}: another monitor found by a worker, expected the same files everywhere"
        )
    images = None if job["images"] is None else Images(Path(job["images"]))
    hd, dc, doubt = job["limits"]
    return Stream(monitor, Path(job["out"]), job["labels"], hd, dc, images, doubt, expectation)


def _file(case: Line) -> MaskCase:
    return MaskCase(case["name"], case["group"], Path(case["path"]))


def monitor_sha256(run: Path) -> str:
    """The SHA-256 of a monitor's files."""
    return sha256(run, (DESCRIPTION, WEIGHTS))


def case_key(file: MaskCase) -> str:
    """What names a mask in the journal."""
    return str(file.path)
