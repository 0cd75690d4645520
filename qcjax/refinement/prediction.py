"""Predicted Dice of masks of D_te, learnt from D_val: its truth hasn't trained any network."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from qcjax import qc
from qcjax.labels import CARDIAC
from qcjax.metrics.surface import Spacing, case_metrics
from qcjax.qc.components import keep_largest
from qcjax.qc.suspicion import features
from qcjax.quality.model import KnownCase, QualityModel
from qcjax.quality.signals import Signals, mask_signals, of_case
from qcjax.refinement.table import CaseRow
from qcjax.refinement.treatment import common_treatment
from qcjax.train.arm import Arm
from qcjax.train.checkpoint import Checkpoints
from qcjax.typing import Variables


def signals(
    mask: Integer[np.ndarray, "s h w"], rebuilt: Integer[np.ndarray, "s h w"], spacing_mm: Spacing
) -> Signals:
    """What a mask and its reconstruction tell of its quality, by name, (3,) of the cardiac structures.

    Probabilities don't count: those of a mean of networks are softer than one's, and stages differ in that.
    """
    pdc, phd = qc.pseudo_measures(mask, rebuilt, spacing_mm)
    measured = features(mask, rebuilt, spacing_mm, pdc, phd, CARDIAC)
    return of_case(mask_signals(mask, spacing_mm, measured, CARDIAC))


def learn_quality(arm: Arm, autoencoder: Variables, supervised: Checkpoints) -> QualityModel | None:
    """What predicts Dice, learnt from every supervised candidate's masks of D_val on the prepared grid.

    None where too few subjects have masks with structures. The candidates were chosen by D_val's loss, so its masks are
    a little better than those of new subjects.
    """
    cohort, options = arm.data.validation, common_treatment(arm.networks.config.inference)
    predictor, indices = arm.networks.predictor, arm.data.validation_indices
    known = []
    for candidate in supervised.candidates():
        variables = arm.load(supervised, candidate)
        found = predictor.probabilities(variables, arm.data.slices, indices, options.mirror)
        rebuilt = predictor.rebuild_probabilities(autoencoder, found)
        stacks = (found.argmax(-1), rebuilt.argmax(-1), cohort.slices.label)
        parts = zip(*(cohort.split(x.astype(np.uint8)) for x in stacks), strict=True)
        for case, geometry, (mask, again, truth) in zip(cohort.cases, cohort.geometries, parts, strict=True):
            mask = keep_largest(mask, options.largest)
            known.append(known_case(case.subject, mask, again, truth, geometry.spacing_mm))
    return QualityModel.fit(known, [s.key for s in CARDIAC])


def known_case(
    subject: str,
    mask: Integer[np.ndarray, "s h w"],
    rebuilt: Integer[np.ndarray, "s h w"],
    truth: Integer[np.ndarray, "s h w"],
    spacing_mm: Sequence[float],
) -> KnownCase:
    """A mask of D_val with its signals, Dice and distances."""
    slice_mm, row_mm, column_mm = spacing_mm
    measured = case_metrics(mask, truth, (slice_mm, row_mm, column_mm))
    dice, hd_mm = (
        [_known(measured[f"{m}_{s.key}{unit}"]) for s in CARDIAC] for m, unit in (("dc", ""), ("hd", "_mm"))
    )
    found = signals(mask, rebuilt, (slice_mm, row_mm, column_mm))
    return KnownCase(subject, {k: [_known(v) for v in values] for k, values in found.items()}, dice, hd_mm)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def predicted_columns(
    quality: QualityModel,
    mask: Integer[np.ndarray, "s h w"],
    rebuilt: Integer[np.ndarray, "s h w"],
    spacing_mm: Spacing,
) -> CaseRow:
    """A mask's columns `PREDICTED_COLUMNS`: 0 where it lacks the structure, NaN where nothing is known."""
    absent = [not (mask == s.id).any() for s in CARDIAC]
    found = quality.estimates(signals(mask, rebuilt, spacing_mm), absent, "mask")
    return {
        f"predicted_dice_{s.key}": 0.0 if gone else found[s.key].dice
        for s, gone in zip(CARDIAC, absent, strict=True)
    }
