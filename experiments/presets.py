"""The presets of the experiments: what the paper says, what the authors' code does, and two smaller sizes."""

from dataclasses import replace

from qcjax.config import (
    MONITORS,
    AcdcConfig,
    AutoencoderConfig,
    EmidecConfig,
    InferenceConfig,
    Mnms2Config,
    Preset,
    RefinementConfig,
    SegmenterConfig,
    UncertaintyConfig,
)

PAPER = Mnms2Config()

ORIGINAL = Mnms2Config(
    preset="original",
    supervised=SegmenterConfig(m_best=5),
    autoencoder=AutoencoderConfig(batch=20, early_epochs=0),
    refinement=RefinementConfig(cases="validation"),
)

# R has no dropout: with 0.1 of it, in so few steps, one of 64 pixels rebuilds too little myocardium to tell masks apart
SMALL = Mnms2Config(
    preset="small",
    segmenter=("nnunet",),
    size=128,
    spacing_mm=1.8,
    supervised=SegmenterConfig(
        width=12, stages=6, epochs=14, batch=16, optimiser="adam", learning_rate=5e-3, mirror=0.0
    ),
    autoencoder=replace(MONITORS["small"].autoencoder, dropout=0.0, epochs=20),
    refinement=RefinementConfig(epochs=6, steps=40, labelled=8, unlabelled=8, learning_rate_factor=0.02),
)

DEMO = Mnms2Config(
    preset="demo",
    segmenter=("nnunet",),
    size=64,
    spacing_mm=3.0,
    supervised=SegmenterConfig(
        width=12,
        stages=5,
        epochs=12,
        steps=25,
        batch=16,
        optimiser="adam",
        learning_rate=1e-2,
        mirror=0.0,
        rotation_deg=20.0,
        scale=(0.8, 1.25),
    ),
    autoencoder=replace(MONITORS["demo"].autoencoder, epochs=60, steps=25),
    refinement=RefinementConfig(epochs=4, steps=12, labelled=8, unlabelled=8, learning_rate_factor=0.02),
)

# what a competent user has without QC comes first; the networks aren't trained mirrored, so nothing is mirrored
OURS = replace(
    SMALL,
    preset="ours",
    supervised=replace(SMALL.supervised, intensity=True, average=0.99),
    refinement=replace(SMALL.refinement, gate=0.02),
    inference=InferenceConfig(mean=True, largest=True, ablation=True),
)

PRESETS: dict[Preset, Mnms2Config] = {
    "demo": DEMO,
    "small": SMALL,
    "paper": PAPER,
    "original": ORIGINAL,
    "ours": OURS,
}

ACDC_SMALL = AcdcConfig(
    preset="small",
    size=SMALL.size,
    spacing_mm=SMALL.spacing_mm,
    supervised=replace(SMALL.supervised, epochs=8),
    monitor=MONITORS["small"],
)

ACDC_DEMO = AcdcConfig(
    preset="demo",
    size=DEMO.size,
    spacing_mm=DEMO.spacing_mm,
    supervised=replace(DEMO.supervised, steps=20),
    monitor=MONITORS["demo"],
)

ACDC_PRESETS: dict[Preset, AcdcConfig] = {
    "demo": ACDC_DEMO,
    "small": ACDC_SMALL,
    "paper": AcdcConfig(monitor=MONITORS["paper"]),
    "original": AcdcConfig(preset="original", monitor=MONITORS["original"]),
}

# an infarction may be absent, and is so much smaller than the cavity that generalised Dice wouldn't learn the latter;
# centred on the image, as what is reported of EMIDEC was measured
INFARCT_MONITOR = replace(
    MONITORS["small"],
    spacing_mm=1.5,
    centre="image",
    dice="soft",
    may_be_absent=("infarction", "no_reflow"),
    autoencoder=replace(MONITORS["small"].autoencoder, epochs=40, steps=20, early_epochs=0),
)

EMIDEC_SMALL = EmidecConfig(
    preset="small",
    folds=3,
    spacing_mm=(10.0, 2.0, 2.0),
    size=96,
    patch=(8, 64, 64),
    mc_samples=10,
    training=UncertaintyConfig(
        width=8,
        epochs=26,
        steps=50,
        batch=2,
        optimiser="adam",
        learning_rate=4e-3,
        mirror=0.0,
        scale=(0.8, 1.25),
    ),
    monitor=INFARCT_MONITOR,
)

EMIDEC_DEMO = replace(
    EMIDEC_SMALL,
    preset="demo",
    folds=2,
    spacing_mm=(10.0, 3.5, 3.5),
    size=48,
    patch=(8, 48, 48),
    training=replace(EMIDEC_SMALL.training, epochs=8, steps=25),
    monitor=replace(INFARCT_MONITOR, autoencoder=replace(INFARCT_MONITOR.autoencoder, epochs=15)),
)

EMIDEC_PAPER = EmidecConfig(
    monitor=replace(MONITORS["paper"], dice=INFARCT_MONITOR.dice, may_be_absent=INFARCT_MONITOR.may_be_absent)
)

EMIDEC_PRESETS: dict[str, EmidecConfig] = {
    "demo": EMIDEC_DEMO,
    "small": EMIDEC_SMALL,
    "paper": EMIDEC_PAPER,
}
