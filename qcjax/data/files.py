"""Which files of a folder are read, by every reader alike; and what was left out, counted and named.

Read are volumes in the formats of `ENDINGS`, their letters in either case, also through links. Left out are hidden
files and folders (so `._x` too), `__MACOSX`, which unpackers make, folders that a run of ours left, known by their own
marker, and links to folders that are read already. A link to a volume that isn't there counts as a broken file.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from qcjax.runtime.wording import count_of

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".hdr.gz")
OTHER_VOLUMES = (
    ".dcm",
    ".mgz",
    ".mgh",
    ".minc",
    ".mnc",
    ".nii.bz2",
    ".nii.zst",
    ".nii.xz",
    ".gipl",
    ".npy",
    ".npz",
)
JUNK = ("__MACOSX",)
SCORES, MASKS, RUN = "score.json", "segment.json", "config.json"  # the markers of our own results
MONITOR, MODEL = "monitor.json", "model.json"
NAMED = 3  # of what was left out, in a sentence

_VOLUME = re.compile(rf"(?s)([^.].*?)({'|'.join(re.escape(e) for e in ENDINGS)})", re.IGNORECASE)


def stem_of(name: str) -> str | None:
    """The name of a volume's file without its ending; None for other and for hidden files."""
    found = _VOLUME.fullmatch(name)
    return None if found is None else found[1]


def is_gzip(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.suffix.lower() == ".gz"


def other_format(path: Path) -> bool:
    """Whether a file's name says that it holds a volume in another format than NIfTI's single file."""
    return path.name.lower().endswith(ENDINGS[2:])


def is_ours(folder: Path) -> bool:
    """Whether a run of ours made a folder and keeps its results there."""
    if any((folder / name).is_file() for name in (SCORES, MASKS, MONITOR, MODEL)):
        return True
    try:
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(found, dict) and isinstance(found.get("versions"), dict) and "qcjax" in found["versions"]
    )


@dataclass
class LeftOut:
    """What a reader left out, by kind."""

    found: dict[str, list[str]] = field(default_factory=dict)  # noun, such as "image" -> names

    def add(self, noun: str, name: str | Path) -> None:
        """Note one thing that isn't read."""
        self.found.setdefault(noun, []).append(str(name))

    def __str__(self) -> str:
        """E.g. ``2 images (a, b) and 1 link that leads nowhere (c)``; empty where there is nothing."""
        return self.in_words(True)

    def in_words(self, named: bool) -> str:
        """The same, or without names."""
        parts = []
        for noun, names in self.found.items():
            some = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            first, _, rest = noun.partition(" ")
            counted = f"{count_of(len(names), first)}{f' {rest}' if rest else ''}"
            parts.append(f"{counted} ({some})" if named else counted)
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def walk(
    folder: Path, left_out: LeftOut, depth: int | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, sorted and through links: (place, folders, names) for a folder and all below it that is read.

    Who takes names out of `folders` keeps the walk from going there.

    Args:
      depth: how many folders below the given one; None: all.
    """
    seen: set[str] = set()
    home = os.path.realpath(folder)
    for text, folders, names in os.walk(folder, followlinks=True):
        place = Path(text)
        real = os.path.realpath(text)
        if real in seen:
            left_out.add("link to a folder that is read already", place.relative_to(folder))
            folders.clear()
            continue
        seen.add(real)
        inner = len(place.relative_to(folder).parts)
        kept = []
        for name in sorted(folders):
            within = (place / name).relative_to(folder)
            if name in JUNK:
                left_out.add("folder of an unpacker", within)
            elif name.startswith(".") or (depth is not None and inner >= depth):
                continue
            elif os.path.islink(place / name) and _is_inside(os.path.realpath(place / name), home):
                left_out.add("link to a folder that is read already", within)
            elif is_ours(place / name):
                left_out.add("folder of our own results", within)
            else:
                kept.append(name)
        folders[:] = kept
        visible = sorted(name for name in names if not name.startswith("."))
        for name in visible:
            if stem_of(name) is None and os.path.islink(place / name) and not os.path.exists(place / name):
                left_out.add("link that leads nowhere", (place / name).relative_to(folder))
        yield place, folders, visible


def _is_inside(real: str, home: str) -> bool:
    return real == home or real.startswith(os.path.join(home, ""))
