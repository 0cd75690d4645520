"""The synthetic cohort in ACDC's layout."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from qcjax.data.datasets import acdc
from qcjax.data.nifti import read_image, read_labels
from qcjax.data.subject import Subject
from qcjax.data.validate import validate_acdc
from qcjax.labels import ACDC_LABELS, LV, MYO, RV
from qcjax.phantom import AcdcPhantomConfig, PhantomSubject, write_acdc
from qcjax.phantom.acdc import ACDC_DISEASES
from qcjax.phantom.scanner import UNSEEN_SCANNER

CONFIG = AcdcPhantomConfig(n_train=5, n_test=5, seed=0, matrix_scale=0.4)

Cohort = tuple[Path, list[Subject], list[PhantomSubject]]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    made: list[PhantomSubject] = []
    folder = write_acdc(tmp_path_factory.mktemp("data") / "ACDC", CONFIG, made.append)
    return folder, acdc.find(folder), made


def test_the_files_are_a_sound_data_set(cohort: Cohort) -> None:
    folder, subjects, made = cohort
    assert validate_acdc(folder) == []
    assert [s.code for s in subjects] == [f"patient{i:03d}" for i in (*range(1, 6), *range(101, 106))]
    assert Counter(s.part for s in subjects) == {"train": 5, "test": 5}
    assert [s.disease for s in subjects] == [s.disease for s in made]
    information = acdc.read_information(folder / "training" / "patient001" / "Info.cfg")
    assert list(information) == ["ed", "es", "group", "height", "nbframe", "weight"]
    assert 1 == int(information["ed"]) < int(information["es"]) < int(information["nbframe"])
    assert acdc.split(subjects, 0).note == ""


def test_the_files_hold_the_hearts(cohort: Cohort) -> None:
    _, subjects, made = cohort
    for subject, source in zip(subjects, made, strict=True):
        assert set(source.images) == {("SA", "ED"), ("SA", "ES")}
        for case in subject.cases:
            item = source.images["SA", case.phase]
            image = read_image(case.image_path)
            assert np.array_equal(image.array, item.image)
            assert case.label_path is not None
            labels = read_labels(case.label_path, ACDC_LABELS, image).array
            assert np.array_equal(labels, item.label)
            assert {LV.id, MYO.id, RV.id} <= set(np.unique(labels).tolist())


def test_groups_come_round_in_both_parts_and_the_test_has_a_harder_scanner(cohort: Cohort) -> None:
    _, subjects, made = cohort
    for part in ("train", "test"):
        assert sorted(s.disease for s in subjects if s.part == part) == sorted(acdc.GROUPS)
        hard = [s for s in made if s.part == part and s.scanner == UNSEEN_SCANNER]
        assert len(hard) == (1 if part == "test" else 0)
    assert set(ACDC_DISEASES) == set(acdc.GROUPS)


def test_an_infarcted_heart_contracts_badly(cohort: Cohort) -> None:
    _, _, made = cohort

    def ejection_fraction(subject: PhantomSubject) -> float:
        volumes = [float((subject.images["SA", p].label == LV.id).sum()) for p in ("ED", "ES")]
        return 1 - volumes[1] / volumes[0]

    by_group = {g: [ejection_fraction(s) for s in made if s.disease == g] for g in acdc.GROUPS}
    assert max(by_group["MINF"]) < 0.48 < min(by_group["NOR"])
    assert max(by_group["DCM"]) < 0.45


def test_a_subject_is_a_function_of_code_seed_and_scale(cohort: Cohort, tmp_path: Path) -> None:
    folder, _, _ = cohort
    again = write_acdc(tmp_path, AcdcPhantomConfig(2, 0, CONFIG.seed, CONFIG.matrix_scale))
    for path in sorted(again.rglob("*.*")):
        assert path.read_bytes() == (folder / path.relative_to(again)).read_bytes()
    assert len(list(again.rglob("*.nii.gz"))) == 8
    other = next(AcdcPhantomConfig(1, 0, 1, CONFIG.matrix_scale).subjects())
    first = next(CONFIG.subjects())
    assert not np.array_equal(
        other.images["SA", "ED"].image[:9, :9, 0], first.images["SA", "ED"].image[:9, :9, 0]
    )


def test_impossible_sizes() -> None:
    with pytest.raises(ValueError, match="n_train = 101 found, expected 0 to 100"):
        AcdcPhantomConfig(n_train=101)
    with pytest.raises(ValueError, match="n_test = -1 found, expected 0 to 50"):
        AcdcPhantomConfig(n_test=-1)
    with pytest.raises(ValueError, match="matrix_scale 0 found"):
        AcdcPhantomConfig(matrix_scale=0)
