"""Which baselines a run has, and that its masks are treated before they are measured."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import mnms2
from qcjax.config import InferenceConfig, Mnms2Config, SegmenterConfig
from qcjax.inference.predictor import Reconstruction
from qcjax.labels import LV, MYO, RV
from qcjax.refinement.refine import measure_unlabelled
from qcjax.refinement.refine_original import measure_rv
from qcjax.refinement.stage_result import StageResult
from qcjax.refinement.treatment import PLAIN, Treatment, baselines, common_treatment
from tests.drawn import SPACING_MM, drawn_heart

ALL = InferenceConfig(mean=True, mirror=True, largest=True, in_pieces=("myo",), ablation=True)


def test_every_option_alone_then_all_together():
    assert baselines(InferenceConfig()) == {}
    assert baselines(InferenceConfig(largest=True)) == {"baseline": Treatment(largest=(LV, MYO, RV))}
    assert baselines(ALL) == {
        "mean": Treatment(mean=True),
        "mirrored": Treatment(mirror=True),
        "largest": Treatment(largest=(LV, RV)),
        "baseline": Treatment(True, (LV, RV), True),
    }
    assert list(baselines(InferenceConfig(mean=True, ablation=True))) == ["mean", "baseline"]
    assert common_treatment(ALL) == Treatment(mirror=True, largest=(LV, RV))  # selection averages as QC says
    assert common_treatment(InferenceConfig(mean=True)) == PLAIN
    assert PLAIN.named("epoch 2") == "epoch 2"
    assert common_treatment(ALL).named("epoch 2") == "epoch 2 (mirrored, largest pieces)"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: InferenceConfig(ablation=True), "--inference.ablation"),
        (lambda: InferenceConfig(in_pieces=("rv",)), "--inference.in-pieces"),
        (
            lambda: Mnms2Config(inference=ALL, supervised=SegmenterConfig(mirror=0.0)),
            "--inference.mirror: found with --supervised.mirror 0",
        ),
    ],
)
def test_options_without_what_they_are_about_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(("options", "distance"), [(ALL, 0), (InferenceConfig(), None)])
def test_masks_are_measured_without_stray_pieces(make_arm, options, distance):
    heart = drawn_heart()
    mask = heart.copy()
    mask[4, 2:5, 2:5] = 3
    config = replace(make_arm().networks.config, inference=options)
    results = lambda *args: (Reconstruction(mask, heart, lambda: None) for _ in range(2))  # noqa: E731
    networks = SimpleNamespace(config=config, predictor=SimpleNamespace(reconstruct=results))
    cohort = SimpleNamespace(first=np.arange(3), geometries=[SimpleNamespace(spacing_mm=SPACING_MM)] * 2)
    data = SimpleNamespace(slices=None, unlabelled_indices=None, unlabelled=cohort)
    arm = SimpleNamespace(networks=networks, data=data)
    for phd in (measure_unlabelled(arm, {}, {})[1][:, 2], measure_rv(arm, {}, {})[1]):
        assert (phd == 0).all() if distance == 0 else (phd > 30).all()


def test_the_stages_of_a_run(monkeypatch):
    """In their order, each with what was asked for; refinement and selection with mirror images and largest pieces."""
    monkeypatch.setattr(mnms2, "train_autoencoder", lambda arm: {})
    monkeypatch.setattr(mnms2, "train_segmenter", lambda arm: None)
    stages = []

    class Pool:
        arm = SimpleNamespace(networks=SimpleNamespace(config=SimpleNamespace(inference=ALL)))

        def candidates(self):
            return ["first", "second"]

        def decide(self, candidates):
            return None

        def to_refine_on(self, candidates):
            return None

    class Run:
        config = SimpleNamespace(inference=ALL)

        def pool(self, *args):
            return Pool()

        def refine(self, *args):
            return Pool()

        def stage(self, arm, name, subjects, autoencoder, decide):
            result: StageResult = decide()
            stages.append((name, len(result.candidates), result.treatment))

        def gates(self, arm):
            gated.append(len(stages))

    gated = []
    mnms2.run_arm(Run(), None, [])
    assert gated == [len(stages)]  # after all others
    common = Treatment(mirror=True, largest=(LV, RV))
    assert stages == [
        ("segmenter", 1, PLAIN),
        ("mean", 2, Treatment(mean=True)),
        ("mirrored", 1, Treatment(mirror=True)),
        ("largest", 1, Treatment(largest=(LV, RV))),
        ("baseline", 2, replace(common, mean=True)),
        ("selection", 2, common),
        ("refined", 2, common),
        ("control", 2, common),
    ]
