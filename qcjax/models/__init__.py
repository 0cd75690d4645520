"""The networks: two segmenters and the autoencoder of masks."""

from qcjax.models.acdc_unet import AcdcUNet
from qcjax.models.autoencoder import MaskAutoencoder
from qcjax.models.nnunet import NnUNet

__all__ = ["AcdcUNet", "MaskAutoencoder", "NnUNet"]
