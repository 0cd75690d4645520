"""Two folders, one of images and one of masks: cases are paired by their names."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qcjax.data.datasets.listing import Scan
from qcjax.data.datasets.masks import IMAGE_SUFFIXES, SUBJECT, find_masks
from qcjax.data.findings import Finding
from qcjax.data.subject import PHASES, Case, Subject

_PHASE = re.compile(rf"(?<![A-Za-z])({'|'.join(PHASES)})(?![A-Za-z])")


@dataclass(frozen=True)
class FileCase(Case):
    """A case that is named as its file is."""

    file: str = ""

    @property
    def name(self) -> str:
        """The path of its mask in its folder, without ending, "_" between folders."""
        return self.file.replace("/", "_")

    @classmethod
    def of(cls, name: str, image: Path, mask: Path | None, subject: str | None = None) -> "FileCase":
        """A case named as its mask; its phase is what the name says, "" where it says none."""
        match = re.search(SUBJECT, name)
        code = subject or (match[0] if match else name)
        phase = _PHASE.search(name)
        return cls(code, "SA", phase[1] if phase else "", image, mask, name)


def scan(images: Path, masks: Path, tell: Callable[[str], None] = lambda sentence: None) -> Scan:
    """The subjects of two folders, by code, and masks without an image as findings; no image is read.

    An image lies at its mask's own relative name, which may have one of `IMAGE_SUFFIXES` more, or with nnU-Net's
    channel _0000 behind it.

    Args:
      tell: called with a sentence on files that were left out.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no masks.
    """
    images = Path(images)
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: found no such folder; expected one of images")
    cases, findings = [], []
    for mask in find_masks(Path(masks), tell):
        image = _image(images, mask.name, mask.path)
        if image is None:
            findings.append(
                Finding(
                    "error", mask.path, "a mask without its image", f"{images / mask.name}.nii.gz", mask.group
                )
            )
        else:
            cases.append(FileCase.of(mask.name, image, mask.path, mask.group.replace("/", "_")))
    return Scan(subjects_of(cases), findings)


def _image(images: Path, name: str, mask: Path) -> Path | None:
    stems = [*(name.removesuffix(s) for s in IMAGE_SUFFIXES if name.endswith(s)), name]
    places = (
        images / f"{stem}{channel}{ending}"
        for stem in stems
        for channel in ("", "_0000")
        for ending in (".nii.gz", ".nii")
    )
    return next((p for p in places if p.is_file() and p.resolve() != mask.resolve()), None)


def subjects_of(cases: Sequence[Case]) -> list[Subject]:
    """The subjects of some cases, by code; of no known disease or vendor."""
    by_code: dict[str, list[Case]] = {}
    for case in cases:
        by_code.setdefault(case.subject, []).append(case)
    return [Subject(code, "", "", "train", tuple(by_code[code])) for code in sorted(by_code)]
