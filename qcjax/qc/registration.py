"""Registration of short-axis stacks: from the points of a reference image to those of another, with SimpleITK.

Slices lie 5 to 10 mm apart, pixels 1 to 2 mm: resolution is changed in plane only. Axes are taken as parallel and
a volume's middle as its origin, since the position and the orientation in files are often wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Integer, UInt8
from scipy import ndimage

from qcjax.data.subject import Volume

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813, the name that everybody knows it by

_MIN_SLICES = 2
_PLACING_SPACING_MM = 4.0
_PLACING_RANGE_MM = 60.0  # hearts lie within 45 mm of the middle of an ACDC image
_PLACING_ANGLES = np.deg2rad(np.arange(-90, 91, 15))  # scanners' short-axis planes are turned against another
_PLACING_MARGIN_MM = 15.0
_WINDOW = (1.0, 99.0)  # percentiles of the intensities that become 0 and 1
# a wider region aligns the chests, not the hearts
_AFFINE_MARGIN_MM = 8.0
_MARGIN_MM = 12.0  # of the deformable step, whose smoothing needs some room
_SMOOTHING_MM = (
    6.0,
    4.0,
)  # standard deviation in plane of the Gaussian that smooths displacements, per level
_SMOOTHING_ACROSS_MM = 1.0  # slices are 5 to 10 mm apart, and need not have been acquired in one breath-hold


@dataclass(frozen=True)
class Reference:
    """An image whose truth is known."""

    image: Volume
    truth: np.ndarray  # (x, y, slices) uint8 labels on the image's grid


@dataclass(frozen=True)
class Registration:
    """How images are registered."""

    spacing_mm: float = 2.0  # in plane, at the finest level; slices stay as they are
    affine_iterations: int = 60
    deformable_iterations: int = 30  # per level; 0: affine alone


def register(
    test: Volume, reference: Reference, registration: Registration | None = None
) -> "sitk.CompositeTransform":
    """The transform from points of the reference to points of the test image, in mm from the images' middles.

    In three steps, each in the region around the reference's heart: the best place and turn of that region in
    the test image by normalised cross-correlation, searched exhaustively; affine, by the correlation of the
    intensities, at twice the in-plane spacing; displacements by symmetric-forces demons (Vercauteren et al.,
    NeuroImage 45(1), 2009), at twice the in-plane spacing and at the spacing itself. Resolution changes in
    plane only. Where the affine step fails, the place and turn stay.

    Raises:
      ValueError: fewer than 2 slices, or a truth that isn't on its image's grid.
      ImportError: SimpleITK is missing.
    """
    sitk = simpleitk()
    options = registration or Registration()
    for volume in (test, reference.image):
        if volume.array.ndim != 3 or volume.array.shape[2] < _MIN_SLICES:
            raise ValueError(
                f"{volume.path}: shape {volume.array.shape} found, expected (x, y, slices), 2 slices or more"
            )
    if reference.truth.shape != reference.image.array.shape:
        raise ValueError(
            f"truth of {reference.image.path}: shape {reference.truth.shape} found, "
            f"expected {reference.image.array.shape}"
        )
    low, high = _heart_box_mm(reference)
    placing = [_resample(sitk, volume, _PLACING_SPACING_MM) for volume in (reference.image, test)]
    affine = _place(sitk, placing[0], placing[1], low, high)
    levels = [
        (
            _cut(_resample(sitk, reference.image, spacing), low, high, _MARGIN_MM),
            _resample(sitk, test, spacing),
            smoothing,
        )
        for spacing, smoothing in zip(
            (2 * options.spacing_mm, options.spacing_mm), _SMOOTHING_MM, strict=True
        )
    ]
    fixed, moving, _ = levels[0]
    region = _near_heart(sitk, reference, fixed, _AFFINE_MARGIN_MM)
    affine = _refine_affine(sitk, fixed, moving, region, affine, options.affine_iterations)
    if not options.deformable_iterations:
        return sitk.CompositeTransform([affine])
    field = None
    for fixed, moving, smoothing in levels:
        field = _demons(sitk, fixed, moving, affine, field, smoothing, options.deformable_iterations)
    displacement = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    return sitk.CompositeTransform([affine, displacement])  # the last is applied first


def carry(
    mask: Integer[np.ndarray, "x y s"], test: Volume, reference: Reference, transform: "sitk.Transform"
) -> UInt8[np.ndarray, "u v w"]:
    """A mask (x, y, slices) of the test image on the reference's grid, by nearest neighbour; uint8."""
    sitk = simpleitk()
    source = _image(sitk, mask.astype(np.uint8), test.spacing_mm)
    target = _image(sitk, reference.truth.astype(np.uint8), reference.image.spacing_mm)
    return _array(sitk, _on_grid(sitk, source, target, transform, sitk.sitkNearestNeighbor))


