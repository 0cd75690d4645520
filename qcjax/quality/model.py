"""The quality model of a segmenter: a predictor for each structure and for what is known of a mask, in a file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from qcjax.quality.conformal import LEAST_SUBJECTS
from qcjax.quality.predictor import QualityPredictor
from qcjax.quality.signals import Signals
from qcjax.runtime.files import read_object, write_whole
from qcjax.runtime.line_journal import to_json

FILE = "quality.json"
FORMAT = 1
COVERAGE, ACCEPT = 0.9, 0.8  # unless somebody asks for others
Kind = Literal["segmented", "mask"]  # with the networks' probabilities; a mask from elsewhere
OF_PROBABILITIES = ("confidence", "entropy", "worst_slice", "confidence_of_others")
DECISIONS = ("reject", "review", "accept")  # the worst first
PREDICTED = (
    "predicted_dice",  # empty where nothing is known, or the structure is absent
    "predicted_dice_low",  # at least that, with the promised probability
    "predicted_hd_mm",
    "predicted_hd_high_mm",  # at most that
    "decision",  # of DECISIONS
)
DIGITS = (4, 4, 2, 2)  # of the first four


class Estimate(NamedTuple):
    """Predicted quality of one structure of one mask; NaN where the structure is absent or nothing is known."""

    dice: float = np.nan
    dice_low: float = np.nan  # at least that, with the promised probability
    hd_mm: float = np.nan
    hd_high_mm: float = np.nan  # at most that


@dataclass(frozen=True)
class KnownCase:
    """A mask whose truth is known, of a subject that the segmenter hasn't seen."""

    subject: str
    signals: Mapping[str, Sequence[float | None]]  # of the k structures; None where unknown
    dice: Sequence[float | None]
    hd_mm: Sequence[float | None]


