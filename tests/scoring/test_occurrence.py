"""What is told of masks before training: structures that none or few have, and masks that are in both parts."""

from pathlib import Path

import numpy as np
import pytest

from qcjax.data.mask_cohort import MaskCase, MaskCohort
from qcjax.data.preprocess import plan_mask
from qcjax.labels import structures_named
from qcjax.scoring.occurrence import check_occurrence, without_twins

STRUCTURES = structures_named(("lv", "myo", "stray"))


def cohort(*stacks: np.ndarray, first: str = "p") -> MaskCohort:
    cases = tuple(MaskCase(f"{first}{i}", f"{first}{i}", Path(f"{first}{i}.nii")) for i in range(len(stacks)))
    geometries = tuple(plan_mask((8, 8, len(x)), (1.0, 1.0, 1.0), (1.0, 1.0), 8) for x in stacks)
    return MaskCohort(cases, geometries, np.concatenate(stacks))


def stack(*values: int, slices: int = 2) -> np.ndarray:
    labels = np.zeros((slices, 8, 8), np.uint8)
    for row, value in enumerate(values):
        labels[:, row, :4] = value
    return labels


def test_a_structure_that_no_mask_has_is_refused_with_the_counts() -> None:
    told: list[str] = []
    message = r"no mask with stray among 3 prepared ones \(lv in 3 \(24 pixels\), myo in 2 \(16 pixels\), stray in 0"
    with pytest.raises(ValueError, match=message):
        check_occurrence([cohort(stack(1, 2), stack(1)), cohort(stack(1, 2))], STRUCTURES, (), told.append)
    assert told == []


def test_a_structure_that_few_masks_have_is_told_of() -> None:
    told: list[str] = []
    one = stack(1, 2)
    one[0, 7, 7] = 3
    parts = [cohort(one, stack(1, 2), stack(1, 2))]
    check_occurrence(parts, STRUCTURES, (), told.append)
    assert "stray in 1 (1 pixels); a mask without stray will be erroneous" in told[0]
    check_occurrence(parts, STRUCTURES, ("stray",), told.append)
    assert len(told) == 1


def test_masks_that_are_in_both_parts_are_left_out_of_training() -> None:
    told: list[str] = []
    held_out = cohort(stack(1), stack(0), first="v")
    training = cohort(stack(1, 2), stack(1), stack(0), stack(1, slices=3))
    kept = without_twins(training, held_out, told.append)
    assert [case.name for case in kept.cases] == [
        "p0",
        "p2",
        "p3",
    ]  # empty masks are alike without being twins
    assert np.array_equal(kept.label, np.concatenate([stack(1, 2), stack(0), stack(1, slices=3)]))
    assert kept.first.tolist() == [0, 2, 4, 7]
    assert "1 mask (p1 = v0)" in told[0]
    other = cohort(stack(2), first="v")
    assert without_twins(training, other, told.append) is training
    with pytest.raises(
        ValueError, match=r"all masks for training are for validation too \(p0 = v0, p1 = v0\)"
    ):
        without_twins(cohort(stack(1), stack(1)), held_out, told.append)