def simpleitk() -> ModuleType:
    """SimpleITK, imported at the first use.

    Raises:
      ImportError: it is missing; the message says what to install.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError("reverse classification accuracy needs SimpleITK: pip install SimpleITK") from error
    return SimpleITK


def _image(sitk: ModuleType, array: np.ndarray, spacing_mm: Sequence[float] | np.ndarray) -> "sitk.Image":
    """An array (x, y, slices) as an image with parallel axes and its origin in the middle."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([float(s) for s in spacing_mm])
    image.SetOrigin([-(n - 1) / 2 * float(s) for n, s in zip(array.shape, spacing_mm, strict=True)])
    return image


def _array(sitk: ModuleType, image: "sitk.Image") -> np.ndarray:
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).T)


def _on_grid(
    sitk: ModuleType, image: "sitk.Image", grid: "sitk.Image", transform: "sitk.Transform", how: int
) -> "sitk.Image":
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(grid)
    resampler.SetTransform(transform)
    resampler.SetInterpolator(how)
    resampler.SetNumberOfThreads(1)  # the threads are those of `estimate`
    return resampler.Execute(image)


def _resample(sitk: ModuleType, volume: Volume, spacing_mm: float) -> "sitk.Image":
    """A volume at another spacing in plane, intensities between 0 and 1; finer volumes are smoothed before."""
    array = volume.array.astype(np.float32)
    low, high = np.percentile(array, _WINDOW)
    array = np.clip((array - low) / max(float(high - low), 1e-6), 0, 1)
    given = np.array(volume.spacing_mm, float)
    sigma = [0.5 * np.sqrt(max((spacing_mm / s) ** 2 - 1, 0)) for s in given[:2]]
    array = ndimage.gaussian_filter(array, (*sigma, 0))
    shape = [max(int(round(n * s / spacing_mm)), 2) for n, s in zip(array.shape[:2], given[:2], strict=True)]
    grid = sitk.Image([*shape, array.shape[2]], sitk.sitkUInt8)
    grid.SetSpacing([spacing_mm, spacing_mm, float(given[2])])
    grid.SetOrigin([-(n - 1) / 2 * s for n, s in zip(grid.GetSize(), grid.GetSpacing(), strict=True)])
    return _on_grid(
        sitk, _image(sitk, array, given), grid, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear
    )


