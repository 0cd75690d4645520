"""Splits by patient: evenly by disease, and the same images under two codes never in two parts."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from qcjax.data.nifti import read_image
from qcjax.data.subject import Subject
from qcjax.runtime import hosts
from qcjax.runtime.wording import count_of


def image_digests(subjects: Sequence[Subject]) -> list[set[bytes]]:
    """The digests of every subject's images, of their voxels alone; a set for each subject, in their order.

    Raises:
      InvalidFile: an image that can't be read.
    """

    def digests(subject: Subject) -> set[bytes]:
        arrays = (read_image(case.image_path).array for case in subject.cases)
        return {hashlib.blake2b(a.tobytes(order="F"), digest_size=16).digest() for a in arrays}

    return hosts.share(digests, subjects)


def shares(
    subjects: Sequence[Subject], images: Mapping[str, set[bytes]], fractions: Sequence[float], seed: int
) -> tuple[tuple[Subject, ...], ...]:
    """Subjects in parts of about these fractions, each disease about evenly over them; sorted by code.

    Args:
      images: digests of the images by subject code; subjects that share one stay together.
      fractions: of each part; each gets at least one patient.
      seed: the same seed and subjects give the same parts.

    Raises:
      ValueError: fewer patients than parts.
    """
    patients = _patients(sorted(subjects, key=lambda s: s.code), images)
    if len(patients) < len(fractions):
        raise ValueError(
            f"found {count_of(len(patients), 'labelled training patient')}; expected at least {len(fractions)}, "
            f"one for each of {len(fractions)} parts"
        )
    order = np.random.default_rng(seed).permutation(len(patients))
    shuffled = sorted((patients[i] for i in order), key=lambda members: members[0].disease)
    parts: list[list[list[Subject]]] = [[] for _ in fractions]
    dealt = 0
    for members in shuffled:  # to the part that lags most behind its share
        dealt += len(members)
        behind = [f * dealt - sum(map(len, p)) for f, p in zip(fractions, parts, strict=True)]
        parts[int(np.argmax(behind))].append(members)
    for part in parts:
        if not part:
            part.append(max(parts, key=len).pop())
    return tuple(
        tuple(sorted((s for members in part for s in members), key=lambda s: s.code)) for part in parts
    )


def _patients(subjects: Sequence[Subject], images: Mapping[str, set[bytes]]) -> list[list[Subject]]:
    """Subjects that share an image together."""
    patients: list[tuple[set[bytes], list[Subject]]] = []
    for subject in subjects:
        same = [p for p in patients if p[0] & images[subject.code]]
        digests = images[subject.code].union(*(p[0] for p in same))
        members = [*(s for p in same for s in p[1]), subject]
        patients = [p for p in patients if p not in same] + [(digests, members)]
    return [members for _, members in patients]
