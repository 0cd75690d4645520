"""Synthetic cohorts on disk: the one writer of all layouts, which say what files a subject has."""

import gzip
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import nibabel as nib
import numpy as np
from jaxtyping import Real

from qcjax.data.geometry import Affine
from qcjax.phantom.cohort import PhantomImage

S = TypeVar("S")


Volumes = dict[str, tuple[np.ndarray, PhantomImage]]  # path of a .nii.gz -> its array, and whose grid it has


@dataclass(frozen=True)
class SubjectFiles:
    """The files of one subject by their paths in the data set."""

    volumes: Volumes
    texts: Mapping[str, bytes] = field(default_factory=dict)


def write_cohort(
    out: Path,
    subjects: Iterable[S],
    files_of: Callable[[S], SubjectFiles],
    on_subject: Callable[[S], None] | None = None,
) -> Path:
    """Write a cohort's subjects one after the other, with every folder that they need; returns `out`.

    Args:
      out: a folder, made if need be.
      files_of: the layout: which files a subject has.
      on_subject: called after each subject is written.
    """
    out.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        files = files_of(subject)
        for path in (*files.volumes, *files.texts):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
        for path, (array, image) in files.volumes.items():
            write_nifti(out / path, array, image.affine, image.spacing_mm)
        for path, text in files.texts.items():
            (out / path).write_bytes(text)
        if on_subject is not None:
            on_subject(subject)
    return out


def write_nifti(
    path: Path, array: Real[np.ndarray, "x y slices"], affine: Affine, spacing_mm: tuple[float, float, float]
) -> None:
    """Write a volume as NIfTI-1, gzipped, in millimetres; the same volume always gives the same bytes.

    Args:
      path: ends in .nii.gz.
      array: (x, y, slices), of the type to be stored.
      affine: (4, 4), voxel indices -> mm.
    """
    image = nib.Nifti1Image(array, affine)
    image.header.set_zooms(spacing_mm)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=4, fileobj=raw, mtime=0) as packed:
        packed.write(image.to_bytes())
