"""A monitor trained on anybody's own masks: a folder of NIfTI files, any labels."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from qcjax.config import MonitorConfig, Preset, method_of
from qcjax.data.datasets.masks import SUBJECT, find_masks, label_values, read_mask
from qcjax.data.findings import InvalidFile
from qcjax.data.mask_cohort import MaskCase
from qcjax.inference.monitor import Monitor
from qcjax.labels import label_mapping, structures_named
from qcjax.runtime.devices import Devices
from qcjax.runtime.files import read_object
from qcjax.runtime.folder import open_folder
from qcjax.runtime.progress import say
from qcjax.runtime.wording import count_of
from qcjax.scoring.occurrence import check_occurrence, without_twins
from qcjax.train.monitor import MonitorTraining, check_options, prepare_both


@dataclass(frozen=True)
class OwnMasks:
    """What a monitor is trained on, and how; written to `config.json` beside it."""

    masks: Path
    labels: Mapping[str, int]  # key of each structure -> its value in the files
    monitor: MonitorConfig
    preset: Preset
    validation: float  # share of the subjects
    seed: int
    subject: str = SUBJECT  # regular expression
    left_out: tuple[str, ...] = ()  # names of the masks that can't be used
    on_nonfinite: Literal["stop", "skip"] = "stop"


def train_on_folder(
    masks: Path,
    out: Path,
    labels: Mapping[str, int] | None,
    config: MonitorConfig,
    preset: Preset,
    validation: float = 0.2,
    seed: int = 0,
    devices: int | None = None,
    subject: str | None = None,
    on_nonfinite: Literal["stop", "skip"] = "stop",
    skip_invalid: bool = False,
) -> Monitor:
    """Train a monitor on every mask in a folder; the masks of a subject stay together in the split.

    Args:
      labels: key of each structure -> its value in the files; None: every value that occurs, as label1, label2, ...
      subject: regular expression that finds the subject in a mask's name, see `find_masks`; None: the one that
        the run in `out` was begun with, for a new one `masks.SUBJECT`.
      on_nonfinite: what becomes of a batch whose loss or gradient isn't finite.
      skip_invalid: leave out masks that can't be used, which are told of and written to `config.json`.

    Raises:
      FileNotFoundError, ValueError: a folder or a file that can't be used, a setting that makes no sense, or an `out`
        that belongs to other masks or settings.
    """
    if not 0 < validation < 1:
        raise ValueError(
            f"validation: {validation} found, expected a share of the subjects, above 0 and below 1"
        )
    if subject is None:
        subject = _subject_so_far(out)
    found = find_masks(masks, say, subject)
    cases, occurring = _usable(found, labels, skip_invalid)
    if not cases:
        raise ValueError(f"{masks}: {count_of(len(found), 'mask')} found, expected any that can be used")
    values = dict(labels) if labels else {f"label{v}": v for v in occurring}
    if not values:
        raise ValueError(
            f"{masks}: {count_of(len(cases), 'mask')} of zeros alone found, expected labels above 0"
        )
    structures = structures_named(tuple(values))
    method = method_of(preset)
    check_options(config, values, method)
    parts = split_by_subject(cases, validation, seed)
    sizes = [(len(p), len({c.group for c in p})) for p in parts]
    counts = " and ".join(f"{count_of(n, 'mask')} of {count_of(of, 'subject')}" for n, of in sizes)
    say(f"Training and validation: {counts}; structures {', '.join(f'{k} = {v}' for k, v in values.items())}")
    mapping = label_mapping(structures, values)
    training, held_out = prepare_both(*parts, mapping, config)  # a mask that can't be used makes no folder
    training = without_twins(training, held_out, say)
    check_occurrence([training, held_out], structures, config.may_be_absent, say)
    left_out = tuple(sorted({case.name for case in found} - {case.name for case in cases}))
    open_folder(
        OwnMasks(masks, values, config, preset, validation, seed, subject, left_out, on_nonfinite), out
    )
    run = MonitorTraining(
        config, values, training, held_out, out, seed, method, Devices(devices), on_nonfinite
    )
    return run.run()


def _subject_so_far(out: Path) -> str:
    """What finds the subject in a name: as the run in a folder was begun, or the default where none was."""
    path = out / "config.json"
    if not path.exists():
        return SUBJECT
    return str(read_object(path, "the configuration of a run").get("subject", SUBJECT))


def _usable(
    cases: list[MaskCase], labels: Mapping[str, int] | None, skip_invalid: bool
) -> tuple[list[MaskCase], list[int]]:
    """The masks without errors, and the values in them, sorted, unless there are labels; tells of those left out.

    With labels and without `skip_invalid` none is read, and every mask is returned, unless all are of one subject: then
    a damaged mask, if there is one, is named first.

    Raises InvalidFile or OSError for the first mask that can't be used, unless `skip_invalid`.
    """
    if labels and not skip_invalid and len({case.group for case in cases}) > 1:
        return cases, []
    mapping = label_mapping(structures_named(tuple(labels)), labels) if labels else None

    def read(case: MaskCase) -> set[int] | Exception:
        try:
            if mapping is None:
                return label_values(case.path)
            read_mask(case.path, mapping)
            return set()
        except (InvalidFile, OSError) as error:
            if not skip_invalid:
                raise
            return error

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(read, cases))
    usable, values, names = [], set[int](), []
    for case, outcome in zip(cases, found, strict=True):
        if isinstance(outcome, Exception):
            say(f"error: {outcome}")
            names.append(case.name)
        else:
            usable.append(case)
            values |= outcome
    if names:
        say(f"Left out, because of errors: {count_of(len(names), 'mask')} ({', '.join(names)})")
    return usable, sorted(values)


def split_by_subject(
    cases: list[MaskCase], validation: float, seed: int
) -> tuple[list[MaskCase], list[MaskCase]]:
    """Training and validation cases, a subject's masks together; at least one subject in each.

    Raises ValueError for a single subject.
    """
    groups = sorted({case.group for case in cases})
    if len(groups) < 2:
        raise ValueError(
            f"{count_of(len(cases), 'mask')} of one subject ({groups[0]}) found, expected those of at least two "
            "(--subject REGEX says what names the subject in a mask's path)"
        )
    held_out = min(max(1, round(validation * len(groups))), len(groups) - 1)
    chosen = {groups[i] for i in np.random.default_rng(seed).permutation(len(groups))[:held_out]}
    return [c for c in cases if c.group not in chosen], [c for c in cases if c.group in chosen]
