"""The heart over time from given masks: the phantom's known ejection fraction and curve, what is absent, bodies."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcjax.labels import CARDIAC
from qcjax.metrics.clinical import body_surface_m2, volume_ml
from qcjax.phantom.acdc import ACDC_DISEASES
from qcjax.phantom.cine import contraction, scan_cine
from qcjax.phantom.cohort import scan_patient
from qcjax.phantom.patient import sample_patient
from qcjax.phantom.scanner import SCANNERS
from qcjax.segmentation.inputs import Pair
from qcjax.segmentation.subjects import COLUMNS, read_surfaces, subject_rows, write_subjects


def frame(volumes: dict[str, float], spread: float = 0.0, flag: str = "") -> dict[str, Any]:
    """A frame of the journal with these volumes, by four networks that differ by `spread` of them."""
    parts = {
        key: {"volume_ml": v, "volumes_ml": [v * (1 + spread * s) for s in (-1, -0.5, 0.5, 1)], "flag": flag}
        for key, v in volumes.items()
    }
    return {"frame": None, "status": flag, "structures": parts}


def measured(label: np.ndarray, spacing_mm: tuple[float, float, float]) -> dict[str, Any]:
    return frame({s.key: volume_ml(label == s.id, spacing_mm) for s in CARDIAC}, 0.02)


def line(name: str, *frames: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "frames": list(frames)}


def pair_of(ed: dict[str, float], es: dict[str, float], **options: Any) -> list[dict[str, Any]]:
    lines = [line("a_ED", frame(ed, **options)), line("a_ES", frame(es, **options))]
    return subject_rows(lines, [Pair("a", "a_ED", "a_ES")])


def test_a_pair_by_hand() -> None:
    lv, rv = pair_of({"lv": 150.0, "myo": 120.0, "rv": 160.0}, {"lv": 60.0, "myo": 118.0, "rv": 80.0})
    assert (lv["edv_ml"], lv["esv_ml"], lv["stroke_volume_ml"], lv["mass_g"]) == (150, 60, 90, 126)
    assert lv["ejection_fraction"] == pytest.approx(60) and rv["ejection_fraction"] == pytest.approx(50)
    assert math.isnan(rv["mass_g"])  # its wall isn't segmented
    assert (lv["flag"], lv["reason"], lv["ed"], lv["es"]) == ("", "", "a_ED", "a_ES")
    assert set(lv) == set(COLUMNS)


def test_ejection_fractions_of_phantoms_against_their_truth() -> None:
    """Masks as scanned, slices of 8 to 12 mm, against what each heart was contracted by."""
    found, truth = [], []
    for seed, disease in enumerate([*ACDC_DISEASES] * 2):
        rng = np.random.default_rng((5, seed))
        patient = sample_patient(disease, rng, ACDC_DISEASES)
        images = scan_patient(patient, SCANNERS[seed % len(SCANNERS)], rng, 0.5, ("SA",))
        lines = [line(p, measured(images["SA", p].label, images["SA", p].spacing_mm)) for p in ("ED", "ES")]
        lv, _ = subject_rows(lines, [Pair("s", "ED", "ES")])
        found.append(lv["ejection_fraction"])
        truth.append(100 * patient.lv_ef)
    difference = np.subtract(found, truth)
    assert abs(difference.mean()) < 3 and difference.std(ddof=1) < 4  # bias and spread, in percentage points
    assert np.corrcoef(found, truth)[0, 1] > 0.95


def test_a_cine_of_thirty_frames_with_a_known_curve() -> None:
    rng = np.random.default_rng(3)
    patient = sample_patient("NOR", rng)
    cine = scan_cine(patient, SCANNERS[0], rng, 30, 0.4)
    frames = [measured(cine.label[..., t], cine.spacing_mm) for t in range(30)]
    lv, rv = subject_rows([line("beat", *frames)], [])
    known = int(np.argmax(contraction(30)))  # 10, counted from 0
    assert lv["ed"] == "1" and abs(int(lv["es"]) - 1 - known) <= 1 and rv["es"] == lv["es"]
    assert lv["flag"] == "" and lv["reason"] == ""
    assert lv["ejection_fraction"] == pytest.approx(100 * patient.lv_ef, abs=5)
    assert lv["edv_low_ml"] < lv["edv_ml"] < lv["edv_high_ml"]
    assert lv["ejection_fraction_low"] == pytest.approx(
        lv["ejection_fraction_high"]
    )  # all err by the same part

    frames[20]["structures"]["lv"]["volume_ml"] *= 0.2  # one frame fails
    lv, rv = subject_rows([line("beat", *frames)], [])
    assert lv["es"] == "21" and lv["flag"] == "implausible" and "frame 21 jumps" in lv["reason"]


def test_what_is_absent_is_said_and_has_no_number() -> None:
    lv, rv = pair_of({"lv": 150.0, "myo": 0.0, "rv": 0.0}, {"lv": 0.0, "myo": 0.0, "rv": 80.0})
    assert lv["reason"] == "absent from ES; no myocardium at ED" and rv["reason"] == "absent from ED"
    assert lv["flag"] == rv["flag"] == "erroneous"
    for row, name in ((lv, "esv_ml"), (rv, "edv_ml"), (lv, "ejection_fraction"), (lv, "mass_g")):
        assert math.isnan(row[name])
    assert lv["edv_ml"] == 150


def test_an_empty_frame_is_no_end_systole() -> None:
    volumes = [150, 130, 100, 0, 60, 80, 110, 140]
    frames = [frame({"lv": float(v), "rv": 0.0}) for v in volumes]
    lv, rv = subject_rows([line("c", *frames)], [])
    assert (lv["es"], lv["esv_ml"], lv["flag"]) == ("5", 60, "implausible")
    assert "frame 4 has no volume" in lv["reason"]
    assert rv["flag"] == "erroneous" and rv["reason"] == "absent from ED; absent from ES; in 0 of 8 frames"


def test_a_cine_without_a_left_ventricle_has_no_phases() -> None:
    lv, rv = subject_rows([line("c", *(frame({"lv": 0.0, "rv": 90.0}) for _ in range(6)))], [])
    assert lv["flag"] == rv["flag"] == "erroneous" and lv["reason"] == "no phases: LV is in 0 of 6 frames"
    assert math.isnan(rv["edv_ml"]) and lv["ed"] == ""


def test_more_blood_at_end_systole_is_implausible_and_flags_of_the_phases_are_kept() -> None:
    (lv,) = pair_of({"lv": 60.0}, {"lv": 90.0})
    assert (lv["flag"], lv["reason"], lv["stroke_volume_ml"]) == (
        "implausible",
        "larger at ES than at ED",
        -30,
    )
    (lv,) = pair_of({"lv": 60.0}, {"lv": 90.0}, flag="suspicious")
    assert lv["flag"] == "suspicious"


def test_the_table_has_empty_cells_for_what_is_not_known(tmp_path: Path) -> None:
    lines = [line("a_ED", frame({"lv": 150.0})), line("a_ES", frame({"lv": 0.0}))]
    write_subjects(tmp_path / "s.csv", subject_rows(lines, [Pair("a", "a_ED", "a_ES")], {"a": 2.0}))
    with (tmp_path / "s.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["edv_ml"], row["edv_ml_m2"], row["body_surface_m2"]) == ("150.0", "75.0", "2.0")
    assert row["esv_ml"] == row["ejection_fraction"] == row["mass_g"] == row["esv_ml_m2"] == ""


def test_bodies_are_read_and_bad_ones_refused(tmp_path: Path) -> None:
    table = tmp_path / "bodies.csv"
    table.write_text("subject,height_cm,weight_kg\na,180,80\nb,,70\n")
    assert read_surfaces(table) == {"a": pytest.approx(2.0)} and body_surface_m2(180, 80) == 2.0
    for text, said in (
        ("subject,height\na,180\n", "expected subject, height_cm, weight_kg"),
        ("subject,height_cm,weight_kg\na,1.8,80\n", "line 2: height_cm: 1.8 found"),
        ("subject,height_cm,weight_kg\na,180,x\n", "line 2: could not convert"),
        ("subject,height_cm,weight_kg\na,180,80\na,180,80\n", "line 3: found 'a' again"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_surfaces(table)
