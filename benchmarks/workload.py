"""The cohort that is measured, and the configuration of our side."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import nibabel as nib
import numpy as np

from benchmarks.inputs import Sizes, images, labels
from qcjax.config import AutoencoderConfig, Mnms2Config, SegmenterConfig
from qcjax.data.batches import Batch
from qcjax.data.cohort import Cohort, prepare
from qcjax.data.datasets import mnms2
from qcjax.data.nifti import read_grid
from qcjax.data.preprocess import median_spacing
from qcjax.data.subject import PHASES, Case, Subject
from qcjax.phantom import PhantomConfig, write_mnms2
from qcjax.runtime.devices import Devices
from qcjax.train.arm import ViewData

VIEW = "SA"


def config(s: Sizes) -> Mnms2Config:
    """The run that is measured: preset `original`, so that both sides do the same."""
    width = s.width or 32
    return Mnms2Config(
        preset="original",
        segmenter=("nnunet",),
        size=s.size,
        devices=1,
        supervised=SegmenterConfig(width=s.width, stages=s.stages, batch=s.batch, m_best=5),
        autoencoder=AutoencoderConfig(width=width, batch=s.autoencoder_batch, early_epochs=10),
    )


def batch_of(name: str, s: Sizes) -> Batch:
    """What a network learns from, on the device."""
    image, label = images(name, s), labels(name, s)
    return Batch(jnp.asarray(image), jnp.asarray(label), jnp.ones(len(label)))


@dataclass(frozen=True)
class Workload:
    """A small cohort, as files and prepared."""

    sizes: Sizes
    training: tuple[Subject, ...]
    validation: tuple[Subject, ...]
    unlabelled: tuple[Subject, ...]

    @classmethod
    def open(cls, s: Sizes, data: Path | None, folder: Path) -> "Workload":
        """Subjects of `data`, or of a synthetic cohort written to `folder`.

        Raises ValueError where there are too few subjects with short-axis images of both phases.
        """
        n = s.training + s.validation
        if data is None:
            data = folder / "data"
            if not (data / mnms2.INFORMATION).exists():  # written last
                write_mnms2(data, PhantomConfig(n, 0, s.unlabelled, matrix_scale=s.matrix_scale))
            for path in data.rglob("*.nii.gz"):
                _keep_middle(path, s.slices)
        usable = [x for subject in mnms2.find(data) if (x := _short_axis(subject))]
        labelled = [x for x in usable if x.part == "train" and all(c.label_path for c in x.cases)]
        rest = [x for x in usable if x.part != "train"] + labelled[n:]
        if len(labelled) < n or len(rest) < s.unlabelled:
            raise ValueError(
                f"{data}: {len(labelled)} labelled training subjects and {len(rest)} others with {VIEW} images of both "
                f"phases found, expected at least {n} and {s.unlabelled}"
            )
        chosen = (labelled[: s.training], labelled[s.training : n], rest[: s.unlabelled])
        return cls(s, *(tuple(x) for x in chosen))

    @cached_property
    def spacing_mm(self) -> tuple[float, float]:
        """Target spacing in plane: the training cases' median."""
        return median_spacing(read_grid(c.image_path).spacing_mm for s in self.training for c in s.cases)

    @cached_property
    def view(self) -> ViewData:
        """Prepared, on the device."""
        return ViewData.place(
            VIEW,
            self._cohort(self.training, True),
            self._cohort(self.validation, True),
            self._cohort(self.unlabelled, False),
            Devices(1),
        )

    def cases(self, part: str) -> tuple[Case, ...]:
        """Of a part's subjects, by name of the part."""
        return tuple(case for subject in getattr(self, part) for case in subject.cases)

    def _cohort(self, subjects: tuple[Subject, ...], with_labels: bool) -> Cohort:
        return prepare(subjects, VIEW, self.spacing_mm, self.sizes.size, with_labels, "original")


def _short_axis(subject: Subject) -> Subject | None:
    """With its short-axis cases alone; None unless there are both phases."""
    cases = tuple(c for c in subject.cases if c.view == VIEW)
    return replace(subject, cases=cases) if {c.phase for c in cases} == set(PHASES) else None


def _keep_middle(path: Path, slices: int) -> None:
    """Rewrite a stack that has more slices than that."""
    image: Any = nib.load(path)
    if image.shape[2] > slices:
        first = (image.shape[2] - slices) // 2
        kept = image.slicer[:, :, first : first + slices]
        nib.save(nib.Nifti1Image(np.asarray(kept.dataobj), kept.affine, kept.header), path)
