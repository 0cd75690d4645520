"""What refinement changed in each image, whether the gate takes it, and why: `cases.csv` of a refined model."""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qcjax.data.cine import read_frames
from qcjax.qc.gate import gate, reason
from qcjax.runtime.files import written_table
from qcjax.runtime.progress import bar
from qcjax.segmentation.inputs import Image
from qcjax.segmentation.model import Model
from qcjax.segmentation.result import Result
from qcjax.segmentation.unlabelled import looked_at

COLUMNS = (
    "image",  # its name: the path below the folder of images, without ending
    "structure",  # key; empty where the image couldn't be used
    "out_of_distribution",  # 1 where the image, or a frame of it, was learnt from as such
    "dice_between",  # of the source's and the refined mask; 1 where refinement changed nothing
    "pdc_source",
    "pdc_refined",
    "predicted_dice_source",  # 0 where the mask lacks the structure
    "predicted_dice_refined",
    "gain",  # of the image: mean over the structures
    "accepted",  # 1 where the refined mask is taken
    "reason",  # in words
)  # of a cine: means over the two frames that were looked at


@dataclass(frozen=True)
class Compared:
    """One image with both masks' measures, mean over its frames: (k,) each."""

    image: Image
    ood: bool
    error: str = ""  # why it couldn't be used
    between: np.ndarray = field(default_factory=lambda: np.zeros(0))
    pdc: tuple[np.ndarray, np.ndarray] = field(default_factory=lambda: (np.zeros(0), np.zeros(0)))
    predicted: tuple[np.ndarray, np.ndarray] = field(default_factory=lambda: (np.zeros(0), np.zeros(0)))
    gain: float = np.nan
    accepted: bool = False
    reason: str = ""
    structures: tuple[str, ...] = ()


def compare(
    model: Model, images: Sequence[Image], outside: Collection[str], refused: Mapping[str, str]
) -> list[Compared]:
    """Every image by both sets of networks of a refined model.

    Args:
      outside: cases that are out of distribution, by their names in `Unlabelled`.
      refused: image -> why it can't be used.
    """
    strange = {name.split(", frame ")[0] for name in outside}
    found = []
    with bar("Source's and refined masks compared, images", len(images)) as advance:
        for image in images:
            ood = image.name in strange
            if image.name in refused:
                found.append(Compared(image, ood, refused[image.name]))
            else:
                found.append(_compared(model, image, ood))
            advance()
    return found


def both_masks(model: Model, image: Image) -> tuple[list[Result], list[Result]]:
    """What the source and what the refined networks make of each frame that was looked at."""
    volumes = read_frames(image.path, model.orientation)
    prepared = model.prepare_frames([volumes[i] for i in looked_at(len(volumes))])
    source, refined = [], []
    for one, prediction in zip(prepared, model.predict(prepared), strict=True):
        assert prediction.refined is not None
        source.append(model.result(one, prediction))
        refined.append(model.result(one, prediction.refined))
    return source, refined


def _compared(model: Model, image: Image, ood: bool) -> Compared:
    source, refined = both_masks(model, image)
    assert model.bound is not None
    keys = tuple(s.key for s in model.structures)
    between = np.mean(
        [
            [_dice(a.labels, b.labels, model.labels[k]) for k in keys]
            for a, b in zip(source, refined, strict=True)
        ],
        0,
    )
    pdc = tuple(np.mean([[r.measures[k].pdc for k in keys] for r in of], 0) for of in (source, refined))
    before, after = model.predicted(source), model.predicted(refined)
    decided = gate(before, after, model.bound)
    why = reason(before[0], after[0], model.bound)
    measured = between, (pdc[0], pdc[1]), (before[0], after[0])
    return Compared(image, ood, "", *measured, float(decided.gain[0]), bool(decided.accepted[0]), why, keys)


def _dice(a: np.ndarray, b: np.ndarray, value: int) -> float:
    """Dice of one structure in two masks; 1 where neither has it."""
    x, y = a == value, b == value
    total = np.count_nonzero(x) + np.count_nonzero(y)
    return 2 * np.count_nonzero(x & y) / total if total else 1.0


def write_compared(path: Path, cases: Iterable[Compared]) -> None:
    """Write `cases.csv`: a row per image and structure; undefined is empty."""
    with written_table(path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for case in cases:
            if case.error:
                writer.writerow([case.image.name, *("",) * (len(COLUMNS) - 3), 0, f"not used: {case.error}"])
                continue
            for i, key in enumerate(case.structures):
                numbers = (case.between[i], *(x[i] for x in (*case.pdc, *case.predicted)), case.gain)
                cells = ["" if np.isnan(v) else f"{v:.4f}" for v in numbers]
                writer.writerow(
                    [case.image.name, key, int(case.ood), *cells, int(case.accepted), case.reason]
                )
