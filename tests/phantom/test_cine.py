"""The beating phantom: a curve of volumes that is known, and is a heart's."""

import numpy as np
import pytest

from qcjax.labels import LV, RV
from qcjax.metrics.cine import curve_faults, find_phases
from qcjax.metrics.clinical import ejection_fraction
from qcjax.phantom.cine import contraction, scan_cine
from qcjax.phantom.patient import sample_patient
from qcjax.phantom.scanner import SCANNERS


def test_the_heart_contracts_once_and_fills_again() -> None:
    part = contraction(20)
    assert part[0] == 0 and part[7] == pytest.approx(1) and len(part) == 20  # a third of the beat is systole
    assert (np.diff(part[:8]) > 0).all() and (np.diff(part[7:]) < 0).all()


def test_its_volumes_are_a_hearts_and_its_ejection_fraction_the_patients() -> None:
    rng = np.random.default_rng(3)
    patient = sample_patient("NOR", rng)
    cine = scan_cine(patient, SCANNERS[0], rng, 12, 0.5)
    assert cine.image.shape == cine.label.shape and cine.image.shape[3] == 12
    voxel_ml = np.prod(cine.spacing_mm) / 1000
    for structure, ef in ((LV, patient.lv_ef), (RV, patient.rv_ef)):
        volumes = (cine.label == structure.id).sum((0, 1, 2)) * voxel_ml
        ed, es = find_phases(volumes)
        assert (ed, es) == (0, 4) and curve_faults(volumes) == []
        # slices of 10 mm and the valve's plane that comes down: to within a tenth
        assert ejection_fraction(volumes[ed], volumes[es]) == pytest.approx(100 * ef, abs=10)
