"""R of the refinement paper: trained on the ground-truth masks of the segmenter's own training slices."""

import jax.numpy as jnp

from qcjax import losses
from qcjax.labels import N_CLASSES
from qcjax.train.arm import Arm
from qcjax.train.autoencoder import STAGE, Autoencoder, AutoencoderStage, Masks
from qcjax.train.autoencoder import train_autoencoder as train
from qcjax.train.stage import LOSS, Record
from qcjax.train.validation import mean_dice, reconstruction_loss
from qcjax.typing import Variables


def train_autoencoder(arm: Arm) -> Variables:
    """Train R on D_tr's masks, or go on; the weights of lowest validation loss, on the devices."""
    networks, size = arm.networks, arm.networks.config.size
    config = networks.config.autoencoder
    autoencoder = Autoencoder(
        networks.autoencoder,
        networks.autoencoder_tx,
        networks.autoencoder_step,
        jnp.zeros((1, size, size, N_CLASSES)),
        arm.key(STAGE),
    )
    masks = Masks(
        arm.data.slices,
        networks.take,
        lambda epoch: arm.plan(config.steps, config.batch, epoch),
        arm.data.names,
        lambda variables: _validate(arm, variables),
    )
    stage = AutoencoderStage(arm.identity(STAGE), config, autoencoder, masks, arm.devices)
    variables, _ = train(stage, arm.journal, arm.checkpoints(STAGE, m_best=1))
    return arm.devices.replicate(variables)


def _validate(arm: Arm, variables: Variables) -> Record:
    """Loss over each volume of D_val, averaged, and Dice per structure of truth and its reconstruction."""
    cohort = arm.data.validation
    dice_loss = losses.SUPERVISED[arm.networks.config.method.autoencoder_loss].dice
    rebuilt = arm.networks.predictor.rebuild(variables, arm.data.slices, arm.data.validation_indices)
    loss = reconstruction_loss(rebuilt.sums, rebuilt.error, cohort, dice_loss)
    return {LOSS: loss} | mean_dice(rebuilt.labels, cohort.slices.label, cohort)
