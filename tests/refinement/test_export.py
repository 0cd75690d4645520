"""What a stage leaves of each case: the mean of two candidates, and distances in the images' own spacings."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from qcjax.data.cohort import prepare
from qcjax.data.subject import Case, Subject
from qcjax.qc import Selection
from qcjax.refinement.export import _probabilities, export_stage
from qcjax.refinement.refine import Decision
from tests.drawn import SPACING_MM, drawn_heart
from tests.train.arms import CONFIG

# of the mask against the truth in voxels (slices, h, w), and how far that is
SHIFTS = {"ED": ((0, 2, 0), 2 * 1.25), "ES": ((0, 0, 3), 3 * 2.0), "third": ((1, 0, 0), 8.0)}
NAMES = ("epoch 2", "refined 1", "refined 3")


@dataclass
class Drawn:
    """M gives shifted hearts, R the truth; a candidate's weights are its name."""

    truth: np.ndarray

    def probabilities(self, variables, slices, where):
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

    def probabilities(variables, slices, where):
        return (variables + where.astype(np.float32))[:, None]

    networks = SimpleNamespace(predictor=SimpleNamespace(probabilities=probabilities))
    data = SimpleNamespace(unlabelled=cohort, unlabelled_indices=10 + np.arange(5), slices=None)
    weights = {0: np.float32(0), 1: np.float32(100), 2: np.float32(1000)}
    selection = Selection(np.array([0, 2, 1]), np.array([1, 2, 2]))
    found = _probabilities(SimpleNamespace(networks=networks, data=data), weights, selection, [0, 1, 2])
    assert [part[:, 0].tolist() for part in found] == [[60.0, 61.0], [1012.0], [563.0, 564.0]]
