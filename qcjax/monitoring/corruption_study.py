"""True masks, damaged on purpose and untouched: does the monitor tell them apart, or the image?"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from qcjax.data.nifti import read_image, read_labels
from qcjax.data.subject import Case
from qcjax.inference.monitor import Monitor
from qcjax.labels import ACDC_LABELS
from qcjax.metrics.selective import detection_rate, roc_auc
from qcjax.qc import contrast
from qcjax.qc.anatomy import broken_rules
from qcjax.qc.corruptions import DAMAGES

AHEAD = 4  # cases read and judged at a time; bounds memory


class Judgement(NamedTuple):
    """One mask, sound or damaged."""

    suspicion: float
    doubt: float  # of the structure that the image shows least
    flagged: bool
    breaks_a_rule: bool


def damage_study(
    monitor: Monitor, cases: Sequence[Case], seed: int, on_case: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Whether the monitor, and the image, tell damaged ground-truth masks from untouched ones.

    Returns:
      `damage`: for each kind the area under the ROC curve of the suspicion, the share found where 2 % of the untouched
      masks raise an alarm (both None for a monitor without a scale of suspicion), the same of the larger one of
      suspicion and the image's doubt (`_with_image`), the share that the paper's flags find, the share that breaks a
      rule of anatomy, and n;
      `false_alarms_untouched`: of the n untouched masks, how many are flagged, how many break a rule, and of how many
      the image's doubt is above its limit.
    """

    def one(numbered: tuple[int, Case]) -> tuple[Judgement, dict[str, Judgement]]:
        number, case = numbered
        assert case.label_path is not None
        image = read_image(case.image_path, monitor.orientation)
        truth = read_labels(case.label_path, ACDC_LABELS, like=image)
        stack = np.ascontiguousarray(truth.array.transpose(2, 1, 0))
        spacing_mm = truth.spacing_mm[::-1]
        stacks = {"": stack}
        for i, (key, damage) in enumerate(DAMAGES.items()):
            try:
                stacks[key] = damage(stack, spacing_mm, np.random.default_rng([seed, number, i]))
            except ValueError:  # what is to be damaged isn't there
                continue
        scores = monitor.score_all([s.transpose(2, 1, 0) for s in stacks.values()], truth.spacing_mm)
        intensities = image.array.transpose(2, 1, 0)
        judged = {
            key: Judgement(
                score.suspicion,
                float(contrast.doubts(intensities, stacks[key]).max()),
                score.verdict != "",
                bool(broken_rules(stacks[key], spacing_mm)),
            )
            for key, score in zip(stacks, scores, strict=True)
        }
        on_case()
        return judged.pop(""), judged

    with ThreadPoolExecutor(AHEAD) as pool:
        results = list(pool.map(one, enumerate(cases)))
    intact = _columns([untouched for untouched, _ in results])
    table = {}
    for key in DAMAGES:
        judgements = [damaged[key] for _, damaged in results if key in damaged]
        if judgements:
            table[key] = _told_apart(_columns(judgements), intact) | {"n": len(judgements)}
    untouched = {
        "flagged": int(intact["flagged"].sum()),
        "rules": int(intact["breaks_a_rule"].sum()),
        "image": int((intact["doubt"] > contrast.DOUBT_LIMIT).sum()),
        "n": len(results),
    }
    return {"damage": table, "false_alarms_untouched": untouched}


def _columns(judgements: Sequence[Judgement]) -> dict[str, np.ndarray]:
    columns = zip(*judgements, strict=True)
    return {name: np.array(column) for name, column in zip(Judgement._fields, columns, strict=True)}


def _told_apart(
    damaged: Mapping[str, np.ndarray], intact: Mapping[str, np.ndarray]
) -> dict[str, float | None]:
    row: dict[str, float | None] = {}
    for ending, measures in (("", ["suspicion"]), ("_with_image", ["suspicion", "doubt"])):
        above, below = (np.max([of[measure] for measure in measures], axis=0) for of in (damaged, intact))
        ranks = not np.isnan(above).any() and not np.isnan(below).any()
        row["auc" + ending] = roc_auc(above, below) if ranks else None
        row["detection_2pct" + ending] = detection_rate(above, below) if ranks else None
    return row | {
        "flagged": float(damaged["flagged"].mean()),
        "rules": float(damaged["breaks_a_rule"].mean()),
    }
