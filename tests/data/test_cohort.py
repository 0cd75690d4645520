from dataclasses import replace

import numpy as np
import pytest

from qcjax.data.cohort import orientation_of, prepare
from qcjax.data.datasets import acdc, mnms2
from qcjax.labels import ACDC_LABELS, MNMS2_LABELS
from tests.headers import store_otherwise

SIZE = 32


@pytest.fixture
def subjects(make_cohort):
    return mnms2.find(make_cohort(codes=(1, 2, 161), without_truth=(161,)))


def test_a_cohort_knows_where_its_cases_are(subjects):
    seen = []
    cohort = prepare(subjects[:2], "SA", (1.5, 1.5), SIZE, True, on_case=lambda: seen.append(1))
    assert [c.name for c in cohort.cases] == ["001_SA_ED", "001_SA_ES", "002_SA_ED", "002_SA_ES"]
    assert len(seen) == 4
    assert cohort.slices.image.shape == cohort.slices.label.shape == (24, SIZE, SIZE)
    assert cohort.slices.image.dtype == np.float32 and cohort.slices.label.dtype == np.uint8
    np.testing.assert_array_equal(cohort.first, [0, 6, 12, 18, 24])
    np.testing.assert_array_equal(cohort.owner, np.repeat(np.arange(4), 6))
    assert cohort.phases.tolist() == ["ED", "ES"] * 2
    assert cohort.rows(2) == slice(12, 18)
    np.testing.assert_array_equal(cohort.slices_of([3, 1]), [*range(6, 12), *range(18, 24)])
    parts = list(cohort.split(cohort.slices.image))
    assert len(parts) == 4
    np.testing.assert_array_equal(parts[2], cohort.slices.image[12:18])


def test_slices_are_normalised_and_labels_kept(subjects):
    cohort = prepare(subjects[:1], "LA", (1.5, 1.25), SIZE, True)
    assert cohort.slices.image.shape == (2, SIZE, SIZE)
    assert set(np.unique(cohort.slices.label)) == {0, 1, 2, 3}
    values = cohort.slices.image[0][cohort.slices.image[0] != 0]
    assert values.mean() == pytest.approx(0, abs=1e-4) and values.std() == pytest.approx(1, abs=1e-3)


def test_without_labels_the_truth_is_not_even_read(subjects):
    broken = [
        replace(s, cases=tuple(replace(c, label_path=c.image_path.with_name("gone.nii")) for c in s.cases))
        for s in subjects
    ]
    cohort = prepare(broken, "SA", (1.5, 1.5), SIZE, False)
    assert not cohort.slices.label.any() and cohort.slices.image.any()


def test_the_image_is_prepared_alike_with_and_without_labels(subjects):
    with_truth = prepare(subjects[:1], "SA", (1.5, 1.5), SIZE, True)
    without = prepare(subjects[:1], "SA", (1.5, 1.5), SIZE, False)
    np.testing.assert_array_equal(with_truth.slices.image, without.slices.image)


def test_training_needs_truth(subjects):
    with pytest.raises(ValueError, match="161_SA_ED.*no ground truth.*expected one"):
        prepare(subjects, "SA", (1.5, 1.5), SIZE, True)


def test_a_cohort_may_be_empty(subjects):
    cohort = prepare([], "SA", (1.5, 1.5), SIZE, True)
    assert cohort.slices.image.shape == (0, SIZE, SIZE)
    assert cohort.first.tolist() == [0] and list(cohort.split(cohort.slices.image)) == []


@pytest.mark.parametrize(
    ("order", "signs"), [((1, 0, 2), (1, -1, 1)), ((0, 1, 2), (-1, -1, -1)), ((2, 0, 1), (1, 1, -1))]
)
@pytest.mark.parametrize("layout", ["mnms2", "acdc"])
def test_files_that_are_stored_otherwise_are_prepared_alike(make_cohort, make_acdc, layout, order, signs):
    """To the orientation that most have: of three subjects one is stored along other axes."""
    find, mapping = (mnms2.find, MNMS2_LABELS) if layout == "mnms2" else (acdc.find, ACDC_LABELS)
    folder = (make_cohort if layout == "mnms2" else make_acdc)(codes=(1, 2, 3))

    def prepared():
        subjects = find(folder)
        return prepare(
            subjects,
            "SA",
            (1.5, 1.4),
            SIZE,
            True,
            mapping=mapping,
            orientation=orientation_of(subjects, "SA"),
        )

    as_it_was = prepared()
    for case in as_it_was.cases[2:4]:
        for path in (case.image_path, case.label_path):
            store_otherwise(path, order, signs)
    found = prepared()
    np.testing.assert_allclose(found.slices.image, as_it_was.slices.image, atol=1e-5)
    np.testing.assert_array_equal(found.slices.label, as_it_was.slices.label)
    stored = prepare(find(folder), "SA", (1.5, 1.4), SIZE, True, mapping=mapping)
    assert not np.allclose(stored.slices.image, as_it_was.slices.image, atol=0.1)
