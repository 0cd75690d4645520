"""What `qcjax segment` does with each image: read, segment, judge, write; see `inference.cases`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from qcjax import qc
from qcjax.data.cine import write_label_frames
from qcjax.inference.cases import CaseStages, CaseStream
from qcjax.inference.entries import sha256, worst_status
from qcjax.runtime import jax_setup
from qcjax.runtime.cluster import Cluster, kept_open, spread
from qcjax.runtime.line_journal import Line
from qcjax.segmentation.inputs import Image, read_image_frames
from qcjax.segmentation.model import Model, files_of
from qcjax.segmentation.result import Prediction, Prepared
from qcjax.segmentation.settings import Limits
from qcjax.segmentation.table import error_line, frame_line, mask_path

SLICES = 64  # so many or more share the device's batches
GZIP_LEVEL = 1  # label maps are nearly as small as at 6, and written in half the time
Frames = tuple[Prepared, ...]  # of one image


class Stream:
    """Segments images with one model and writes their masks."""

    def __init__(self, model: Model, out: Path, limits: Limits) -> None:
        self.model, self.out, self.limits = model, out, limits
        stages = CaseStages(self._outputs, self._read, self._predict, self._judge, error_line)
        self.cases = CaseStream(stages, SLICES, _slices, ahead=1)

    def lines(self, images: Iterable[Image]) -> Iterator[Line]:
        """The images' lines in order."""
        return self.cases.lines(images)

    def spread_lines(self, images: Iterable[Image], cluster: Cluster, devices: int | None) -> Iterator[Line]:
        """The images' lines as they come from the workers of a cluster, which have the same folders.

        Args:
          devices: how many each worker uses; None: all that it has.
        """
        job = {
            "model": str(self.model.folder.absolute()),
            "model_sha256": sha256(self.model.folder, files_of(self.model.folder)),
            "out": str(self.out.absolute()),
            "limits": asdict(self.limits),
            "devices": devices,
        }
        cases = ({"name": i.name, "path": str(i.path), "refused": i.refused} for i in images)
        return spread(cluster, work, job, cases, lambda case, why: self.cases.lost(_image(case), why))

    def _outputs(self, name: str) -> list[Path]:
        return [self.out / mask_path(name)]

    def _read(self, image: Image) -> Frames:
        return tuple(self.model.prepare_frames(read_image_frames(image, self.model.orientation)))

    def _predict(self, images: Sequence[Frames]) -> list[list[Prediction]]:
        """The predictions of each image's frames."""
        found = iter(self.model.predict([frame for frames in images for frame in frames]))
        return [list(islice(found, len(frames))) for frames in images]

    def _judge(self, image: Image, frames: Frames, predictions: Sequence[Prediction]) -> Line:
        limits, lines, labels = self.limits, [], []
        results = self.model.results(frames, predictions, limits.coverage)
        for number, result in enumerate(results, start=1):
            score = result.score
            flags = qc.flags(
                score.pdc, score.phd, score.structures, limits.hd_limit_mm, limits.dc_limit, score.unit
            )
            labels.append(result.labels)
            accept = None if self.model.quality is None else limits.accept
            lines.append(frame_line(number if len(predictions) > 1 else None, result, flags, accept))
        write_label_frames(self.out / mask_path(image.name), labels, frames[0].volume, GZIP_LEVEL)
        worst = worst_status([line["status"] for line in lines])
        first = frames[0]
        return {
            "status": worst,
            "frames": lines,
            "networks": results[0].networks,
            "notes": list(first.volume.notes),
            "judged_at_mm": list(first.spacing_mm),  # another than the file's where that was lost
            "error": "",
            "retry": False,
        }


def work(job: Line, cases: Sequence[Line]) -> list[Line]:
    """What a worker of a cluster does: the lines of some images, by what `spread_lines` sends.

    Raises:
      FileNotFoundError: the worker doesn't see the model.
      ValueError: it sees another one, or has fewer devices.
    """
    return list(kept_open(job, _opened).lines([_image(case) for case in cases]))


def _opened(job: Line) -> Stream:
    jax_setup.prepare()
    model = Model.load(job["model"], job["devices"])
    if sha256(model.folder, files_of(model.folder)) != job["model_sha256"]:
        raise ValueError(
            f"{model.folder}: another model found by a worker, expected the same files everywhere"
        )
    return Stream(model, Path(job["out"]), Limits(**job["limits"]))


def _image(case: Line) -> Image:
    return Image(case["name"], Path(case["path"]), case["refused"])


def _slices(frames: Frames) -> int:
    return sum(len(frame.stack) for frame in frames)
