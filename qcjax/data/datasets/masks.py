"""Anybody's own folder of masks: which files are masks, whose they are, what labels they hold."""

import re
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from qcjax.data.datasets.acdc import INFORMATION
from qcjax.data.files import ENDINGS, OTHER_VOLUMES, LeftOut, stem_of, walk
from qcjax.data.findings import InvalidFile
from qcjax.data.geometry import Orientation
from qcjax.data.mask_cohort import MaskCase
from qcjax.data.nifti import LABEL_TOLERANCE, on_grid_of, read_image, read_labels
from qcjax.data.subject import Volume
from qcjax.labels import MOST_VALUE

IMAGE_SUFFIXES = ("_gt", "_pred", "_seg")  # of a mask's name, that its image's may lack
CHANNEL = "_0000"  # that the images of nnU-Net have after their masks' names
CINE_SUFFIXES = ("_4d", "_CINE")  # of ACDC's and M&Ms-2's images of all phases
MOST_LABELS = 255  # different values in one file; more than that is an image
# the path up to the first _ or / after a digit; without a digit the folder, or the file's name up to the first _
SUBJECT = r"(?s).*?[0-9][^_/]*|.+(?=/)|_*[^_]*"

# of ACDC and M&Ms-2, whose masks are named *_gt
_KNOWN_IMAGE = re.compile(r"patient\d+_frame\d+|\d+_[SL]A_E[DS]")


def find_masks(
    folder: Path, tell: Callable[[str], None] = lambda sentence: None, subject: str = SUBJECT
) -> list[MaskCase]:
    """The masks in a folder and all below it, by name; none is read.

    A mask's name is its path in the folder without its ending, with "/" between folders.

    Where masks lie beside their images, the masks alone are taken: a file is an image where there is one of its name
    and one of `IMAGE_SUFFIXES` in the folder, or where it is named as ACDC's and M&Ms-2's images are and the folder has
    masks of that naming or ACDC's Info.cfg. Left out are also cines (`CINE_SUFFIXES`), files in other formats, and what
    `qcjax.data.files` leaves out everywhere.

    Args:
      tell: called with a sentence on the files left out, if there are any, so that none goes missing unnoticed.
      subject: regular expression that finds the subject, a mask's group, in its name: its first group or else all that
        it matches.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no masks in it, the same mask in two files, a mask without a subject, or no regular expression.
    """
    folder = Path(folder)
    try:
        pattern = re.compile(subject)
    except (re.error, OverflowError) as error:
        raise ValueError(f"--subject: {subject!r} found, expected a regular expression ({error})") from None
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: found no such folder; expected one of masks")
    masks: dict[str, MaskCase] = {}
    left_out = LeftOut()
    for place, _, names in walk(folder, left_out):
        stems = _stems(place, names, folder, left_out)
        for stem in _images_among(stems, INFORMATION in names):
            left_out.add("image", (place.relative_to(folder) / stem).as_posix())
            del stems[stem]
        for stem, paths in stems.items():
            if len(paths) > 1:
                raise ValueError(f"{paths[0]}: found also {paths[1].name}; expected one file of each mask")
            name = (place.relative_to(folder) / stem).as_posix()
            masks[name] = MaskCase(name, _subject_in(name, pattern, paths[0]), paths[0])
    if masks and left_out.found:
        tell(f"{folder}: left out, as no masks: {left_out}")
    if not masks:
        found = "no masks" + (f", only {left_out}" if left_out.found else "")
        expected = f"files that end in .nii or .nii.gz (or {', '.join(ENDINGS[2:])})"
        raise ValueError(f"{folder}: found {found}; expected {expected}")
    return [masks[name] for name in sorted(masks)]


