"""A trained model: images in, masks out, each with what its monitor makes of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qcjax.data.batches import in_batches
from qcjax.data.cine import read_frames
from qcjax.data.preprocess import plan, prepare_image, restore_labels
from qcjax.data.subject import Volume
from qcjax.inference.monitor import Monitor, Score
from qcjax.inference.signals import signals_of
from qcjax.labels import Structure, label_mapping
from qcjax.metrics.clinical import volume_ml
from qcjax.models.cpu.inference import in_parts
from qcjax.qc.components import keep_largest
from qcjax.qc.confidence import ConfidenceSums, confidence_sums
from qcjax.qc.gate import gate
from qcjax.quality.model import COVERAGE, Estimate, QualityModel
from qcjax.quality.model import FILE as QUALITY
from qcjax.runtime.devices import REPLICATED, SHARDED, Devices, half
from qcjax.segmentation.lost_spacing import likely_pixel_mm, looks_lost
from qcjax.segmentation.result import Measures, Prediction, Prepared, Result
from qcjax.segmentation.turns import judge_turned
from qcjax.segmentation.weights import opinions, read_weights
from qcjax.typing import Array, Float, Integer, Shaped, UInt8, Variables

DESCRIPTION, WEIGHTS, MONITOR = "model.json", "weights.safetensors", "monitor"
REFINED = "refined.safetensors"  # the same networks after refinement, of a model that `qcjax refine` left
BUNDLED = Path(__file__).parent / "bundled"
FORMAT = 1  # of model.json
BATCH = 8  # slices on all devices at once


class Model:
    """Segmenters whose mean probabilities make a mask, and the monitor that judges it."""

    def __init__(
        self,
        folder: Path,
        description: Mapping[str, Any],
        weights: Sequence[Variables],
        monitor: Monitor,
        devices: Devices,
        quality: QualityModel | None = None,
        refined: Sequence[Variables] = (),
    ) -> None:
        """Use `load`."""
        self.folder, self.description, self.monitor, self.devices = folder, description, monitor, devices
        self.quality = quality
        self.structures: tuple[Structure, ...] = monitor.structures
        self.labels: dict[str, int] = description["labels"]
        self.size, self.spacing_mm = int(description["size"]), float(description["spacing_mm"])
        self.single = tuple(s for s in self.structures if s.key not in description["in_pieces"])
        self.orientation = monitor.orientation  # what the axes of files are brought to
        direction = description["rv_direction"]  # of the training masks
        self.direction = None if direction is None else complex(*direction)
        self.batch = devices.batch_size(BATCH)
        self._values = np.zeros(1 + len(self.structures), np.min_scalar_type(max(self.labels.values())))
        for value, label in label_mapping(self.structures, self.labels).items():
            self._values[label] = value
        self._variables = devices.replicate(tuple(weights))
        self._refined = devices.replicate(tuple(refined)) if refined else None

        def segment(variables: tuple[Variables, ...], image: Array) -> Any:
            def mean(x: Array) -> Any:
                each = jnp.stack(opinions(description, variables, x), axis=1)
                return each.mean(1).astype(half()), confidence_sums(each)

            return in_parts(mean, image)

        self._segment = devices.compile(segment, (REPLICATED, SHARDED))

    @classmethod
    def load(cls, folder: Path | str | None = None, devices: int | None = None) -> "Model":
        """The model in a folder, or without one the model that comes with qcjax.

        Raises:
          FileNotFoundError: the folder holds none.
          ValueError: one that can't be used (says why), or more devices than there are.
        """
        folder = BUNDLED if folder is None else Path(folder)
        path = folder / DESCRIPTION
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder}: found no {DESCRIPTION}; expected the folder of a trained model"
            )
        placed = Devices(devices)
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            if description.get("format") != FORMAT:
                raise ValueError(f"format {description.get('format')} found, expected {FORMAT}")
            weights = read_weights(folder / WEIGHTS, description)
            refined = read_weights(folder / REFINED, description) if "refined" in description else ()
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ValueError(
                f"{folder}: {error!s}; expected a trained model's {DESCRIPTION} and {WEIGHTS}"
            ) from error
        monitor = Monitor.load(folder / MONITOR, devices)
        if [s.key for s in monitor.structures] != list(description["labels"]):
            raise ValueError(
                f"{folder}: a monitor of {', '.join(s.key for s in monitor.structures)} found, expected one of "
                f"{', '.join(description['labels'])}"
            )
        quality = QualityModel.load(folder)
        if refined and quality is None:
            raise ValueError(
                f"{folder}: refined networks without {QUALITY} found, expected it: predicted quality decides between "
                "them and their source"
            )
        return cls(folder, description, weights, monitor, placed, quality, refined)

    @property
    def bound(self) -> float | None:
        """The gain of predicted Dice above which a refined mask is taken; None of a model without refined networks."""
        return float(self.description["refined"]["gain"]) if self._refined else None

    def segment(self, image: Shaped[np.ndarray, "x y slices"], spacing_mm: Sequence[float]) -> Result:
        """The mask of one image, with what the monitor makes of it.

        Args:
          image: (x, y, slices), intensities of any scale. The networks take axes that are flipped or swapped in plane,
            but the monitor judges best what lies as the files that it learnt from, `orientation`.
          spacing_mm: of its voxels, in the order of the axes.

        Raises:
          ValueError: another number of axes, intensities that aren't finite or all alike, or a spacing that isn't
            positive.
        """
        return self.segment_volumes([_volume(image, spacing_mm)])[0]

    def segment_file(self, path: Path | str) -> list[Result]:
        """The mask of an image's file, or of each frame of a cine's, in their order.

        Raises:
          FileNotFoundError: no such file.
          InvalidFile: one that can't be read.
          ValueError: an image of one intensity.
        """
        return self.segment_volumes(read_frames(Path(path), self.orientation))

    def segment_volumes(self, volumes: Sequence[Volume], coverage: float = COVERAGE) -> list[Result]:
        """The masks of an image's frames, slices of all of them in common batches; errors as of `prepare`.

        Args:
          coverage: the probability with which each bound of the predicted quality holds.
        """
        prepared = self.prepare_frames(volumes)
        return self.results(prepared, self.predict(prepared), coverage)

    def prepare_frames(self, volumes: Sequence[Volume]) -> list[Prepared]:
        """The frames of an image for the networks, all at one pixel size; errors as of `prepare`.

        Where the pixel size was lost on the way (`lost_spacing`), it is the likeliest for the first frame.
        """
        if not looks_lost(volumes[0].spacing_mm):
            return [self.prepare(volume) for volume in volumes]
        self.prepare(volumes[0])  # one of zeros has no likely size
        pixel_mm = likely_pixel_mm(volumes[0], self._looked_at, self.structures)
        note = f"a pixel size of 1 mm seems to have been lost: segmented as if it were {pixel_mm:g} mm"
        noted = [replace(volume, notes=(*volume.notes, note)) for volume in volumes]
        return [self.prepare(volume, pixel_mm) for volume in noted]

    def _looked_at(self, volume: Volume) -> np.ndarray:
        return self._predict(self._variables, [self.prepare(volume)])[0].probabilities

    def prepare(self, volume: Volume, pixel_mm: float | None = None) -> Prepared:
        """The host's part before the networks.

        Args:
          pixel_mm: what its pixels are taken for; None: for what it says.

        Raises:
          ValueError: an image of zeros, or of one intensity.
        """
        spacing = volume.spacing_mm if pixel_mm is None else (pixel_mm, pixel_mm, volume.spacing_mm[2])
        geometry = plan(replace(volume, spacing_mm=spacing), (self.spacing_mm, self.spacing_mm), self.size)
        return Prepared(volume, geometry, prepare_image(volume, geometry), spacing)

    def predict(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """The networks' part, of each image."""
        found = self._predict(self._variables, prepared)
        if self._refined is None:
            return found
        others = self._predict(self._refined, prepared)
        return [one._replace(refined=other) for one, other in zip(found, others, strict=True)]

    def _predict(self, variables: Any, prepared: Sequence[Prepared]) -> list[Prediction]:
        if not prepared:
            return []
        slices = np.concatenate([p.stack for p in prepared])
        waiting = [self._segment(variables, self.devices.shard(x)) for x in self._batches(slices)]
        found = [jax.tree.map(self.devices.gather, x) for x in waiting]
        flat, sums = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(slices)], *found)
        flat = flat.astype(np.float16, copy=False)
        rows = np.cumsum([0, *(len(p.stack) for p in prepared)])
        ranges = [slice(a, b) for a, b in zip(rows[:-1], rows[1:], strict=True)]
        return [Prediction(flat[r], ConfidenceSums(*(x[r].swapaxes(0, 1) for x in sums))) for r in ranges]

    def _batches(self, slices: np.ndarray) -> Iterator[np.ndarray]:
        for indices in in_batches(np.arange(len(slices)), self.batch).indices:
            yield slices[indices][..., None]

    def restore(
        self, prepared: Prepared, probabilities: Float[np.ndarray, "slices size size k"]
    ) -> UInt8[np.ndarray, "x y slices"]:
        """The host's part after the networks: ids of structures on the image's own grid, (x, y, slices) uint8.

        Of every structure that isn't in pieces, only the largest one is kept.
        """
        mask = restore_labels(probabilities, prepared.geometry)
        return keep_largest(mask, self.single)

    def judge(self, mask: Integer[np.ndarray, "x y slices"], spacing_mm: Sequence[float]) -> Score:
        """What the monitor makes of a mask, turned to how its training masks lie.

        Args:
          mask: (x, y, slices), ids of structures.
        """
        return judge_turned(self.monitor, mask, spacing_mm, self.direction)

    def results(
        self, prepared: Sequence[Prepared], found: Sequence[Prediction], coverage: float = COVERAGE
    ) -> list[Result]:
        """What is known of the masks of an image's frames; of a refined model, whichever masks the gate takes.

        All frames have masks of the same networks: those of the source, or the refined ones where the mean predicted
        Dice over the frames gains enough (`qc.gate`).
        """
        source = [self.result(p, x, coverage) for p, x in zip(prepared, found, strict=True)]
        others = [x.refined for x in found if x.refined is not None]
        if self.bound is None or not others:
            return source
        refined = [self.result(p, x, coverage) for p, x in zip(prepared, others, strict=True)]
        accepted = gate(self.predicted(source), self.predicted(refined), self.bound).accepted.all()
        chosen, networks = (refined, "refined") if accepted else (source, "source")
        return [replace(result, networks=networks) for result in chosen]

    def predicted(self, frames: Sequence[Result]) -> Float[np.ndarray, "1 k"]:
        """What the gate compares: predicted Dice of each structure, mean over an image's frames; (1, k).

        0 of a structure that a mask lacks and shouldn't, NaN where nothing is known.
        """
        dice = np.array([[r.measures[s.key].predicted.dice for s in self.structures] for r in frames])
        lost = [
            [r.measures[s.key].volume_ml == 0 and s not in self.monitor.optional for s in self.structures]
            for r in frames
        ]
        return np.where(lost, 0.0, dice).mean(0, keepdims=True)

    def result(self, prepared: Prepared, found: Prediction, coverage: float = COVERAGE) -> Result:
        """What is known of an image's mask without its truth, whatever refined networks make of it."""
        volume, mask = prepared.volume, self.restore(prepared, found.probabilities)
        score = self.judge(mask, prepared.spacing_mm)
        predicted = self._estimates(prepared, mask, score, found.sums, coverage)
        measures = {}
        worst = score.worst_slice
        by_network = self._volumes_ml(prepared, found.sums)
        for i, structure in enumerate(self.structures):
            own = [flag for flag in score.flags if flag.structure == structure.key]
            kinds = {flag.kind for flag in own}
            measures[structure.key] = Measures(
                volume_ml(mask == structure.id, volume.spacing_mm),
                float(score.pdc[i]),
                float(score.phd[i]),
                int(worst[i]) if worst[i] >= 0 else None,
                "erroneous" if "erroneous" in kinds else "suspicious" if kinds else "",
                "; ".join(flag.reason for flag in own),
                predicted[structure.key],
                tuple(by_network[:, i].tolist()),
            )
        return Result(self._values[mask], measures, score.flags, score, volume, lambda: found.probabilities)

    def _volumes_ml(self, prepared: Prepared, sums: ConfidenceSums) -> np.ndarray:
        """(networks, k): of each network's own mask, by the spacing that the file tells."""
        told, taken = prepared.volume.spacing_mm, prepared.spacing_mm
        pixel_mm2 = self.spacing_mm**2 * told[0] * told[1] / (taken[0] * taken[1])
        pixels = np.asarray(sums.inside, np.float64).sum(1)
        return pixels * pixel_mm2 * told[2] / 1000

    def _estimates(
        self, prepared: Prepared, mask: np.ndarray, score: Score, sums: ConfidenceSums, coverage: float
    ) -> dict[str, Estimate]:
        if self.quality is None:
            return {s.key: Estimate() for s in self.structures}
        signals = signals_of(mask, prepared.spacing_mm, score, sums)
        absent = [not (mask == s.id).any() for s in self.structures]
        return self.quality.estimates(signals, absent, "segmented", coverage)


def files_of(folder: Path) -> list[str]:
    """The files of a model that decide about its results; not every model predicts quality, or is refined."""
    return [DESCRIPTION, WEIGHTS, *(name for name in (QUALITY, REFINED) if (folder / name).is_file())]


def _volume(image: np.ndarray, spacing_mm: Sequence[float]) -> Volume:
    image = np.asarray(image)
    if image.ndim != 3 or not (np.issubdtype(image.dtype, np.number) or image.dtype == np.bool_):
        raise ValueError(
            f"image of shape {image.shape} and type {image.dtype} found, expected numbers (x, y, slices)"
        )
    if not np.isfinite(image).all():
        raise ValueError("image with NaN or infinite intensities found, expected finite ones")
    spacing = tuple(float(s) for s in spacing_mm)
    if len(spacing) != 3 or not all(0 < s < np.inf for s in spacing):
        raise ValueError(f"spacing {tuple(spacing_mm)} found, expected three positive lengths in mm")
    affine = np.diag([*spacing, 1.0])
    return Volume(image.astype(np.float32), (spacing[0], spacing[1], spacing[2]), affine, Path("image"))
