"""What decides about masks in `qcjax segment`."""

from dataclasses import dataclass

from qcjax.quality.model import ACCEPT, COVERAGE, check_asked


@dataclass(frozen=True)
class Limits:
    """Limits of the monitoring paper's flags, and of the decisions by predicted quality."""

    hd_limit_mm: float = 50.0
    """A structure is suspicious where its pseudo Hausdorff distance is above this."""
    dc_limit: float = 0.5
    """A structure is suspicious where its pseudo Dice is below this."""
    accept: float = ACCEPT
    """A structure is accepted where the lower bound of its predicted Dice is at least this."""
    coverage: float = COVERAGE
    """The probability with which each bound holds."""

    def __post_init__(self) -> None:
        """Raises ValueError for a Dice or a probability that is none."""
        check_asked(self.accept, self.coverage)
