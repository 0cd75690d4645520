"""What a stage of the ablation has to predict with: candidates, what was decided over them, and how masks are made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcjax.refinement.refine import Decision, Pool
from qcjax.refinement.refine_original import OriginalPool
from qcjax.refinement.treatment import PLAIN, Treatment, common_treatment
from qcjax.train.checkpoint import Candidate
from qcjax.typing import Variables


@dataclass(frozen=True)
class StageResult:
    """The candidates of a stage, and what was decided over them."""

    candidates: list[Candidate]
    load: Callable[[int], Variables]
    decision: Decision
    to_refine_on: np.ndarray  # (n,) the OoD cases among those that refinement looks at
    treatment: Treatment

    @classmethod
    def of(cls, pool: Pool | OriginalPool) -> "StageResult":
        """QC-based selection among a pool's candidates."""
        return cls._of(pool, pool.candidates(), common_treatment(pool.arm.networks.config.inference))

    @classmethod
    def without_qc(cls, pool: Pool | OriginalPool, treatment: Treatment = PLAIN) -> "StageResult":
        """The candidate of lowest validation loss, or the mean of all, whichever the treatment says."""
        return cls._of(pool, pool.candidates()[: None if treatment.mean else 1], treatment)

    @classmethod
    def _of(cls, pool: Any, candidates: list[Candidate], treatment: Treatment) -> "StageResult":
        decision, to_refine_on = pool.decide(candidates), pool.to_refine_on(candidates)
        return cls(candidates, lambda i: pool.load(candidates[i]), decision, to_refine_on, treatment)
