"""The synthetic cohort in EMIDEC's layout: late gadolinium enhancement, infarctions, no-reflow."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from qcjax.data.datasets import emidec
from qcjax.data.nifti import read_image, read_labels
from qcjax.data.subject import Subject
from qcjax.data.validate import validate_emidec
from qcjax.labels import EMIDEC_LABELS
from qcjax.phantom import LgePhantomConfig, LgeSubject, make_lge_subject, write_emidec
from qcjax.phantom.lge_scan import NULL, Protocol, scan_lge
from qcjax.phantom.lge_scar import TERRITORIES, Infarct
from qcjax.phantom.patient import sample_patient

CONFIG = LgePhantomConfig(n_normal=4, n_pathological=8, n_test=3, seed=0, matrix_scale=0.5)

Cohort = tuple[Path, list[Subject], list[LgeSubject]]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    made: list[LgeSubject] = []
    folder = write_emidec(tmp_path_factory.mktemp("data") / "EMIDEC", CONFIG, made.append)
    return folder, emidec.find(folder), made


def test_the_files_are_a_sound_data_set(cohort: Cohort) -> None:
    folder, subjects, made = cohort
    assert validate_emidec(folder) == []
    assert {s.code for s in subjects} == {s.code for s in made}
    assert Counter((s.part, s.disease) for s in subjects) == {
        ("train", "normal"): 4,
        ("train", "pathological"): 8,
        ("test", ""): 3,
    }
    assert Counter(s.disease for s in made if s.part == "test") == {"normal": 1, "pathological": 2}
    assert sorted(int(s.code[-3:]) for s in made) == [*range(1, 13), 101, 102, 103]
    assert not (folder / "Case_101" / "Contours").exists()
    parts = emidec.folds(subjects, 4, 0)
    assert [Counter(s.disease for s in part) for part in parts] == [{"normal": 1, "pathological": 2}] * 4


def test_the_files_hold_the_hearts(cohort: Cohort) -> None:
    _, subjects, made = cohort
    sources = {s.code: s for s in made}
    for subject in subjects:
        (case,) = subject.cases
        item = sources[subject.code].image
        image = read_image(case.image_path)
        assert np.array_equal(image.array, item.image)
        assert np.allclose(image.spacing_mm, item.spacing_mm)
        assert image.spacing_mm[2] in (10, 13)
        assert 5 <= image.array.shape[2] <= 10
        if case.label_path is not None:
            assert np.array_equal(read_labels(case.label_path, EMIDEC_LABELS, image).array, item.label)


def test_the_clinical_texts_are_as_odd_as_the_real_ones(cohort: Cohort) -> None:
    folder, _, made = cohort
    for subject in made:
        path = folder / f"{subject.code.replace('_', ' ')}.txt"
        data = path.read_bytes()
        assert data.count(b"\xa0") == 2 and b"\xc2" not in data
        assert data.count(b"\r\n") == data.count(b"\n") == 15
        values = emidec.read_clinical(path)
        assert values == {key.lower(): value for key, value in subject.clinical.items()}
        assert values["gap between slices"] == f"{subject.image.spacing_mm[2]:g} mm"


def test_every_slice_has_a_closed_wall_and_the_apex_comes_first(cohort: Cohort) -> None:
    for subject in cohort[2]:
        labels = subject.image.label
        outside = ndimage.binary_dilation(labels == 0, np.ones((3, 3, 1), bool))
        assert not np.any(outside & (labels == 1)), subject.code
        areas = (labels == 1).sum((0, 1))
        assert areas.min() > 0
        assert areas[0] < 0.8 * areas[-1]


def test_infarctions_lie_at_the_endocardium_and_enclose_what_has_no_reflow(cohort: Cohort) -> None:
    cores = 0
    for subject in cohort[2]:
        labels = subject.image.label
        assert bool(np.any(labels > 2)) == (subject.infarct is not None)
        dead = labels > 2
        if not dead.any():
            continue
        assert 0.005 < dead.sum() / (labels > 1).sum() < 0.6
        assert dead.any((0, 1)).sum() > 1  # over several slices
        near_cavity = ndimage.binary_dilation(labels == 1, np.ones((3, 3, 1), bool), iterations=2)
        blobs, n = ndimage.label(dead)
        biggest = blobs == 1 + int(np.argmax(ndimage.sum(dead, blobs, range(1, n + 1))))
        assert np.any(biggest & near_cavity)
        core = labels == 4
        around = ndimage.binary_dilation(core, np.ones((3, 3, 1), bool)) & ~core
        assert set(np.unique(labels[around])) <= {1, 3}
        cores += bool(core.any())
    assert 2 <= cores < 10


def test_an_infarction_is_bright_but_not_told_by_its_brightness_alone(cohort: Cohort) -> None:
    easy = []
    for subject in cohort[2]:
        image, labels = subject.image.image.astype(float), subject.image.label
        blood, normal = image[labels == 1], image[labels == 2]
        assert blood.mean() > normal.mean() + normal.std()
        assert abs(normal.mean() - NULL) < 250
        scar = image[labels == 3]
        if len(scar) > 30:
            both = np.concatenate([scar, normal])
            ranks = np.argsort(np.argsort(both))[: len(scar)]
            easy.append((ranks.mean() - (len(scar) - 1) / 2) / len(normal))
        if np.count_nonzero(labels == 4) > 20:
            assert image[labels == 4].mean() < scar.mean()
    assert 0.8 < np.median(easy) < 0.98 and min(easy) > 0.6  # the area under the ROC curve


def test_what_an_infarction_s_numbers_do() -> None:
    patient = sample_patient("NOR", np.random.default_rng(1))
    shape = patient.shapes["ED"]
    protocol = replace(Protocol.sample(np.random.default_rng(2)), spacing_mm=1.5, slice_mm=10.0)

    def labels(infarct: Infarct | None) -> np.ndarray:
        return scan_lge(shape, infarct, 0.5, protocol, np.random.default_rng(3), 0.7).label

    small = Infarct("LAD", np.radians(-120), 0.6, 45.0, 25.0, 0.4, 0.0)
    healthy, thin = labels(None), labels(small)
    deep, wide = labels(replace(small, transmurality=1.0)), labels(replace(small, half_width=1.3))
    cored = labels(replace(small, transmurality=1.0, half_width=1.3, core=0.7))
    assert not np.any(healthy > 2)
    for other in (thin, deep, wide, cored):  # the heart itself is the same
        assert np.array_equal(np.minimum(other, 2), healthy)
    n = [int((a > 2).sum()) for a in (thin, deep, wide)]
    assert 0 < n[0] < 0.7 * n[1] and n[0] < 0.7 * n[2]
    assert not np.any(wide == 4) and np.any(cored == 4)
    epicardium = ndimage.binary_dilation(healthy == 0, np.ones((3, 3, 1), bool))
    assert not np.any(epicardium & (thin > 2)) and np.any(epicardium & (deep > 2))


def test_infarctions_at_random_are_of_all_kinds() -> None:
    shape = sample_patient("NOR", np.random.default_rng(0)).shapes["ED"]
    rng = np.random.default_rng(0)
    drawn = [Infarct.sample(shape, rng) for _ in range(200)]
    assert {i.territory for i in drawn} == set(TERRITORIES)
    depths = np.array([i.transmurality for i in drawn])
    assert 0.25 <= depths.min() < 0.4 and depths.max() == 1
    cored = np.array([i.core > 0 for i in drawn])
    assert 0.4 < cored.mean() < 0.8
    widths = np.array([i.half_width for i in drawn])
    assert widths[cored].mean() > widths[~cored].mean() and depths[cored].min() > 0.45


def test_a_subject_is_a_function_of_code_group_seed_and_scale(cohort: Cohort) -> None:
    first = cohort[2][0]
    again = make_lge_subject(first.code, first.disease, CONFIG.seed, CONFIG.matrix_scale)
    assert np.array_equal(again.image.image, first.image.image)
    assert again.clinical == first.clinical and again.infarct == first.infarct
    other = make_lge_subject(first.code, first.disease, 1, CONFIG.matrix_scale)
    assert other.clinical != first.clinical and other.infarct != first.infarct


def test_impossible_sizes() -> None:
    with pytest.raises(ValueError, match="n_normal = -1 found, expected 0 to 100"):
        LgePhantomConfig(n_normal=-1)
    with pytest.raises(ValueError, match=r"n_normal \+ n_pathological = 101 found, expected at most 100"):
        LgePhantomConfig(n_normal=50, n_pathological=51)
    with pytest.raises(ValueError, match="n_test = 51 found, expected 0 to 50"):
        LgePhantomConfig(n_test=51)
    with pytest.raises(ValueError, match="matrix_scale 0 found"):
        LgePhantomConfig(matrix_scale=0)