def _stems(place: Path, names: list[str], folder: Path, left_out: LeftOut) -> dict[str, list[Path]]:
    """The volumes of one folder by their names without endings; other formats are noted as left out."""
    stems: dict[str, list[Path]] = {}
    for name in names:
        stem = stem_of(name)
        if stem is not None:
            stems.setdefault(stem, []).append(place / name)
        elif name.lower().endswith(OTHER_VOLUMES):
            left_out.add("file in a format that isn't read", (place / name).relative_to(folder))
    return stems


def _images_among(stems: Collection[str], of_acdc: bool) -> list[str]:
    """Which of the files of one folder are images of others that are masks."""
    known = {stem for stem in stems if _KNOWN_IMAGE.fullmatch(stem.removesuffix("_gt"))}
    marked = of_acdc or any(stem.endswith("_gt") for stem in known)

    def is_image(stem: str) -> bool:
        own = stem.removesuffix(CHANNEL)
        has_mask = any(own + suffix in stems for suffix in IMAGE_SUFFIXES) or (own != stem and own in stems)
        is_known_image = marked and stem in known and not stem.endswith("_gt")
        return has_mask or is_known_image or stem.endswith(CINE_SUFFIXES)

    return [stem for stem in stems if is_image(stem)]


def _subject_in(name: str, pattern: re.Pattern[str], path: Path) -> str:
    match = pattern.search(name)
    group = match and match[min(1, pattern.groups)]
    if not group:
        raise ValueError(
            f"{path}: no subject found in {name}, expected a match of --subject {pattern.pattern}"
        )
    return str(group)


def read_mask(
    path: Path,
    mapping: dict[int, int],
    orientation: Orientation | None = None,
    lengths_of: Path | None = None,
) -> Volume:
    """A mask as uint8 of shape (x, y, slices), labels inside, with its geometry.

    Args:
      mapping: label value in the file -> label value inside; 0 too.
      orientation: what its axes are brought to; None: as stored, but for the slices, which are the last axis.
      lengths_of: the mask's image, whose millimetres count where the mask's header has lost them.

    Raises:
      FileNotFoundError: no such file.
      InvalidFile: unreadable, not 3-D, or label values that `mapping` doesn't know: which were found and expected.
    """
    return read_labels(path, mapping, orientation=orientation, lengths_of=lengths_of)


class Images:
    """The images in a folder and all below it, found by their masks' names."""

    def __init__(self, folder: Path) -> None:
        """List the folder once. Raises FileNotFoundError where there is none."""
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: found no such folder; expected one of images")
        self.folder = folder
        self._files: dict[str, list[Path]] = {}
        for place, _, names in walk(folder, LeftOut()):
            for name in names:
                stem = stem_of(name)
                if stem is not None:
                    found = self._files.setdefault((place.relative_to(folder) / stem).as_posix(), [])
                    found.append(place / name)

    def at(self, name: str) -> Path | None:
        """The file at a relative name without ending; None where there is none."""
        return next(iter(self._files.get(name, ())), None)

    def find(self, name: str, mask: Path) -> Path | None:
        """The image of a mask: at its relative name, without one of `IMAGE_SUFFIXES` or with it, or with `CHANNEL`.

        Where images and masks lie in one folder, the mask itself is none.
        """
        stems = [*(name.removesuffix(s) for s in IMAGE_SUFFIXES if name.endswith(s)), name]
        candidates = (path for s in stems for key in (s, s + CHANNEL) for path in self._files.get(key, ()))
        return next((path for path in candidates if not _same_file(path, mask)), None)

    def read(self, mask: Volume, name: str) -> Volume:
        """The image that `find` finds, with the axes and on the grid of its mask.

        Raises:
          FileNotFoundError: there is none.
          InvalidFile: unreadable, not 3-D, or on another grid than the mask.
        """
        path = self.find(name, mask.path)
        if path is None:
            raise FileNotFoundError(f"{self.folder}: no image of this name was found")
        return on_grid_of(read_image(path), mask)


def _same_file(one: Path, other: Path) -> bool:
    return one == other or (one.name == other.name and one.resolve() == other.resolve())


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
