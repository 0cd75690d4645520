"""A monitor trained on anybody's own masks: a folder of NIfTI files, any labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcjax.config import MonitorConfig, Preset
from qcjax.data.mask_cohort import MaskCase
from qcjax.data.masks import find_masks, label_values
from qcjax.labels import label_mapping, structures_named
from qcjax.monitor import Monitor
from qcjax.run_folder import open_folder
from qcjax.train.monitor import MonitorTraining, Reading, check_may_be_absent, prepare_both
from qcjax.train.parallel import Devices
from qcjax.train.progress import say
from qcjax.wording import count_of


@dataclass(frozen=True)
class OwnMasks:
    """What a monitor is trained on, and how; written to `config.json` beside it."""

    masks: Path
    labels: Mapping[str, int]  # key of each structure -> its value in the files
    monitor: MonitorConfig
    preset: Preset
    validation: float  # share of the subjects
    seed: int


def train_on_folder(
    masks: Path,
    out: Path,
    labels: Mapping[str, int] | None,
    config: MonitorConfig,
    preset: Preset,
    validation: float = 0.2,
    seed: int = 0,
    devices: int | None = None,
) -> Monitor:
    """Train a monitor on every mask in a folder; the masks of a subject stay together in the split.

    Args:
      labels: key of each structure -> its value in the files; None: every value that occurs, as label1, label2, ...

    Raises:
      FileNotFoundError, ValueError: a folder or a file that can't be used, a setting that makes no sense, or an `out`
        that belongs to other masks or settings.
    """
    if not 0 < validation < 1:
        raise ValueError(
            f"validation: {validation} found, expected a share of the subjects, above 0 and below 1"
        )
    cases = find_masks(masks, say)
    values = dict(labels) if labels else {f"label{v}": v for v in label_values([c.path for c in cases])}
    if not values:
        raise ValueError(f"{masks}: {len(cases)} masks of zeros alone found, expected labels above 0")
    structures = structures_named(tuple(values))
    check_may_be_absent(config, values)
    parts = split_by_subject(cases, validation, seed)
    open_folder(OwnMasks(masks, values, config, preset, validation, seed), out)
    sizes = [(len(p), len({c.group for c in p})) for p in parts]
    counts = " and ".join(f"{count_of(n, 'mask')} of {count_of(of, 'subject')}" for n, of in sizes)
    say(f"Training and validation: {counts}; structures {', '.join(f'{k} = {v}' for k, v in values.items())}")
    mapping = label_mapping(structures, values)
    training, held_out = prepare_both(*parts, mapping, config)
    reading: Reading = "original" if preset == "original" else "paper"
    run = MonitorTraining(config, values, training, held_out, out, seed, reading, Devices(devices))
    return run.run()


def split_by_subject(
    cases: list[MaskCase], validation: float, seed: int
) -> tuple[list[MaskCase], list[MaskCase]]:
    """Training and validation cases, a subject's masks together; at least one subject in each.

    Raises ValueError for a single subject.
    """
    groups = sorted({case.group for case in cases})
    if len(groups) < 2:
        raise ValueError(
            f"{len(cases)} masks of one subject ({groups[0]}) found, expected those of at least two "
            "(the subject is the file's name up to the first _)"
        )
    held_out = min(max(1, round(validation * len(groups))), len(groups) - 1)
    chosen = {groups[i] for i in np.random.default_rng(seed).permutation(len(groups))[:held_out]}
    return [c for c in cases if c.group not in chosen], [c for c in cases if c.group in chosen]