@dataclass(frozen=True)
class QualityModel:
    """Predictors by what is known of a mask and by structure; a structure of too few subjects has none."""

    structures: tuple[str, ...]  # keys
    predictors: Mapping[Kind, Mapping[str, QualityPredictor]]
    # values of training by measure and structure, for `drift`
    reference: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)

    @classmethod
    def fit(cls, cases: Sequence[KnownCase], structures: Sequence[str]) -> "QualityModel | None":
        """What learns from known cases; None where no structure has those of 9 subjects."""
        if not cases:
            return None
        names = tuple(cases[0].signals)
        found: dict[Kind, dict[str, QualityPredictor]] = {"segmented": {}, "mask": {}}
        of_kind: dict[Kind, tuple[str, ...]] = {
            "segmented": names,
            "mask": tuple(name for name in names if name not in OF_PROBABILITIES),
        }
        for kind, own in of_kind.items():
            for i, key in enumerate(structures):
                if _subjects(cases, i) >= LEAST_SUBJECTS:
                    found[kind][key] = QualityPredictor.fit(*_columns(cases, i, own))
        return cls(tuple(structures), found) if found["mask"] else None

    def calibrated(self, cases: Sequence[KnownCase], kind: Kind) -> "QualityModel":
        """The same, its predictors of one kind calibrated on a site's own cases.

        Raises:
          ValueError: cases of fewer than 9 subjects with a structure.
        """
        own = {
            key: predictor.calibrated(*_columns(cases, self.structures.index(key), predictor.names))
            for key, predictor in self.predictors[kind].items()
        }
        return replace(self, predictors={**self.predictors, kind: own})

    def estimates(
        self,
        signals: Signals,
        absent: Sequence[bool] | Bool[np.ndarray, " k"],
        kind: Kind,
        coverage: float = COVERAGE,
    ) -> dict[str, Estimate]:
        """What each structure of one mask can be expected to have, by key.

        Args:
          signals: (k,) of each name.
          absent: (k,) which structures the mask lacks.
          coverage: the probability with which each bound holds.
        """
        found = {}
        for i, key in enumerate(self.structures):
            predictor = self.predictors[kind].get(key)
            if predictor is None:
                found[key] = Estimate()
                continue
            own = {name: np.array([signals[name][i]]) for name in predictor.names}
            quality = predictor.predict(own, [bool(absent[i])], coverage)
            found[key] = Estimate(*(float(x[0]) for x in quality))
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values; they name no subject."""
        predictors = {
            kind: {key: p.to_json() for key, p in of_kind.items()}
            for kind, of_kind in self.predictors.items()
        }
        known = {measure: {key: list(v) for key, v in of.items()} for measure, of in self.reference.items()}
        return {
            "format": FORMAT,
            "structures": list(self.structures),
            "predictors": predictors,
            "reference": known,
        }

    def save(self, folder: Path) -> None:
        """Write it to a model's folder."""
        write_whole(folder / FILE, json.dumps(self.to_json()) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "QualityModel | None":
        """That of a model's folder; None where it has none.

        Raises:
          ValueError: one that can't be used.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        values: dict[str, Any] = read_object(path, "a quality model")
        if values.get("format") != FORMAT:
            raise ValueError(f"{path}: format {values.get('format')} found, expected {FORMAT}")
        try:
            predictors: dict[Kind, dict[str, QualityPredictor]] = {
                kind: {key: QualityPredictor.from_json(p) for key, p in values["predictors"][kind].items()}
                for kind in ("segmented", "mask")
            }
            return cls(tuple(values["structures"]), predictors, values["reference"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: {error!r} found, expected a quality model") from error


def decide(estimate: Estimate, absent: bool, accept: float = ACCEPT) -> str:
    """What to do with a structure's mask: "accept", "review", "reject"; empty where nothing is known.

    Accepted where the lower bound of Dice reaches `accept`; rejected where not even the predicted Dice does, or the
    structure is absent; to be looked at in between.
    """
    if absent:
        return "reject"
    if np.isnan(estimate.dice):
        return ""
    return "accept" if estimate.dice_low >= accept else "review" if estimate.dice >= accept else "reject"


def predicted_columns(estimate: Estimate, lost: bool, accept: float | None = ACCEPT) -> dict[str, Any]:
    """The columns `PREDICTED` of a structure.

    Args:
      lost: whether the mask lacks a structure that it should have.
      accept: the lower bound of Dice from which on it is accepted; None where quality isn't predicted.
    """
    numbers = (None if np.isnan(v) else to_json(round(v, n)) for v, n in zip(estimate, DIGITS, strict=True))
    decision = "" if accept is None else decide(estimate, lost, accept)
    return dict(zip(PREDICTED, (*numbers, decision), strict=True))


@dataclass(frozen=True)
class Expectation:
    """A quality model for masks from elsewhere, and what is asked of it."""

    model: QualityModel
    accept: float = ACCEPT
    coverage: float = COVERAGE

    def __post_init__(self) -> None:
        """Raises ValueError for a Dice or a probability that is none."""
        check_asked(self.accept, self.coverage)

    @property
    def settings(self) -> dict[str, Any]:
        """What results depend on, for comparison with those of an earlier start."""
        text = json.dumps(self.model.to_json())
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        return {"quality_sha256": sha256, "accept": self.accept, "coverage": self.coverage}

    def columns(
        self, signals: Signals, absent: Sequence[bool], lost: Sequence[bool]
    ) -> dict[str, dict[str, Any]]:
        """The `predicted_columns` of each structure, by key.

        Args:
          signals: of the mask.
          absent, lost: (k,) which structures the mask lacks, and which of these it should have.
        """
        found = self.model.estimates(signals, absent, "mask", self.coverage)
        return {
            key: predicted_columns(estimate, gone, self.accept)
            for (key, estimate), gone in zip(found.items(), lost, strict=True)
        }


def check_asked(accept: float, coverage: float) -> None:
    """ValueError for a Dice or a probability that is none."""
    if not 0 <= accept <= 1:
        raise ValueError(f"--accept: {accept} found, expected a Dice, 0 to 1")
    if not 0 < coverage < 1:
        raise ValueError(f"--coverage: {coverage} found, expected a probability between 0 and 1")


def worst_decision(decisions: Sequence[str]) -> str:
    """The worst of some decisions; empty where none was made."""
    return next((d for d in DECISIONS if d in decisions), "")


def _subjects(cases: Sequence[KnownCase], i: int) -> int:
    return len({c.subject for c in cases if c.dice[i] is not None and c.hd_mm[i] is not None})


def _columns(cases: Sequence[KnownCase], i: int, names: Sequence[str]) -> tuple[Any, ...]:
    """Signals by name, Dice, distances and subjects of one structure in all cases."""
    signals = {name: values_of([case.signals[name] for case in cases])[:, i] for name in names}
    measured = (values_of([getattr(case, m) for case in cases])[:, i] for m in ("dice", "hd_mm"))
    return signals, *measured, [case.subject for case in cases]


def values_of(rows: Sequence[Sequence[float | None]]) -> Float[np.ndarray, "n k"]:
    """Values of cases and structures as an array; None is NaN."""
    return np.array([[np.nan if v is None else v for v in row] for row in rows], np.float64)
