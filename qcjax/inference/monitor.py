"""The monitor: judges masks without ground truth by how well an autoencoder of plausible masks rebuilds them.

Monitoring paper (Galati & Zuluaga, FIMH 2021). `Monitor.score` judges one mask; its three parts are for pipelines,
in which files are read and scores written while the device rebuilds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from qcjax import qc
from qcjax.config import METHODS, Centre
from qcjax.data.geometry import Orientation, check_slices_last
from qcjax.data.preprocess import (
    Geometry,
    from_square,
    prepare_mask,
    restore_labels,
    restore_labels_cubic,
    to_square,
)
from qcjax.data.subject import Volume
from qcjax.labels import Structure, structures_named
from qcjax.metrics.overlap import joint_box
from qcjax.models import MaskAutoencoder
from qcjax.qc.suspicion import TrainingSpread, features
from qcjax.runtime.arrays import read_arrays
from qcjax.runtime.devices import REPLICATED, SHARDED, Devices
from qcjax.typing import Array, Float, Int, Integer, UInt8, Variables

DESCRIPTION, WEIGHTS = "monitor.json", "weights.safetensors"
_EARLIER = "weights.npz"  # of monitors trained before, which are refused
BATCH = 8  # slices on all devices at once
BATCH_CPU = 4  # a layer of eight full-size slices is more than a CPU's caches hold


@dataclass(frozen=True)
class Prepared:
    """A mask on its way to the autoencoder."""

    stack: np.ndarray  # (slices, size, size) uint8
    resampled: np.ndarray  # (slices, h, w) uint8: before padding or cropping
    mask: np.ndarray  # (x, y, slices) uint8: as given
    spacing_mm: tuple[float, float, float]  # of `mask`
    geometry: Geometry


@dataclass(frozen=True)
class Score:
    """What the monitor makes of one mask."""

    structures: tuple[Structure, ...]
    pdc: np.ndarray  # (k,) pseudo Dice, 0 where the structure is absent from the mask or its reconstruction
    phd: np.ndarray  # (k,) pseudo Hausdorff distance in `unit`, NaN there
    slice_pdc: np.ndarray  # (slices, k); NaN where a slice has the structure in neither
    flags: list[qc.Flag]
    measured: np.ndarray  # (6, k), see `suspicion.features`
    suspicion: float  # 1: as far out as ground-truth masks get; inf where a structure is absent
    reconstruction: np.ndarray  # (x, y, slices) uint8, on the mask's own grid
    unit: str = "mm"  # of distances: "voxels" by a monitor of preset `original`

    @property
    def verdict(self) -> str:
        """The worst of the flags: "erroneous", "suspicious" or ""."""
        kinds = {flag.kind for flag in self.flags}
        return "erroneous" if "erroneous" in kinds else "suspicious" if kinds else ""

    @property
    def worst_slice(self) -> Int[np.ndarray, " k"]:
        """(k,) the slice of lowest pseudo Dice, -1 where there is none."""
        filled = np.where(np.isnan(self.slice_pdc), np.inf, self.slice_pdc)
        return np.where(np.isinf(filled.min(0, initial=np.inf)), -1, filled.argmin(0))


def build_autoencoder(k: int, sizes: Mapping[str, Any], axis_name: str | None = None) -> MaskAutoencoder:
    """The network of a monitor of k structures, from what its description says of it."""
    return MaskAutoencoder(
        classes=1 + k,
        width=sizes["width"],
        latent=sizes["latent"],
        dropout_rate=sizes["dropout"],
        initialisation=sizes["initialisation"],
        axis_name=axis_name,
    )


class Monitor:
    """An autoencoder of masks with what it takes to use it on files."""

    def __init__(
        self,
        run: Path,
        description: dict[str, Any],
        autoencoder: MaskAutoencoder,
        variables: Variables,
        devices: Devices,
    ) -> None:
        self.run, self.description, self.devices = run, description, devices
        self.structures = structures_named(description["structures"])
        self.labels: dict[str, int] = description["labels"]
        self.size, self.spacing_mm = int(description["size"]), float(description["spacing_mm"])
        self.centre: Centre = description.get("centre", "image")
        self.orientation = Orientation.from_json(description.get("orientation"))  # of the training masks
        self.method = METHODS[description["preset"]]
        self.optional = tuple(s for s in self.structures if s.key in description.get("may_be_absent", ()))
        self.unit = self.method.unit  # of distances
        reference = description.get("reference")
        self.reference = None if reference is None else TrainingSpread.from_json(reference)
        on_cpu = devices.devices[0].platform == "cpu"
        self.batch = devices.batch_size(BATCH_CPU if on_cpu else BATCH)
        self.network = autoencoder, variables
        self._variables = devices.replicate(variables)

        def rebuild(variables: Variables, label: Array) -> Array:
            target = jax.nn.one_hot(label, autoencoder.classes)
            logits: Any = autoencoder.apply(variables, target, method="logits")
            return logits[0].argmax(-1).astype(jnp.uint8)  # that of the softmax, which needn't be computed

        self._rebuild = devices.compile(rebuild, (REPLICATED, SHARDED))

    @classmethod
    def load(cls, run: Path, devices: int | None = None) -> "Monitor":
        """The monitor that training left in a folder (or, for an experiment, in its subfolder ``monitor``).

        Raises:
          FileNotFoundError: neither holds one.
          ValueError: one that can't be used, or was trained before weights were safetensors, or more devices than there
            are.
        """
        run = Path(run)
        found = next((f for f in (run, run / "monitor") if (f / DESCRIPTION).is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"{run}: found no {DESCRIPTION}; expected the folder of a trained monitor"
            )
        if (found / _EARLIER).is_file() and not (found / WEIGHTS).is_file():
            raise ValueError(
                f"{found}: {_EARLIER} of an earlier version found, expected {WEIGHTS}: train the monitor again"
            )
        placed = Devices(devices)
        try:
            description = json.loads((found / DESCRIPTION).read_text(encoding="utf-8"))
            autoencoder = build_autoencoder(len(description["structures"]), description["autoencoder"])
            variables = traverse_util.unflatten_dict(read_arrays(found / WEIGHTS), sep="/")
            expected = jax.eval_shape(
                lambda: autoencoder.init(jax.random.key(0), jnp.zeros((1, 64, 64, autoencoder.classes)))
            )
            if jax.tree.map(np.shape, variables) != jax.tree.map(np.shape, dict(expected)):
                raise ValueError(f"{WEIGHTS} doesn't fit the sizes in {DESCRIPTION}")
            if not all(np.isfinite(x).all() for x in jax.tree.leaves(variables)):
                raise ValueError(f"NaN or infinite numbers found in {WEIGHTS}")
            return cls(found, description, autoencoder, variables, placed)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ValueError(
                f"{found}: {error!s}; expected a trained monitor's {DESCRIPTION} and {WEIGHTS}"
            ) from error

    def score(self, mask: Integer[np.ndarray, "x y s"], spacing_mm: Sequence[float]) -> Score:
        """Judge one mask.

        Args:
          mask: (x, y, slices), ids of `structures`, 0 elsewhere; the axes as in training, `orientation`, to which
            `qcjax.data.nifti.read_labels` brings a file. That the slices come last is checked where shape and spacing
            show it; turns and flips in plane can't be seen in an array.
          spacing_mm: of its voxels, in the order of the axes.

        Raises:
          ValueError: a mask of other shape or values, slices along another axis, or a spacing that isn't positive and
            finite.
        """
        return self.score_all([mask], spacing_mm)[0]

    def score_all(
        self, masks: Sequence[Integer[np.ndarray, "_ _ _"]], spacing_mm: Sequence[float]
    ) -> list[Score]:
        """Judge several masks of one spacing, such as those of one image; arguments and errors as `score`."""
        prepared = [self.prepare(mask, spacing_mm) for mask in masks]
        return [self.assess(p, r) for p, r in zip(prepared, self.reconstruct(prepared), strict=True)]

    def prepare(self, mask: Integer[np.ndarray, "x y s"], spacing_mm: Sequence[float]) -> Prepared:
        """The host's part before the autoencoder; arguments and errors as `score`."""
        if mask.ndim != 3 or not np.issubdtype(mask.dtype, np.integer):
            raise ValueError(
                f"mask of shape {mask.shape} and type {mask.dtype} found, expected integers (x, y, slices)"
            )
        if mask.size and (mask.min() < 0 or mask.max() > len(self.structures)):
            raise ValueError(
                f"mask with values {mask.min()} to {mask.max()} found, expected 0 to {len(self.structures)}"
            )
        lengths = [float(s) for s in spacing_mm]
        if len(lengths) != 3 or not all(0 < s < float("inf") for s in lengths):
            raise ValueError(
                f"spacing {tuple(spacing_mm)} found, expected three positive lengths in mm, finite ones"
            )
        check_slices_last(mask.shape, lengths)
        x_mm, y_mm, slice_mm = lengths
        volume = Volume(mask.astype(np.uint8, copy=False), (x_mm, y_mm, slice_mm), np.eye(4), Path("mask"))
        geometry, resampled = prepare_mask(volume, self.spacing_mm, self.size, self.centre)
        return Prepared(to_square(resampled, geometry), resampled, volume.array, volume.spacing_mm, geometry)

    def reconstruct(self, prepared: Sequence[Prepared]) -> list[UInt8[np.ndarray, "_ size size"]]:
        """The autoencoder's part: (slices, size, size) uint8 for each mask, slices of all of them in common batches.

        Every slice is rebuilt by itself, so all empty ones are alike: one of them is rebuilt, once.
        """
        if not prepared:
            return []
        slices = np.concatenate([p.stack for p in prepared])
        occupied = np.flatnonzero(slices.any(axis=(1, 2)))
        rebuilt = np.empty_like(slices)
        if len(occupied) < len(slices):
            rebuilt[:] = self._rebuilt_empty
        rebuilt[occupied] = self._rebuild_slices(slices[occupied])
        return np.split(rebuilt, np.cumsum([len(p.stack) for p in prepared])[:-1])

    @cached_property
    def _rebuilt_empty(self) -> np.ndarray:
        return self._rebuild_slices(np.zeros((1, self.size, self.size), np.uint8))[0]

    def _rebuild_slices(self, slices: np.ndarray) -> np.ndarray:
        """(n, size, size) uint8 -> the same."""
        waiting: list[Any] = []
        for start in range(0, len(slices), self.batch):
            part = slices[start : start + self.batch]
            filled = np.pad(part, ((0, self.batch - len(part)), (0, 0), (0, 0)))
            waiting.append(self._rebuild(self._variables, self.devices.shard(filled)))
        rebuilt = [self.devices.gather(w) for w in waiting]
        return np.concatenate([slices[:0], *rebuilt])[: len(slices)]

    def assess(self, prepared: Prepared, rebuilt: UInt8[np.ndarray, "s size size"]) -> Score:
        """The host's part after the autoencoder: measures in mm on the resampled grid, uncropped.

        Preset `original` measures on the mask's own grid in voxels, after a cubic spline back, as the monitoring code.
        """
        geometry = prepared.geometry
        if self.unit == "voxels":
            reconstruction = restore_labels_cubic(rebuilt, geometry)
            mask = np.ascontiguousarray(prepared.mask.transpose(2, 1, 0))
            compared = np.ascontiguousarray(reconstruction.transpose(2, 1, 0))
            spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
        else:
            reconstruction = restore_labels(rebuilt, geometry)
            mask, compared, spacing = prepared.resampled, from_square(rebuilt, geometry), geometry.spacing_mm
        mask, compared = in_plane_box(mask, compared)
        pdc, phd = qc.pseudo_measures(mask, compared, spacing, self.structures, self.optional)
        by_slice = slice_dice(mask, compared, self.structures)
        found = features(mask, compared, spacing, pdc, phd, self.structures)
        suspicion = float("nan") if self.reference is None else self.reference.suspicion(found)
        flags = qc.flags(pdc, phd, self.structures, unit=self.unit)
        return Score(self.structures, pdc, phd, by_slice, flags, found, suspicion, reconstruction, self.unit)


