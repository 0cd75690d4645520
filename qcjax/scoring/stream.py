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
from qcjax.inference.monitor import Monitor, Prepared, Score
from qcjax.inference.signals import signals_of
from qcjax.labels import label_mapping
from qcjax.metrics.clinical import volume_ml
from qcjax.qc import contrast
from qcjax.qc.label_order import seems_swapped
from qcjax.quality.model import Expectation
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
        self.mapping = label_mapping(monitor.structures, labels)
        # id of a structure -> value in the files
        self._values = np.zeros(1 + max(self.mapping.values()), np.min_scalar_type(max(self.mapping)))
        for value, label in self.mapping.items():
            self._values[label] = value

    def lines(self, files: Iterable[MaskCase]) -> Iterator[Line]:
        """The cases' lines in order."""
        stages = CaseStages(self._outputs, self._read, self._reconstruct, self._judge, error_line)
        return CaseStream(stages, GROUP, lambda case: 1, ahead=GROUP).lines(files)

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


def case_key(file: MaskCase) -> str:
    """What names a mask in the journal."""
    return str(file.path)