def _heart_box_mm(reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner (2,) in plane of the reference's heart, mm from the middle; all where none is."""
    spacing = np.array(reference.image.spacing_mm[:2], float)
    middle = (np.array(reference.truth.shape[:2]) - 1) / 2
    found = np.argwhere(reference.truth.any(axis=2))
    if not len(found):
        return -middle * spacing, middle * spacing
    return (found.min(0) - middle) * spacing, (found.max(0) - middle) * spacing


def _cut(image: "sitk.Image", low: np.ndarray, high: np.ndarray, margin_mm: float) -> "sitk.Image":
    spacing, origin = np.array(image.GetSpacing()[:2]), np.array(image.GetOrigin()[:2])
    size = np.array(image.GetSize()[:2])
    start = np.clip(np.floor((low - margin_mm - origin) / spacing), 0, size - 1).astype(int)
    stop = np.clip(np.ceil((high + margin_mm - origin) / spacing) + 1, start + 1, size).astype(int)
    return image[int(start[0]) : int(stop[0]), int(start[1]) : int(stop[1]), :]


def _place(
    sitk: ModuleType, fixed: "sitk.Image", moving: "sitk.Image", low: np.ndarray, high: np.ndarray
) -> "sitk.AffineTransform":
    """Where and how turned the reference's heart fits best: normalised cross-correlation of a disc around it."""
    spacing = _PLACING_SPACING_MM
    template, search = _array(sitk, fixed), _array(sitk, moving)
    heart_mm = (low + high) / 2
    radius = int(np.ceil((max(high - low) / 2 + _PLACING_MARGIN_MM) / spacing))
    offsets = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(float)
    disc = (np.hypot(*offsets) <= radius).astype(float)
    heart = heart_mm / spacing + (np.array(template.shape[:2]) - 1) / 2  # (2,) pixels
    size = [n + 2 * radius for n in search.shape[:2]]  # room for a disc around every pixel

    def spectrum(a: np.ndarray) -> np.ndarray:
        return np.fft.rfft2(a, size, axes=(0, 1))

    disc_spectrum = np.conj(spectrum(disc))
    turned = {}
    for angle in _PLACING_ANGLES:
        at = _turn(-angle) @ offsets.reshape(2, -1) + heart[:, None]
        turned[angle] = np.stack(
            [
                ndimage.map_coordinates(template[..., k], at, order=1, mode="nearest").reshape(disc.shape)
                for k in range(template.shape[2])
            ],
            axis=-1,
        )
    between_mm = fixed.GetSpacing()[2]
    z_mm = (np.arange(template.shape[2]) - (template.shape[2] - 1) / 2) * between_mm
    best, best_score = (0.0, heart_mm, 0.0), -np.inf
    for shift_mm in (0.0, -between_mm, between_mm):
        positions = (z_mm + shift_mm) / moving.GetSpacing()[2] + (search.shape[2] - 1) / 2
        common = np.flatnonzero((positions >= -0.5) & (positions <= search.shape[2] - 0.5))
        if len(common) < min(len(z_mm), search.shape[2]) / 2:
            continue
        slices = _slices_at(search, positions[common])
        slices = np.pad(slices, ((radius, radius), (radius, radius), (0, 0)))
        spectra = spectrum(slices)
        total, squares = (
            np.fft.irfft2(spectrum(a) * disc_spectrum, size) for a in (slices.sum(-1), (slices**2).sum(-1))
        )
        n_voxels = disc.sum() * len(common)
        spread = np.maximum(squares - total**2 / n_voxels, 1e-3 * n_voxels)
        for angle, stack in turned.items():
            part = stack[..., common]
            part = (part - (part * disc[..., None]).sum() / n_voxels) * disc[..., None]
            product = np.fft.irfft2((spectra * np.conj(spectrum(part))).sum(-1), size)
            score = product / np.sqrt(spread * max((part**2).sum(), 1e-9))
            # a corner of the disc at (i, j) of the padded image is its middle at (i, j) of the image
            score = score[: search.shape[0], : search.shape[1]]
            middle = (np.array(score.shape) - 1) / 2
            reach = np.maximum(np.ceil(middle - _PLACING_RANGE_MM / spacing), 0).astype(int)
            inner = score[reach[0] : score.shape[0] - reach[0], reach[1] : score.shape[1] - reach[1]]
            where = np.unravel_index(int(inner.argmax()), inner.shape)
            if inner[where] > best_score:
                best_score = float(inner[where])
                best = (float(angle), (np.array(where) + reach - middle) * spacing, shift_mm)
    angle, found_mm, shift_mm = best
    transform = sitk.AffineTransform(3)
    matrix = np.eye(3)
    matrix[:2, :2] = _turn(angle)
    transform.SetMatrix(matrix.ravel().tolist())
    transform.SetCenter([*heart_mm.tolist(), 0.0])
    transform.SetTranslation([*(found_mm - heart_mm).tolist(), shift_mm])
    return transform


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _slices_at(stack: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Slices at fractional positions, linear between neighbours."""
    positions = np.clip(positions, 0, stack.shape[2] - 1)
    below = np.minimum(positions.astype(int), stack.shape[2] - 2)
    part = positions - below
    return stack[..., below] * (1 - part) + stack[..., below + 1] * part


def _near_heart(
    sitk: ModuleType, reference: Reference, grid: "sitk.Image", margin_mm: float
) -> "sitk.Image | None":
    """Where in each slice the reference's heart is at most `margin_mm` away; None where it has no heart."""
    near = np.zeros(reference.truth.shape, np.uint8)
    for k in np.flatnonzero(reference.truth.any(axis=(0, 1))):
        outside = reference.truth[..., k] == 0
        near[..., k] = (
            ndimage.distance_transform_edt(outside, sampling=reference.image.spacing_mm[:2]) <= margin_mm
        )
    if not near.any():
        return None
    image = _image(sitk, near, reference.image.spacing_mm)
    return _on_grid(sitk, image, grid, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)


def _refine_affine(
    sitk: ModuleType,
    fixed: "sitk.Image",
    moving: "sitk.Image",
    region: "sitk.Image | None",
    start: "sitk.AffineTransform",
    iterations: int,
) -> "sitk.AffineTransform":
    step_mm = fixed.GetSpacing()[0] / 2
    affine = sitk.AffineTransform(start)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums in a fixed order: the same result every time
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.NONE)  # every voxel
    if region is not None:
        method.SetMetricFixedMask(region)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step_mm, step_mm / 50, iterations)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # as where it leaves the image
        return start
    # the sizes of hearts differ by less: what went farther has lost its way
    return affine if 1 / 3 < np.linalg.det(np.reshape(affine.GetMatrix(), (3, 3))) < 3 else start


def _demons(
    sitk: ModuleType,
    fixed: "sitk.Image",
    moving: "sitk.Image",
    affine: "sitk.AffineTransform",
    field: "sitk.Image | None",
    smoothing_mm: float,
    iterations: int,
) -> "sitk.Image":
    """Displacements on the grid of `fixed`, to be applied before the affine transform."""
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfThreads(1)
    demons.SetNumberOfIterations(iterations)
    demons.SetSmoothDisplacementField(True)
    sigma_mm = (smoothing_mm, smoothing_mm, _SMOOTHING_ACROSS_MM)
    demons.SetStandardDeviations([a / b for a, b in zip(sigma_mm, fixed.GetSpacing(), strict=True)])
    moved = _on_grid(sitk, moving, fixed, affine, sitk.sitkLinear)
    matching = sitk.HistogramMatchingImageFilter()  # demons compare intensities as they are
    matching.SetNumberOfThreads(1)
    matching.SetNumberOfHistogramLevels(128)
    matching.SetNumberOfMatchPoints(16)
    matching.SetThresholdAtMeanIntensity(False)
    moved = matching.Execute(moved, fixed)
    if field is None:
        return demons.Execute(fixed, moved)
    start = _on_grid(sitk, field, fixed, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear)
    return demons.Execute(fixed, moved, start)