def in_plane_box(
    mask: Integer[np.ndarray, "s h w"], rebuilt: Integer[np.ndarray, "s h w"]
) -> tuple[Integer[np.ndarray, "s rows columns"], Integer[np.ndarray, "s rows columns"]]:
    """Two label maps (slices, h, w) without the outer rows and columns that are empty in both, but for one."""
    rows, columns = (slice(max(0, box.start - 1), box.stop + 1) for box in joint_box(mask, rebuilt)[1:])
    return mask[:, rows, columns], rebuilt[:, rows, columns]


def slice_dice(
    mask: Integer[np.ndarray, "s h w"], rebuilt: Integer[np.ndarray, "s h w"], structures: Sequence[Structure]
) -> Float[np.ndarray, "s k"]:
    """Dice per slice and structure, (slices, k), of two label maps (slices, h, w); NaN where both lack it."""
    result = np.full((len(mask), len(structures)), np.nan)
    for i, structure in enumerate(structures):
        in_mask, in_rebuilt = mask == structure.id, rebuilt == structure.id
        total = np.count_nonzero(in_mask, axis=(1, 2)) + np.count_nonzero(in_rebuilt, axis=(1, 2))
        common = np.count_nonzero(in_mask & in_rebuilt, axis=(1, 2))
        np.divide(2 * common, total, out=result[:, i], where=total > 0)
    return result
