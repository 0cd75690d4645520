"""What is told of masks before a monitor is trained on them: which structures they have, and which are alike."""

import hashlib
from collections.abc import Callable, Collection, Sequence

import numpy as np
from jaxtyping import UInt8

from qcjax.data.mask_cohort import MaskCohort
from qcjax.labels import Structure
from qcjax.runtime.wording import count_of

RARE = 0.5  # of the masks: a structure that fewer have is told of


def check_occurrence(
    cohorts: Sequence[MaskCohort],
    structures: Sequence[Structure],
    may_be_absent: Collection[str],
    tell: Callable[[str], None],
) -> None:
    """Tell in how many masks each structure is, where some lack it.

    Raises:
      ValueError: a structure that no mask has.
    """
    stacks = [stack for cohort in cohorts for stack in stacks_of(cohort)]
    pixels = {s.key: np.array([np.count_nonzero(x == s.id) for x in stacks]) for s in structures}
    counts = {key: int(np.count_nonzero(n)) for key, n in pixels.items()}
    listed = ", ".join(f"{key} in {n} ({int(pixels[key].sum())} pixels)" for key, n in counts.items())
    absent = [key for key, n in counts.items() if n == 0]
    if absent:
        raise ValueError(
            f"--labels: found no mask with {', '.join(absent)} among {len(stacks)} prepared ones ({listed}); "
            "expected each structure in some"
        )
    rare = [key for key, n in counts.items() if n < RARE * len(stacks) and key not in may_be_absent]
    if rare:
        tell(
            f"warning: of {count_of(len(stacks), 'mask')}: {listed}; a mask without {' or '.join(rare)} will be "
            "erroneous, unless --may-be-absent or --labels says otherwise"
        )


def without_twins(training: MaskCohort, held_out: MaskCohort, tell: Callable[[str], None]) -> MaskCohort:
    """The training masks that aren't among the held-out ones too, which would be judged by heart.

    Raises:
      ValueError: none is left.
    """
    known = {
        digest: case.name for case, digest in zip(held_out.cases, _digests(held_out), strict=True) if digest
    }
    digests = _digests(training)
    kept = [i for i, digest in enumerate(digests) if digest not in known]
    if len(kept) == len(digests):
        return training
    twins = [
        f"{case.name} = {known[digest]}"
        for case, digest in zip(training.cases, digests, strict=True)
        if digest in known
    ]
    named = ", ".join(twins[:3]) + (", ..." if len(twins) > 3 else "")
    if not kept:
        raise ValueError(f"all masks for training are for validation too ({named}); expected different ones")
    tell(
        f"Left out of training, since the same masks are for validation: {count_of(len(twins), 'mask')} ({named})"
    )
    stacks = stacks_of(training)
    return MaskCohort(
        tuple(training.cases[i] for i in kept),
        tuple(training.geometries[i] for i in kept),
        np.concatenate([stacks[i] for i in kept]),
        training.orientation,
    )


def stacks_of(cohort: MaskCohort) -> list[UInt8[np.ndarray, "_ h w"]]:
    """The prepared slices of each case, (slices, h, w)."""
    return np.split(cohort.label, cohort.first[1:-1])


def _digests(cohort: MaskCohort) -> list[str]:
    """A digest of each case's labels; empty for a mask of nothing, of which many may be alike."""
    return [
        hashlib.blake2b(repr(x.shape).encode() + x.tobytes(), digest_size=16).hexdigest() if x.any() else ""
        for x in stacks_of(cohort)
    ]
