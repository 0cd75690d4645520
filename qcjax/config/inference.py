"""Options of prediction: mean of candidates, mirror images, largest pieces. A baseline without refinement has them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class InferenceConfig:
    """How predictions are treated; with any of it there is a stage `baseline`, which has it and no quality control."""

    mean: bool = False
    """Baseline: the mean of all candidates' probabilities in place of the best one's."""
    mirror: bool = False
    """Baseline, selection, control and refined: the mean over an image and its three mirror images. For networks that
    were trained mirrored; others take a mirrored heart for another one."""
    largest: bool = False
    """Baseline, selection, control and refined: of every structure only the largest piece is kept."""
    in_pieces: tuple[Literal["lv", "myo", "rv"], ...] = ()
    """Structures of which --inference.largest keeps all pieces."""
    ablation: bool = False
    """A stage more for each of mean, mirror and largest that is asked for: it alone, on the single best model."""

    @property
    def any(self) -> bool:
        """Whether there is a baseline."""
        return self.mean or self.mirror or self.largest

    def __post_init__(self) -> None:
        """Raises ValueError for options without what they are about."""
        if self.ablation and not self.any:
            raise ValueError(
                "--inference.ablation: nothing to take apart found, expected --inference.mean, .mirror or .largest"
            )
        if self.in_pieces and not self.largest:
            raise ValueError("--inference.in-pieces: found without --inference.largest, expected both")
