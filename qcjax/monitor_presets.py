"""Sizes and schedules of a monitor: the paper's, the authors' code's, and two smaller ones."""

from dataclasses import replace

from qcjax.config import AutoencoderConfig, MonitorConfig, Preset

PAPER = MonitorConfig()

SMALL = MonitorConfig(
    size=128,
    spacing_mm=1.8,
    centre="mask",
    dice="mixed",
    autoencoder=AutoencoderConfig(
        width=16,
        latent=64,
        dropout=0.1,
        epochs=60,
        batch=16,
        learning_rate=2e-3,
        final_rate=0.02,
        early_epochs=2,
        augment=True,
    ),
)

# of the same size: in 64 pixels a myocardium is too thin to be rebuilt; of the other loss: in so few steps the mixed
# one rebuilds the right ventricle less well
DEMO = replace(
    SMALL,
    dice="generalised",
    autoencoder=replace(
        SMALL.autoencoder, dropout=0.0, epochs=40, steps=30, learning_rate=4e-3, early_epochs=1
    ),
)

MONITORS: dict[Preset, MonitorConfig] = {"demo": DEMO, "small": SMALL, "paper": PAPER, "original": PAPER}
