"""The synthetic cohort: what it must share with real ones, and what it promises of its own."""

import csv
import hashlib
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from qcjax.data.subject import PHASES, VIEWS
from qcjax.labels import LV, MYO, RV
from qcjax.phantom import PhantomConfig, PhantomImage, PhantomSubject, make_subject, write_mnms2
from qcjax.phantom.cohort import SEEN_DISEASES, TEST_DISEASES, drawn_disease, drawn_scanner
from qcjax.phantom.fields import ellipsoid, smooth_max
from qcjax.phantom.heart import contract
from qcjax.phantom.patient import DISEASES, sample_patient
from qcjax.phantom.scanner import SCANNERS, UNSEEN_SCANNER

SCALE = 0.5  # of the matrix: what is tested here needs no fine pixels
CODES = (
    {code: "train" for code in range(1, 7)} | {161: "validation"} | {code: "test" for code in range(201, 207)}
)


@pytest.fixture(scope="module")
def subjects() -> dict[int, PhantomSubject]:
    return {code: make_subject(code, part, 0, SCALE) for code, part in CODES.items()}


def volume_ml(item: PhantomImage, structure: int) -> float:
    return float((item.label == structure).sum() * np.prod(item.spacing_mm) / 1000)


def middle_slices(item: PhantomImage) -> list[int]:
    """The middle half of the slices that show the LV."""
    slices = np.flatnonzero((item.label == LV.id).any((0, 1)))
    n = len(slices)
    return slices[n // 4 : n - n // 4].tolist()


def world(item: PhantomImage, index: np.ndarray) -> np.ndarray:
    """(n, 3) voxel indices -> mm."""
    return index @ item.affine[:3, :3].T + item.affine[:3, 3]


def test_every_case_has_every_structure_and_real_geometry(subjects: dict[int, PhantomSubject]) -> None:
    for subject in subjects.values():
        assert set(subject.images) == {(view, phase) for view in VIEWS for phase in PHASES}
        for (view, _), item in subject.images.items():
            assert item.image.dtype == np.int16 and item.label.dtype == np.uint8
            assert item.image.shape == item.label.shape
            assert set(np.unique(item.label).tolist()) == {0, LV.id, MYO.id, RV.id}
            slices = item.image.shape[2]
            assert 6 <= slices <= 17 if view == "SA" else slices == 1
            if view == "SA":
                assert 8 <= item.spacing_mm[2] <= 12
            assert np.linalg.norm(item.affine[:3, :3], axis=0) == pytest.approx(item.spacing_mm)
            directions = item.affine[:3, :3] / item.spacing_mm
            assert directions.T @ directions == pytest.approx(np.eye(3), abs=1e-9)
            border = np.ones(item.label.shape[:2], bool)
            border[2:-2, 2:-2] = False
            assert not item.label[border].any()  # the heart lies inside the field of view
    stacks = [s.images["SA", phase].label for s in subjects.values() for phase in PHASES]
    assert any(not label.any((0, 1)).all() for label in stacks)  # some reach beyond base or apex


def test_full_size_pixels_are_as_in_real_data_and_a_subject_takes_about_a_second() -> None:
    start = time.process_time()
    subject = make_subject(1, "train", 0)
    assert time.process_time() - start < 4  # about 0.9 where nothing else runs
    for item in subject.images.values():
        assert 1.2 <= item.spacing_mm[0] == item.spacing_mm[1] <= 1.8
        assert 128 <= item.image.shape[0] <= 160
    half = make_subject(1, "train", 0, 0.5)
    for key, item in subject.images.items():
        assert half.images[key].image.shape[0] * 2 == item.image.shape[0]
        extent = [i.image.shape[0] * i.spacing_mm[0] for i in (item, half.images[key])]
        assert extent[0] == pytest.approx(extent[1])


def test_blood_is_brighter_than_myocardium_and_lungs_are_dark(subjects: dict[int, PhantomSubject]) -> None:
    for subject in subjects.values():
        item = subject.images["SA", "ED"]
        k = middle_slices(item)
        image, label = item.image[..., k].astype(float), item.label[..., k]
        blood, muscle = image[label == LV.id].mean(), image[label == MYO.id].mean()
        assert blood > 1.25 * muscle
        assert np.percentile(image, 10) < 0.8 * muscle


def test_contraction_gives_the_ejection_fractions_it_was_asked_for(
    subjects: dict[int, PhantomSubject],
) -> None:
    for subject in subjects.values():
        ed, es = subject.images["SA", "ED"], subject.images["SA", "ES"]
        lv_ef = 1 - volume_ml(es, LV.id) / volume_ml(ed, LV.id)
        rv_ef = 1 - volume_ml(es, RV.id) / volume_ml(ed, RV.id)
        assert lv_ef == pytest.approx(subject.patient.lv_ef, abs=0.07)
        assert rv_ef == pytest.approx(subject.patient.rv_ef, abs=0.11)
        assert 40 < volume_ml(ed, LV.id) < 400 and 40 < volume_ml(ed, RV.id) < 450
        assert volume_ml(es, MYO.id) == pytest.approx(
            volume_ml(ed, MYO.id), rel=0.15
        )  # muscle keeps its volume


def test_contraction_thickens_the_wall_and_moves_the_base_towards_the_apex() -> None:
    ed = sample_patient("NOR", np.random.default_rng(0)).shapes["ED"]
    es = contract(ed, 0.6, 0.55)
    assert es.wall > 1.2 * ed.wall and es.septum > ed.septum
    assert ed.base < es.base < ed.lv_apex and es.rv_base > ed.rv_base
    assert es.lv_radius < ed.lv_radius and es.rv_width < ed.rv_width
    assert es.la_radius > ed.la_radius
    still = contract(ed, 0.0, 0.0)
    assert (still.lv_radius, still.wall, still.base) == pytest.approx((ed.lv_radius, ed.wall, ed.base))


def test_myocardium_encloses_the_lv_in_the_middle(subjects: dict[int, PhantomSubject]) -> None:
    for subject in subjects.values():
        for phase in PHASES:
            item = subject.images["SA", phase]
            for k in middle_slices(item):
                label = item.label[..., k]
                around = ndimage.binary_dilation(label == LV.id) & (label != LV.id)
                assert (label[around] == MYO.id).all()


def test_rv_lies_beside_the_septum_on_the_patients_right(subjects: dict[int, PhantomSubject]) -> None:
    for subject in subjects.values():
        for view in VIEWS:
            item = subject.images[view, "ED"]
            lv, rv = (world(item, np.argwhere(item.label == s.id)).mean(0) for s in (LV, RV))
            assert rv[0] > lv[0] + 10  # to the right, as x grows
            label = item.label
            plane = np.zeros((3, 3, 3), bool)
            plane[:, :, 1] = True
            touching = ndimage.binary_dilation(label == RV.id, plane) & (label == MYO.id)
            assert touching.sum() > 10
            direct = ndimage.binary_dilation(label == RV.id, plane) & (label == LV.id)
            assert direct.sum() < 0.05 * touching.sum()


def test_short_and_long_axis_show_the_same_heart(subjects: dict[int, PhantomSubject]) -> None:
    for subject in subjects.values():
        for phase in PHASES:
            sa, la = subject.images["SA", phase], subject.images["LA", phase]
            index = np.stack(np.meshgrid(*[np.arange(n) for n in la.label.shape], indexing="ij"), -1).reshape(
                -1, 3
            )
            in_sa = (world(la, index) - sa.affine[:3, 3]) @ np.linalg.inv(sa.affine[:3, :3]).T
            nearest = np.round(in_sa).astype(int)
            inside = ((nearest >= 0) & (nearest < sa.label.shape)).all(1)
            inside &= np.abs(in_sa - nearest)[:, 2] * sa.spacing_mm[2] < 1.0  # close to a slice's middle
            a = sa.label[tuple(nearest[inside].T)]
            b = la.label[tuple(index[inside].T)]
            for structure, least in ((LV.id, 0.9), (RV.id, 0.85), (MYO.id, 0.7)):
                both = ((a == structure) & (b == structure)).sum()
                assert 2 * both / ((a == structure).sum() + (b == structure).sum()) > least


def test_views_share_intensities_only_up_to_noise_between_phases(subjects: dict[int, PhantomSubject]) -> None:
    item_ed, item_es = (subjects[1].images["SA", phase] for phase in PHASES)
    far = ndimage.binary_dilation((item_ed.label > 0) | (item_es.label > 0), iterations=3)
    far[14:-14, 14:-14] = True
    ed, es = item_ed.image[~far].astype(float), item_es.image[~far].astype(float)
    assert (ed != es).any()
    assert np.corrcoef(ed, es)[0, 1] > 0.9


def mean_of(disease: str, phase: str, name: str) -> float:
    patients = [sample_patient(disease, np.random.default_rng(seed)) for seed in range(40)]
    return float(np.mean([getattr(p.shapes[phase], name) for p in patients]))


def test_diseases_change_what_they_should() -> None:
    def ratio(disease: str, name: str) -> float:
        return mean_of(disease, "ED", name) / mean_of("NOR", "ED", name)

    assert ratio("LV", "lv_radius") > 1.2 and ratio("LV", "wall") < 1
    assert ratio("HCM", "septum") > 1.6 and ratio("HCM", "septum") > ratio("HCM", "wall") > 1.1
    assert ratio("FALL", "rv_wall") > 1.5 and ratio("FALL", "outflow_radius") > 1.1
    assert mean_of("CIA", "ED", "septal_defect") > 4 and mean_of("NOR", "ED", "septal_defect") == 0
    for disease in ("ARR", "FALL", "CIA", "RV", "TRI"):
        assert ratio(disease, "rv_width") > 1.1
    assert ratio("RV", "rv_width") > 1.4 and ratio("RV", "septal_flattening") < 0.8
    assert ratio("TRI", "ra_radius") > 1.3

    def mean_ef(disease: str, name: str) -> float:
        return float(
            np.mean([getattr(sample_patient(disease, np.random.default_rng(s)), name) for s in range(40)])
        )

    assert mean_ef("LV", "lv_ef") < 0.4
    assert 0.55 < mean_ef("NOR", "lv_ef") < mean_ef("HCM", "lv_ef")
    assert mean_ef("RV", "rv_ef") < mean_ef("ARR", "rv_ef") < mean_ef("NOR", "rv_ef")


def test_a_dilated_right_ventricle_shows_in_the_labels() -> None:
    ratios: dict[str, list[float]] = {"NOR": [], "RV": []}  # RV to LV
    for code in range(201, 221):
        disease = drawn_disease(code, "test", 0)
        if disease in ratios and len(ratios[disease]) < 2:
            item = make_subject(code, "test", 0, 0.3).images["SA", "ED"]
            ratios[disease].append(volume_ml(item, RV.id) / volume_ml(item, LV.id))
    assert min(ratios["RV"]) > 1.5 > max(ratios["NOR"])


def test_two_diseases_and_one_vendor_are_only_in_the_test_part() -> None:
    assert set(TEST_DISEASES) == set(DISEASES) == {*SEEN_DISEASES, "RV", "TRI"}
    for part, codes in (("train", range(1, 161)), ("validation", range(161, 201))):
        assert {drawn_disease(c, part, 3) for c in codes} == set(SEEN_DISEASES)
        assert {drawn_scanner(c, part, 3) for c in codes} == set(SCANNERS)
    for first in (201, 211):  # ten test subjects in a row have everything
        assert {drawn_disease(c, "test", 3) for c in range(first, first + 10)} == set(DISEASES)
        assert {drawn_scanner(c, "test", 3) for c in range(first, first + 5)} == {*SCANNERS, UNSEEN_SCANNER}
    assert UNSEEN_SCANNER.vendor not in {scanner.vendor for scanner in SCANNERS}


def contrast_to_noise(subject: PhantomSubject) -> float:
    """Blood against myocardium, over the sd within the blood."""
    item = subject.images["SA", "ED"]
    k = middle_slices(item)[0]
    image, label = item.image[..., k].astype(float), item.label[..., k]
    blood = image[ndimage.binary_erosion(label == LV.id, iterations=2)]
    return float(
        (np.median(blood) - image[label == MYO.id].mean())
        / (1.48 * np.median(np.abs(blood - np.median(blood))))
    )


def test_the_unseen_vendors_images_are_worse(subjects: dict[int, PhantomSubject]) -> None:
    codes = [code for code in range(207, 221) if drawn_scanner(code, "test", 0) == UNSEEN_SCANNER]
    unseen = [contrast_to_noise(make_subject(code, "test", 0, 0.4)) for code in codes]
    seen = [contrast_to_noise(s) for s in subjects.values() if s.scanner != UNSEEN_SCANNER]
    assert np.median(unseen) < 0.7 * np.median(seen)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_layout_table_and_determinism(tmp_path: Path) -> None:
    config = PhantomConfig(n_train=2, n_validation=1, n_test=1, seed=7, matrix_scale=0.25)
    seen: list[int] = []
    out = write_mnms2(tmp_path / "a", config, lambda subject: seen.append(subject.code))
    assert out == tmp_path / "a" and seen == [1, 2, 161, 201]
    names = {
        f"dataset/{c:03d}/{c:03d}_{view}_{phase}{gt}.nii.gz"
        for c in seen
        for view in VIEWS
        for phase in PHASES
        for gt in ("", "_gt")
    }
    first = digests(out)
    assert set(first) == names | {"dataset_information.csv"}
    with (out / "dataset_information.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["SUBJECT_CODE", "DISEASE", "VENDOR", "SCANNER", "FIELD"]
    parts = ((1, "train"), (2, "train"), (161, "validation"), (201, "test"))
    subjects = [make_subject(code, part, 7, 0.25) for code, part in parts]
    expected = [
        [str(s.code), s.disease, s.scanner.vendor, s.scanner.model, str(s.scanner.field_t)] for s in subjects
    ]
    assert rows[1:] == expected

    time.sleep(1.1)  # a time stamp inside a gzip file would show
    larger = PhantomConfig(n_train=3, n_validation=1, n_test=1, seed=7, matrix_scale=0.25)
    second = digests(write_mnms2(tmp_path / "b", larger))
    assert {name: second[name] for name in names} == {name: first[name] for name in names}
    other = write_mnms2(tmp_path / "c", PhantomConfig(1, 0, 0, seed=8, matrix_scale=0.25))
    assert digests(other)["dataset/001/001_SA_ED.nii.gz"] != first["dataset/001/001_SA_ED.nii.gz"]


def test_files_hold_the_arrays_and_their_geometry(tmp_path: Path) -> None:
    write_mnms2(tmp_path, PhantomConfig(1, 0, 0, seed=1, matrix_scale=0.25))
    subject = make_subject(1, "train", 1, 0.25)
    for (view, phase), item in subject.images.items():
        for suffix, array in (("", item.image), ("_gt", item.label)):
            file = nib.load(tmp_path / f"dataset/001/001_{view}_{phase}{suffix}.nii.gz")
            assert isinstance(file, nib.Nifti1Image)
            assert file.get_data_dtype() == array.dtype
            np.testing.assert_array_equal(np.asanyarray(file.dataobj), array)
            np.testing.assert_allclose(file.affine, item.affine, atol=1e-4)
            np.testing.assert_allclose(file.header.get_qform(), item.affine, atol=1e-3)
            np.testing.assert_allclose(file.header.get_zooms(), item.spacing_mm, rtol=1e-6)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="170.*'train'.*'validation'"):
        make_subject(170, "train", 0)
    with pytest.raises(ValueError, match="361"):
        make_subject(361, "test", 0)
    with pytest.raises(ValueError, match="matrix_scale 0"):
        make_subject(1, "train", 0, 0)
    with pytest.raises(ValueError, match="n_validation = 41"):
        PhantomConfig(n_validation=41)
    with pytest.raises(ValueError, match="'XYZ'"):
        sample_patient("XYZ", np.random.default_rng(0))


def test_distances_are_distances() -> None:
    p = np.random.default_rng(0).normal(0, 20, (3, 500)).astype(np.float32)
    np.testing.assert_allclose(
        ellipsoid(p[0], p[1], p[2], (10, 10, 10)), np.linalg.norm(p, axis=0) - 10, atol=1e-4
    )
    a, b = p[0], p[1]
    rounded = smooth_max(a, b, 4.0)
    assert (rounded >= np.maximum(a, b)).all() and (rounded <= np.maximum(a, b) + 1).all()
    apart = np.abs(a - b) > 4
    np.testing.assert_array_equal(rounded[apart], np.maximum(a, b)[apart])
