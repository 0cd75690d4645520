"""Rows of the cohort's parts: loading, validation, QC of a case, its metrics, and writing it."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.inputs import SCALES, one_hot
from benchmarks.session import Ours, Theirs
from benchmarks.timing import OURS, THEIRS, Contestant, Row, alternate
from benchmarks.workload import VIEW
from qcjax import qc
from qcjax.data.augment import Augmentation, augment_batch
from qcjax.data.batches import Batch, sample_keys
from qcjax.data.nifti import read_image
from qcjax.data.preprocess import restore_labels
from qcjax.data.write import write_labels
from qcjax.inference.monitor import Monitor
from qcjax.labels import CARDIAC, N_CLASSES
from qcjax.losses import downsample_label
from qcjax.train.segmenter import validate_segmenter
from qcjax.train.state import from_variables

LEAST = f"{OURS}, Dice and HD alone"
SHIFT = (0, 3, -2)  # in voxels, between the two masks whose Dice and HD are measured


def loading_row(ours: Ours, theirs: Theirs | None) -> Row:
    """A batch of labelled slices, augmented, with one-hot targets of every scale."""
    arm, s = ours.arm, ours.arm.networks.config.supervised
    plan = arm.plan(1, s.batch, 1)
    indices, weight = plan.indices[0], plan.weight[0]
    key = jax.random.key(0)
    sides = [ours.arm.networks.config.size // 2**i for i in range(SCALES["nnunet"])]

    @jax.jit
    def augment(batch: Batch) -> Any:
        changed = augment_batch(sample_keys(key, s.batch, None), batch, Augmentation())
        scales = [downsample_label(changed.label, (side, side)) for side in sides]
        return changed.image, [jax.nn.one_hot(label, N_CLASSES) for label in scales]

    def run() -> None:
        batch: Batch = arm.networks.take(arm.data.slices, indices, weight)
        jax.block_until_ready(augment(batch))

    contestants = {OURS: Contestant(run)}
    if theirs is not None:
        with theirs.at_home():
            loader = theirs.slices()

        def load() -> None:
            dataset = loader.dataset
            loader.collate_fn([dataset[int(i) % len(dataset)] for i in indices])

        contestants[THEIRS] = Contestant(load)
    measured = alternate(contestants, ours.repeats, share=1 / s.batch)
    return Row(
        "loading and augmentation, per slice",
        f"{s.batch} slices in memory, into a batch with targets",
        "s",
        measured,
    )


def validation_row(ours: Ours, theirs: Theirs | None) -> Row:
    """M on the validation subjects: masks, loss, metrics."""
    arm = ours.arm
    state = from_variables(arm.devices.replicate(ours.segmenter), arm.networks.tx)
    subjects = len({case.subject for case in arm.data.validation.cases})
    contestants = {OURS: Contestant(lambda: validate_segmenter(arm, state))}
    if theirs is not None:
        contestants[THEIRS] = Contestant(_their_validation(theirs))
    measured = alternate(contestants, ours.repeats, share=1 / subjects)
    note = "Theirs measures a Hausdorff distance too, which nothing uses; ours doesn't." if theirs else ""
    return Row("validation, per subject", f"{subjects} subjects, ED and ES", "s", measured, 3.0, note)


def _their_validation(theirs: Theirs) -> Any:
    import torch

    u, model = theirs.originals.utils, theirs.segmenter().eval()
    with theirs.at_home():
        loader = theirs.patients("validation")

    class NoCheckpoint:
        def rename(self, src: str, dst: str) -> None:
            pass

        def __call__(self, name: str, model: Any, validator: Any) -> None:
            pass

    def run() -> None:
        with torch.no_grad():
            u.Validator(5).domain_evaluation("val", model, loader, NoCheckpoint())

    return run


def qc_row(ours: Ours, theirs: Theirs | None) -> Row:
    """A mask through R, and what the reconstruction says of it: as `qcjax score` judges a mask, and the least of it."""
    mask, spacing_mm = _case(ours)
    judge = monitor(ours, spacing_mm[2])
    given, spacing = mask.transpose(2, 1, 0), (spacing_mm[2], spacing_mm[2], spacing_mm[0])

    def least() -> None:
        prepared = judge.prepare(given, spacing)
        qc.pseudo_measures(prepared.stack, judge.reconstruct([prepared])[0], spacing[::-1])

    contestants = {OURS: Contestant(lambda: judge.score(given, spacing)), LEAST: Contestant(least)}
    if theirs is not None:
        import torch

        r = theirs.autoencoder

        def their_run() -> None:
            with torch.no_grad():
                rebuilt = r(theirs.originals.tensor(one_hot(mask))).cpu().numpy().argmax(1)
            r.Metrics(rebuilt, mask)

        contestants[THEIRS] = Contestant(their_run)
    measured = alternate(contestants, ours.repeats)
    empty = np.count_nonzero(~mask.any((1, 2)))
    note = (
        f"Ours also gives Dice by slice, suspicion's measures, flags, and the reconstruction on the mask's own grid. "
        f"{empty} slices are empty; R rebuilds one such slice, once for all masks."
    )
    return Row("QC of one case, mask in, scores out", _size(mask), "s", measured, 8.0, note)


def monitor(ours: Ours, spacing_mm: float) -> Monitor:
    """A monitor of our R, for masks of R's size and of a given spacing in plane, which it needn't resample."""
    description = {
        "structures": [s.key for s in CARDIAC],
        "labels": {s.key: s.id for s in CARDIAC},
        "size": ours.arm.networks.config.size,
        "spacing_mm": spacing_mm,
        "preset": "paper",
    }
    network: Any = ours.arm.networks.autoencoder
    return Monitor(Path(), description, network, ours.autoencoder, ours.arm.devices)


def metrics_row(ours: Ours, theirs: Theirs | None) -> Row:
    """Dice and Hausdorff distance of three structures, between a mask and itself moved a little."""
    mask, spacing_mm = _case(ours)
    moved = np.roll(mask, SHIFT, (0, 1, 2))
    contestants = {OURS: Contestant(lambda: qc.pseudo_measures(mask, moved, spacing_mm))}
    if theirs is not None:
        r = theirs.autoencoder
        contestants[THEIRS] = Contestant(lambda: r.Metrics(mask, moved))
    measured = alternate(contestants, ours.repeats)
    return Row("Dice and HD of one case", f"{_size(mask)}, LV, MYO, RV", "s", measured, 8.0)


def writing_row(ours: Ours, theirs: Theirs | None, folder: Path) -> Row:
    """Class probabilities of a case, back on its file's grid, as NIfTI."""
    cohort = ours.arm.data.validation
    case, geometry = cohort.cases[0], cohort.geometries[0]
    image = read_image(case.image_path)
    mask, _ = _case(ours, 0)
    probabilities = one_hot(mask) * np.float32(0.9) + np.float32(0.025)
    path = folder / "ours.nii.gz"
    contestants = {
        OURS: Contestant(
            lambda: write_labels(path, restore_labels(probabilities, geometry, "original"), image)
        )
    }
    if theirs is not None:
        contestants[THEIRS] = Contestant(
            _their_writing(theirs, f"{case.subject}_{VIEW}", case.phase, probabilities)
        )
    measured = alternate(contestants, ours.repeats)
    grid = "×".join(str(n) for n in geometry.shape)
    note = "Theirs reads the probabilities from a file of its own first." if theirs is not None else ""
    return Row("writing a prediction back to its grid", f"to {grid}, NIfTI", "s", measured, note=note)


def _their_writing(theirs: Theirs, patient: str, phase: str, probabilities: np.ndarray) -> Any:
    import pickle

    from benchmarks.originals import INFO

    inference = theirs.folder / "inference"
    inference.mkdir(exist_ok=True)
    stack = np.moveaxis(probabilities, -1, 1)
    np.save(inference / f"{patient}_{phase}.npy", {"prediction": stack}, allow_pickle=True)  # type: ignore[arg-type]
    with (theirs.folder / INFO).open("rb") as file:
        information = pickle.load(file)
    spacing = np.array([1.0, *theirs.workload.spacing_mm])
    u = theirs.originals.utils
    output = str(theirs.folder / "output")
    return lambda: u.postprocess_predictions(str(inference), information, spacing, output)


def _case(ours: Ours, number: int | None = None) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The truth of a validation case, (slices, h, w), and its spacing; the one with most slices by default."""
    cohort = ours.arm.data.validation
    if number is None:
        number = int(np.argmax(np.diff(cohort.first)))
    return cohort.slices.label[cohort.rows(number)], cohort.geometries[number].spacing_mm


def _size(mask: np.ndarray) -> str:
    return "×".join(str(n) for n in mask.shape)
