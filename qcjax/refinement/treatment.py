"""How a stage comes from networks to masks: mirror images, largest pieces, the mean of all candidates."""

from dataclasses import dataclass

from qcjax.config import InferenceConfig
from qcjax.labels import CARDIAC, Structure


@dataclass(frozen=True)
class Treatment:
    """How a stage comes to its masks."""

    mirror: bool = False  # the mean over an image and its three mirror images
    largest: tuple[Structure, ...] = ()  # of which only the largest piece is kept
    mean: bool = False  # of all candidates, in place of the one or the two that are selected

    def named(self, model: str) -> str:
        """What a model is called where it predicts so."""
        words = (["mirrored"] if self.mirror else []) + (["largest pieces"] if self.largest else [])
        return f"{model} ({', '.join(words)})" if words else model


PLAIN = Treatment()


def common_treatment(options: InferenceConfig) -> Treatment:
    """That of selection, control and refinement, and of the masks that decide on it."""
    return Treatment(options.mirror, _single(options))


def baselines(options: InferenceConfig) -> dict[str, Treatment]:
    """The stages without quality control, by name: each option alone where that is asked for, then all together."""
    if not options.any:
        return {}
    alone = {
        "mean": Treatment(mean=True) if options.mean else PLAIN,
        "mirrored": Treatment(mirror=options.mirror),
        "largest": Treatment(largest=_single(options)),
    }
    found = {name: t for name, t in alone.items() if options.ablation and t != PLAIN}
    return found | {"baseline": Treatment(options.mirror, _single(options), options.mean)}


def _single(options: InferenceConfig) -> tuple[Structure, ...]:
    return tuple(s for s in CARDIAC if options.largest and s.key not in options.in_pieces)
