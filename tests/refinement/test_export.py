"""What a stage leaves of each case: the mean of two candidates, and distances in the images' own spacings."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from qcjax.data.cohort import prepare
from qcjax.data.subject import Case, Subject
from qcjax.labels import RV
from qcjax.qc import Selection
from qcjax.refinement.export import _probabilities, _shares, export_stage
from qcjax.refinement.refine import Decision
from qcjax.refinement.treatment import Treatment
from tests.drawn import SPACING_MM, drawn_heart
from tests.train.arms import CONFIG

# of the mask against the truth in voxels (slices, h, w), and how far that is
SHIFTS = {"ED": ((0, 2, 0), 2 * 1.25), "ES": ((0, 0, 3), 3 * 2.0), "third": ((1, 0, 0), 8.0)}
NAMES = ("epoch 2", "refined 1", "refined 3")


@dataclass
class Drawn:
    """M gives shifted hearts, R the truth; a candidate's weights are its name."""

    truth: np.ndarray

    def probabilities(self, variables, slices, where, mirror=False):
        masks = [np.roll(self.truth, shift, (0, 1, 2)) for shift, _ in SHIFTS.values()]
        return np.eye(4, dtype=np.float32)[np.concatenate(masks)][where]

    def rebuild_probabilities(self, autoencoder, probabilities):
        cases = len(probabilities) // len(self.truth)
        return np.eye(4, dtype=np.float32)[np.tile(self.truth, (cases, 1, 1))]


@pytest.fixture
def arm(tmp_path: Path):
    truth = drawn_heart()
    rng = np.random.default_rng(0)
    affine = np.diag([*SPACING_MM[::-1], 1.0])  # files are (x, y, slices): w, h, slices
    for name, array in (("image", rng.uniform(1, 2, truth.shape)), ("truth", truth)):
        volume = nib.Nifti1Image(array.T.astype(np.float32), affine)
        nib.save(volume, tmp_path / f"{name}.nii")
    cases = tuple(
        Case("201", "SA", phase, tmp_path / "image.nii", tmp_path / "truth.nii") for phase in SHIFTS
    )
    subject = Subject("201", "NOR", "GE", "test", cases, {})
    cohort = prepare([subject], "SA", SPACING_MM[1:], 192, True)
    framed = cohort.slices.label[: len(truth)]  # the prepared grid is the file's, within a frame
    assert [(framed == i).sum() for i in range(1, 4)] == [(truth == i).sum() for i in range(1, 4)]
    data = SimpleNamespace(
        view="SA", unlabelled=cohort, unlabelled_indices=np.arange(len(cohort.owner)), slices=None
    )
    networks = SimpleNamespace(name="nnunet", config=CONFIG, predictor=Drawn(framed))
    return SimpleNamespace(data=data, networks=networks, folder=tmp_path, subjects=[subject])


def test_reported_distances_are_in_the_axes_own_spacings(arm):
    first = np.array([0, 0, 1])
    decision = Decision(Selection(first, np.array([0, 1, 2])), np.array([False, True, False]), {})
    rows = export_stage(arm, "refined", NAMES, lambda i: NAMES[i], decision, {}, arm.subjects)
    for row, (_, distance_mm) in zip(rows, SHIFTS.values(), strict=True):
        for structure in ("lv", "rv"):
            assert row[f"hd_{structure}_mm"] == pytest.approx(distance_mm), (row["phase"], structure)
            assert row[f"phd_{structure}_mm"] == pytest.approx(distance_mm), (row["phase"], structure)
    assert [row["candidate"] for row in rows] == [
        "epoch 2",
        "mean of epoch 2 and refined 1",
        "mean of refined 1 and refined 3",
    ]
    assert [row["ood"] for row in rows] == [0, 1, 0]


def test_where_no_candidate_passes_two_are_averaged():
    """Step 5 of the paper's selection: the mean of the probabilities of the best by pDC and the best by pHD."""
    sizes = [2, 1, 2]
    owner = np.repeat(np.arange(3), sizes)
    cohort = SimpleNamespace(
        owner=owner,
        rows=lambda case: slice(sum(sizes[:case]), sum(sizes[: case + 1])),
        geometries=[SimpleNamespace(stack_shape=(n,)) for n in sizes],
    )

    def probabilities(variables, slices, where, mirror):
        return (variables * (-1 if mirror else 1) + where.astype(np.float32))[:, None]

    networks = SimpleNamespace(predictor=SimpleNamespace(probabilities=probabilities))
    data = SimpleNamespace(unlabelled=cohort, unlabelled_indices=10 + np.arange(5), slices=None)
    weights = {0: np.float32(0), 1: np.float32(100), 2: np.float32(1000)}
    shares = [_shares(*pair) for pair in ((0, 1), (2, 2), (1, 2))]
    arm = SimpleNamespace(networks=networks, data=data)
    found = _probabilities(arm, weights, shares, [0, 1, 2])
    assert [part[:, 0].tolist() for part in found] == [[60.0, 61.0], [1012.0], [563.0, 564.0]]
    (found,) = _probabilities(arm, weights, shares, [1], mirror=True)
    assert found[:, 0].tolist() == [-988.0]


def test_the_baseline_is_the_mean_of_all_candidates_and_has_no_stray_pieces(arm):
    """Two of three candidates see a piece of a right ventricle where there is none."""
    truth, stray = arm.networks.predictor.truth, np.zeros_like(arm.networks.predictor.truth)
    stray[4, 20:23, 44:47] = 3
    chance = {
        "epoch 2": 0.4,
        "refined 1": 0.6,
        "refined 3": 0.9,
    }  # of the piece: on the mean more likely than not

    def probabilities(variables, slices, where, mirror):
        assert mirror
        found = np.eye(4, dtype=np.float32)[truth]
        found[stray == 3] = [1 - chance[variables], 0, 0, chance[variables]]
        return np.concatenate([found] * 3)[where]

    arm.networks.predictor.probabilities = probabilities
    decision = Decision(Selection(np.zeros(3, int), np.zeros(3, int)), np.zeros(3, bool), {})
    rows = {}
    for stage, largest in (("mean", ()), ("baseline", (RV,))):
        rows[stage], *_ = export_stage(
            arm, stage, NAMES, lambda i: NAMES[i], decision, {}, arm.subjects,
            treatment=Treatment(mirror=True, largest=largest, mean=True),
        )  # fmt: skip
    assert rows["mean"]["candidate"] == "mean of epoch 2, refined 1 and refined 3"
    assert rows["mean"]["hd_rv_mm"] > 40 and rows["mean"]["phd_rv_mm"] > 40
    assert rows["baseline"]["hd_rv_mm"] == rows["baseline"]["phd_rv_mm"] == 0
    chance["refined 3"] = 0.4  # less likely than not
    row, *_ = export_stage(
        arm, "mean", NAMES, lambda i: NAMES[i], decision, {}, arm.subjects,
        treatment=Treatment(mirror=True, mean=True),
    )  # fmt: skip
    assert row["hd_rv_mm"] == 0
