"""Anybody's own folder of NIfTI masks: which files are masks, whose they are, what labels they hold."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qcjax.data.datasets.acdc import INFORMATION
from qcjax.data.findings import InvalidFile
from qcjax.data.geometry import Orientation
from qcjax.data.mask_cohort import MaskCase
from qcjax.data.nifti import LABEL_TOLERANCE, on_grid_of, read_image, read_labels
from qcjax.data.subject import Volume
from qcjax.labels import MOST_VALUE
from qcjax.runtime.wording import count_of

IMAGE_SUFFIXES = ("_gt", "_pred", "_seg")  # of a mask's name, that its image's may lack
CINE_SUFFIXES = ("_4d", "_CINE")  # of ACDC's and M&Ms-2's images of all phases
MOST_LABELS = 255  # different values in one file; more than that is an image
# the path up to the first _ or / after a digit; without a digit the folder, or the file's name up to the first _
SUBJECT = r".*?[0-9][^_/]*|.+(?=/)|_*[^_]*"

_NIFTI = re.compile(r"([^.].*?)\.nii(\.gz)?")
# of ACDC and M&Ms-2, whose masks are named *_gt
_KNOWN_IMAGE = re.compile(r"patient\d+_frame\d+|\d+_[SL]A_E[DS]")


def find_masks(
    folder: Path, tell: Callable[[str], None] = lambda sentence: None, subject: str = SUBJECT
) -> list[MaskCase]:
    """The masks in a folder and all below it, by name; none is read.

    A mask's name is its path in the folder without .nii or .nii.gz, with "/" between folders.

    Where masks lie beside their images, the masks alone are taken: a file is an image where there is one of its name
    and one of `IMAGE_SUFFIXES` in the folder, or where it is named as ACDC's and M&Ms-2's images are and the folder has
    masks of that naming or ACDC's Info.cfg. Left out are also cines (`CINE_SUFFIXES`), hidden files and folders, linked
    folders, and files that link out of the folder.

    Args:
      tell: called with a sentence on the files left out, if there are any, so that none goes missing unnoticed.
      subject: regular expression that finds the subject, a mask's group, in its name: its first group or else all that
        it matches.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no masks in it, the same mask compressed and not, a mask without a subject, or no regular expression.
    """
    folder = Path(folder)
    try:
        pattern = re.compile(subject)
    except (re.error, OverflowError) as error:
        raise ValueError(f"--subject: {subject!r} found, expected a regular expression ({error})") from None
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
        known = {stem for stem in stems if _KNOWN_IMAGE.fullmatch(stem.removesuffix("_gt"))}
        marked = INFORMATION in names or any(stem.endswith("_gt") for stem in known)
        for stem, paths in stems.items():
            has_mask = any(stem + suffix in stems for suffix in IMAGE_SUFFIXES)
            is_known_image = marked and stem in known and not stem.endswith("_gt")
            if has_mask or is_known_image or stem.endswith(CINE_SUFFIXES):
                n_images += 1
                continue
            if len(paths) > 1:
                raise ValueError(f"{paths[0]}: found also {paths[1].name}; expected one file of each mask")
            name = (place.relative_to(folder) / stem).as_posix()
            match = pattern.search(name)
            group = match and match[min(1, pattern.groups)]
            if not group:
                raise ValueError(
                    f"{paths[0]}: no subject found in {name}, expected a match of --subject {subject}"
                )
            masks[name] = MaskCase(name, group, paths[0])
    others = [count_of(n, noun) for n, noun in ((n_images, "image"), (n_links, "link")) if n]
    if masks and others:
        tell(f"{folder}: left out, as no masks: {' and '.join(others)}")
    if not masks:
        found = "no masks" + (f", only {' and '.join(others)}" if others else "")
        raise ValueError(f"{folder}: found {found}; expected files that end in .nii or .nii.gz")
    return [masks[name] for name in sorted(masks)]


def read_mask(path: Path, mapping: dict[int, int], orientation: Orientation | None = None) -> Volume:
    """A mask as uint8 of shape (x, y, slices), labels inside, with its geometry.

    Args:
      mapping: label value in the file -> label value inside; 0 too.
      orientation: what its axes are brought to; None: as stored, but for the slices, which are the last axis.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: unreadable, not 3-D, or label values that `mapping` doesn't know: which were found and expected.
    """
    return read_labels(path, mapping, orientation=orientation)


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
    return on_grid_of(read_image(path), mask)


def label_values(path: Path) -> set[int]:
    """The label values other than 0 in a file.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: unreadable, not 3-D, or not a mask: values between integers, negative, or too many.
    """
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
