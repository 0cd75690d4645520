"""The strides and kernels of a U-Net for volumes whose slices lie further apart than their pixels.

The rules are those by which nnU-Net plans (Isensee et al., Nature Methods 2021): pool along an axis only while voxels
remain and while its spacing is near the others'; convolve along it from the stage on at which it is.
"""

from dataclasses import dataclass
from math import prod

MIN_VOXELS = 4  # along an axis, after it is pooled
ANISOTROPY = 2.0  # the largest spacing relative to the smallest that still counts as near
STAGES = 5  # of the uncertainty paper's network: 2 · 4 convolutions in the encoder, 2 · 4 in the decoder, a bottleneck


@dataclass(frozen=True)
class UNetPlan:
    """The strides and kernels of a U-Net per stage, the finest first, and per axis (s, h, w)."""

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def divisor(self) -> tuple[int, ...]:
        """Per axis, what the shape of an input must be a multiple of: the product of the strides."""
        return tuple(prod(strides) for strides in zip(*self.strides, strict=True))

    @property
    def middle_stages(self) -> tuple[int, ...]:
        """The bottleneck and the stages beside it, where the uncertainty paper (Arega et al., UNSURE 2021) has dropout.

        As indices of stages; one index stands for the encoder's stage and the decoder's at the same resolution.
        """
        last = len(self.strides) - 1
        return tuple(range(max(last - 1, 0), last + 1))

    def padded(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape, voxels per axis, rounded up to multiples of `divisor`."""
        return tuple(-(-n // d) * d for n, d in zip(shape, self.divisor, strict=True))


def plan_unet(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], max_stages: int | None = STAGES
) -> UNetPlan:
    """Plan the stages of a U-Net.

    From stage to stage an axis is halved if it has at least 8 voxels, so that 4 remain, and if its spacing is at most
    twice the smallest among the axes that have. The kernel along an axis is 1 until its spacing is at most twice the
    smallest of all, and 3 from there on. The first stage keeps the resolution; the last is where no axis can be halved.

    Args:
      shape: voxels per axis (s, h, w) of what the network sees, a volume or a patch.
      spacing_mm: per axis.
      max_stages: at most so many, the bottleneck included; None: as many as the rules give.

    Raises:
      ValueError: shape and spacing of different length, or not positive; or no stage at all.
    """
    if len(shape) != len(spacing_mm):
        raise ValueError(
            f"plan_unet: spacing_mm {spacing_mm}, expected one number per axis of the shape {shape}"
        )
    if min(shape) < 1 or not all(s > 0 for s in spacing_mm):
        raise ValueError(f"plan_unet: shape {shape}, spacing_mm {spacing_mm}; expected numbers above 0")
    if max_stages is not None and max_stages < 1:
        raise ValueError(f"plan_unet: max_stages {max_stages}, expected at least 1")
    voxels, spacing, stride = list(shape), list(spacing_mm), (1,) * len(shape)
    kernel = (1,) * len(shape)
    strides, kernels = [], []
    while True:
        near = [s <= ANISOTROPY * min(spacing) for s in spacing]
        kernel = tuple(3 if k == 3 or n else 1 for k, n in zip(kernel, near, strict=True))
        strides.append(stride)
        kernels.append(kernel)
        stride = _next_stride(voxels, spacing)
        if max(stride) == 1 or len(strides) == max_stages:
            return UNetPlan(tuple(strides), tuple(kernels))
        voxels = [-(-n // p) for n, p in zip(voxels, stride, strict=True)]  # an odd number is padded
        spacing = [s * p for s, p in zip(spacing, stride, strict=True)]


def _next_stride(voxels: list[int], spacing: list[float]) -> tuple[int, ...]:
    """2 along each axis that is to be halved, 1 along the others."""
    large = [n >= 2 * MIN_VOXELS for n in voxels]
    smallest = min((s for s, enough in zip(spacing, large, strict=True) if enough), default=0.0)
    return tuple(
        2 if enough and s <= ANISOTROPY * smallest else 1 for s, enough in zip(spacing, large, strict=True)
    )
