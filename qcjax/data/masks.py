"""Anybody's own folder of NIfTI masks: which files are masks, whose they are, what labels they hold."""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from qcjax.data.acdc import INFORMATION
from qcjax.data.findings import InvalidFile
from qcjax.data.mask_cohort import MaskCase
from qcjax.data.nifti import LABEL_TOLERANCE, grid_difference, read_image, read_labels
from qcjax.data.subject import Volume
from qcjax.labels import MOST_VALUE

IMAGE_SUFFIXES = ("_gt", "_pred", "_seg")  # of a mask's name, that its image's may lack
MOST_LABELS = 255  # different values in one file; more than that is an image

_NIFTI = re.compile(r"([^.].*?)\.nii(\.gz)?")


def find_masks(folder: Path, tell: Callable[[str], None] = lambda sentence: None) -> list[MaskCase]:
    """The masks in a folder and all below it, by name; none is read.

    A mask's name is its path in the folder without .nii or .nii.gz, with "/" between folders. Its group, the
    subject, is that path up to the first "_" of the file name: ``a/p07_ED`` and ``a/p07_ES`` are both of ``a/p07``.

    Where masks lie beside their images, the masks alone are taken: those named ``*_gt`` wherever a folder has a file
    of the same name without it, and in ACDC's folders, which have an Info.cfg. Left out are also ``*_4d``, hidden
    files and folders, linked folders, and files that link out of the folder.

    Args:
      tell: called with a sentence on the files left out, if there are any, so that none goes missing unnoticed.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no masks in it, or the same mask compressed and not.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: found no such folder; expected one of NIfTI masks")
    home = folder.resolve()
    masks: dict[str, MaskCase] = {}
    n_links = n_images = 0
    for text, folders, names in os.walk(folder):
        place = Path(text)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        n_links += sum((place / f).is_symlink() for f in folders)  # which os.walk doesn't follow
        stems: dict[str, list[Path]] = {}
        for name in sorted(names):
            match = _NIFTI.fullmatch(name)
            if match is None:
                continue
            path = place / name
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                n_links += 1
                continue
            stems.setdefault(match[1], []).append(path)
        marked = INFORMATION in names or any(f"{stem}_gt" in stems for stem in stems)
        for stem, paths in stems.items():
            if stem.endswith("_4d") or (marked and not stem.endswith("_gt")):
                n_images += 1
                continue
            if len(paths) > 1:
                raise ValueError(f"{paths[0]}: found also {paths[1].name}; expected one file of each mask")
            above = place.relative_to(folder)
            group = above / (stem.partition("_")[0] or stem)
            masks[(above / stem).as_posix()] = MaskCase((above / stem).as_posix(), group.as_posix(), paths[0])
    others = [f"{n_images} images"] * bool(n_images) + [f"{n_links} links"] * bool(n_links)
    if masks and others:
        tell(f"{folder}: left out, as no masks: {' and '.join(others)}")
    if not masks:
        found = "no masks" + (f", only {' and '.join(others)}" if others else "")
        raise ValueError(f"{folder}: found {found}; expected files that end in .nii or .nii.gz")
    return [masks[name] for name in sorted(masks)]


def read_mask(path: Path, mapping: dict[int, int]) -> Volume:
    """A mask as uint8 of shape (x, y, slices), labels inside, with its geometry.

    Args:
      mapping: label value in the file -> label value inside; 0 too.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: unreadable, not 3-D, or label values that `mapping` doesn't know: which were found and expected.
    """
    return read_labels(path, mapping)


def find_image(images: Path, name: str, mask: Path) -> Path | None:
    """The image of a mask: at its relative name, without one of `IMAGE_SUFFIXES` or with it, .nii.gz or .nii.

    Where images and masks lie in one folder, the mask itself is none.
    """
    stems = [*(name.removesuffix(s) for s in IMAGE_SUFFIXES if name.endswith(s)), name]
    places = (images / f"{stem}{suffix}" for stem in stems for suffix in (".nii.gz", ".nii"))
    return next((p for p in places if p.is_file() and p.resolve() != mask.resolve()), None)


def read_image_of(mask: Volume, images: Path, name: str) -> Volume:
    """The image that `find_image` finds, on the mask's own grid.

    Raises:
      FileNotFoundError: there is none.
      InvalidFile: unreadable, not 3-D, or on another grid than the mask.
    """
    path = find_image(images, name, mask.path)
    if path is None:
        raise FileNotFoundError(f"{images}: no image of this name was found")
    image = read_image(path)
    difference = grid_difference(mask, image.array.shape, image.affine)
    if difference:
        raise InvalidFile(path, *difference)
    return image


def label_values(paths: Sequence[Path]) -> list[int]:
    """The label values other than 0 in any of the files, sorted.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: unreadable, not 3-D, or not a mask: values between integers, negative, or too many.
    """
    with ThreadPoolExecutor() as pool:
        return sorted(set[int]().union(*pool.map(_values, paths)))


def _values(path: Path) -> set[int]:
    stored = read_image(path).array
    expected = f"a mask: whole numbers from 0 to {MOST_VALUE}"
    whole = np.rint(stored)
    apart = np.abs(stored - whole)
    if apart.max() > LABEL_TOLERANCE:
        raise InvalidFile(path, f"label value {stored.flat[int(apart.argmax())]:.6g}", expected)
    if whole.min() < 0 or whole.max() > MOST_VALUE:
        worst = whole.min() if whole.min() < 0 else whole.max()
        raise InvalidFile(path, f"label value {worst:g}", expected)
    values = np.unique(whole[whole > 0]).astype(np.int64).tolist()
    if len(values) > MOST_LABELS:
        raise InvalidFile(path, f"{len(values)} different values", f"a mask, of at most {MOST_LABELS} labels")
    return set(values)
