"""From a file's voxels to a network's grid and intensities, as the model's card says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel.orientations
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.foreground import (
    BoolArray,
    bounding_box,
    foreground_mask,
    resample_mask,
)
from TomoSegLib.imaging.itk import resample, sitk_image
from TomoSegLib.imaging.orientation import reading_axes
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import Intensity, Preprocessing

Float32Array = npt.NDArray[np.float32]

# sigma = sqrt(ratio^2 - 1) / (2 sqrt(2 ln 2)) in voxels of the finer grid makes its point spread
# match the coarser grid's (M. J. Cardoso et al., "Scale factor point spread function matching",
# MICCAI 2015).
_FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
# Below this many voxels a Gaussian changes nothing worth its time.
_SMALLEST_SIGMA = 0.2


@dataclass(frozen=True, eq=False)
class ModelInput:
    """What a network sees of a scan, and where it lies.

    Attributes:
        image: ``(C, K, J, I)`` float32 on the model's grid; the card's ``background`` outside
            the foreground.
        foreground: ``(K, J, I)`` bool on the model's grid.
        geometry: The model's grid: isotropic, axes of the source permuted and flipped to the
            card's orientation, cropped to the foreground's bounding box and one voxel more; or
            that of `slices_grid`, if the card says so.
        source: Grid of the first channel's file, on which results are written.
        source_foreground: ``[k, j, i]`` bool on the source grid.
    """

    image: Float32Array
    foreground: BoolArray
    geometry: Geometry
    source: Geometry
    source_foreground: BoolArray


def prepare(
    channels: Sequence[Volume], spec: Preprocessing, foreground: Volume | None = None
) -> ModelInput:
    """Bring a scan's channels onto the model's grid and intensities.

    Intensities are normalised on each channel's own grid, over the foreground, before they are
    resampled; outside the foreground the background value is filled in first, so that resampling
    does not mix air into the rim. Axes that become coarser are smoothed first.

    Args:
        channels: The scan's volumes in the order of the card's channels. The first one's grid is
            the source grid; the others may lie on other grids of the same patient space.
        spec: The card's preprocessing.
        foreground: A mask to use in place of the card's kind of foreground, on any grid.

    Returns:
        The network's input.

    Raises:
        TomoSegError: ``channels-apart`` if a channel does not overlap the first one,
            ``foreground-empty``, ``foreground-constant``, or from `foreground_mask`.
    """
    if not channels:
        raise ValueError("no channels")
    source = channels[0].geometry
    if foreground is None:
        source_foreground = foreground_mask(channels[0], spec.foreground)
    else:
        source_foreground = resample_mask(foreground, source)
        if not source_foreground.any():
            raise TomoSegError(
                "foreground-empty",
                f"The foreground mask '{foreground.name}' does not meet '{channels[0].name}'.",
                "Give a mask of the same patient, in the same coordinates.",
            )
    if spec.in_plane:
        target = slices_grid(source, source_foreground, spec.spacing_mm)
    else:
        target = model_grid(source, source_foreground, spec.spacing_mm, spec.orientation)
    image = np.empty((len(channels), *target.shape), dtype=np.float32)
    for index, channel in enumerate(channels):
        if index == 0 or channel.geometry.is_close(source):
            mask = source_foreground
        else:
            mask = resample_mask(Volume(source_foreground, source), channel.geometry)
        if not mask.any():
            raise TomoSegError(
                "channels-apart",
                f"'{channel.name}' does not overlap '{channels[0].name}' in space.",
                "Give scans of the same patient that are aligned with each other.",
            )
        image[index] = _channel_on(channel, mask, target, spec)
    inside = _mask_on(source_foreground, source, target)
    image[:, ~inside] = spec.background
    return ModelInput(image, inside, target, source, source_foreground)


def model_grid(
    source: Geometry, foreground: BoolArray, spacing_mm: float, orientation: str
) -> Geometry:
    """The isotropic grid around the foreground whose axes are the source's, reordered.

    Args:
        source: The source grid.
        foreground: ``[k, j, i]`` bool on it, not empty.
        spacing_mm: Voxel size of the model's grid.
        orientation: Where the axes ``(i, j, k)`` of the model's grid run to, e.g. ``LPS``; each
            is the source axis closest to that, flipped if need be.

    Returns:
        A grid centred on the foreground's bounding box, with one voxel of margin.
    """
    ras_affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ source.affine
    change = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(ras_affine),
        nibabel.orientations.axcodes2ornt(orientation),
    )
    # change[a] = (model axis that source axis a becomes, its sign)
    direction = np.empty((3, 3))
    extent = np.empty(3)
    center_index = np.empty(3)
    for axis in range(3):
        others = tuple(other for other in range(3) if other != 2 - axis)
        occupied = np.flatnonzero(foreground.any(axis=others))
        first, last = occupied[0], occupied[-1]
        model_axis, sign = int(change[axis, 0]), change[axis, 1]
        direction[:, model_axis] = sign * source.direction[:, axis]
        extent[model_axis] = (last - first + 1) * source.spacing[axis]
        center_index[axis] = (first + last) / 2
    direction = _orthonormal(direction)
    # 1e-6: an extent that is a multiple of the spacing must not gain a voxel by rounding.
    size = np.ceil(extent / spacing_mm - 1e-6).astype(int) + 2
    center = source.index_to_lps(center_index)
    origin = center - direction @ ((size - 1) / 2 * spacing_mm)
    return Geometry.from_parts(
        (int(size[2]), int(size[1]), int(size[0])), [spacing_mm] * 3, direction, origin
    )


def slices_grid(source: Geometry, foreground: BoolArray, spacing_mm: float) -> Geometry:
    """The slices that the foreground lies in, where they are, with pixels of another size.

    Columns and rows run as radiologists read them (`reading_axes`), however the file stores them.

    Args:
        source: The stack's grid; its slices are those along the array's first axis.
        foreground: ``[k, j, i]`` bool on it, not empty.
        spacing_mm: Pixel size of the grid wanted.

    Returns:
        A grid whose planes are the stack's, with a pixel of margin in them and none across.
    """
    box = bounding_box(foreground)
    assert box is not None, "no foreground"
    first = np.array([part.start for part in box[::-1]])
    last = np.array([part.stop - 1 for part in box[::-1]])
    spacing = np.array([spacing_mm, spacing_mm, source.spacing[2]])
    extent = (last - first + 1) * source.spacing
    direction = _orthonormal(source.direction)
    columns, rows = reading_axes(direction[:, 0], direction[:, 1])
    order = [columns[0], rows[0], 2]
    direction, extent = direction[:, order] * (columns[1], rows[1], 1), extent[order]
    size = np.ceil(extent / spacing - 1e-6).astype(int) + 2
    size[2] = last[2] - first[2] + 1
    center = source.index_to_lps((first + last) / 2)
    origin = center - direction @ ((size - 1) / 2 * spacing)
    return Geometry.from_parts(
        (int(size[2]), int(size[1]), int(size[0])), spacing, direction, origin
    )


def normalize(values: npt.NDArray[Any], intensity: Intensity, name: str = "volume") -> IntensityMap:
    """Find the intensity normalisation from a foreground's values.

    Args:
        values: ``(N,)`` foreground intensities of any real type; not changed.
        intensity: The card's setting.
        name: What to call the volume in messages.

    Raises:
        TomoSegError: ``foreground-constant`` if the foreground has no contrast.
    """
    lower, upper = intensity.lower, intensity.upper
    if intensity.method == "window":
        return IntensityMap(lower, upper - lower, 0.0, 1.0)
    if intensity.method == "percentile":
        first, last = (float(v) for v in np.percentile(values, [lower, upper]))
        center, scale, lower, upper = first, last - first, 0.0, 1.0
    elif intensity.method == "zscore":
        copy = values.astype(np.float32)
        center = float(copy.mean(dtype=np.float64))
        copy -= np.float32(center)
        scale = math.sqrt(float(np.square(copy, out=copy).mean(dtype=np.float64)))
    else:
        quarter, median, three_quarters = (float(v) for v in np.percentile(values, [25, 50, 75]))
        # 1.349: interquartile range of a normal distribution in standard deviations.
        center, scale = median, (three_quarters - quarter) / 1.349
    if not scale > 0:
        raise TomoSegError(
            "foreground-constant",
            f"The foreground of '{name}' has no contrast to normalise its intensities by.",
            "Check that it is the image and not a mask, and that the foreground mask fits it.",
        )
    return IntensityMap(center, scale, lower, upper)


@dataclass(frozen=True)
class IntensityMap:
    """x becomes (x - center) / scale, clipped to [lower, upper]."""

    center: float
    scale: float
    lower: float
    upper: float

    def apply(self, array: npt.NDArray[Any]) -> Float32Array:
        """The normalised intensities, float32, in a new array."""
        result = array.astype(np.float32)
        result -= np.float32(self.center)
        result /= np.float32(self.scale)
        return np.clip(result, self.lower, self.upper, out=result)


def sample_on(
    array: npt.NDArray[Any],
    geometry: Geometry,
    target: Geometry,
    *,
    order: int = 1,
    outside: float = 0.0,
    antialias: bool = False,
) -> Float32Array:
    """Resample an array from one grid to another.

    Args:
        array: ``[k, j, i]`` values on ``geometry``.
        geometry: Their grid.
        target: The grid wanted.
        order: 0 nearest neighbour, 1 linear, 3 cubic B-spline.
        outside: Value further than half a voxel outside the array's grid.
        antialias: Smooth the axes that become coarser first.

    Returns:
        ``[k, j, i]`` float32 on ``target``.
    """
    image = sitk_image(array.astype(np.float32, copy=False), geometry)
    if antialias:
        image = _smooth(image, geometry, target)
    interpolator = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline}[order]
    return sitk.GetArrayFromImage(resample(image, target, interpolator, outside))


def _channel_on(
    channel: Volume, mask: BoolArray, target: Geometry, spec: Preprocessing
) -> Float32Array:
    box = _box_around(mask, channel.geometry, spec.spacing_mm)
    cropped_mask = mask[box]
    array = channel.array[box]
    mapping = normalize(array[cropped_mask], spec.intensity, channel.name)
    values = mapping.apply(array)
    values[~cropped_mask] = spec.background
    return sample_on(
        values, channel.geometry.part(box), target, outside=spec.background, antialias=True
    )


def _mask_on(mask: BoolArray, geometry: Geometry, target: Geometry) -> BoolArray:
    box = _box_around(mask, geometry, float(target.spacing[0]))
    cropped = mask[box]
    if cropped.all() and mask.all():
        # The whole volume: its outermost voxels must not be lost to rounding.
        return np.asarray(_inside(geometry, target))
    # Not smoothed: that would wear down what is convex.
    share = sample_on(cropped, geometry.part(box), target)
    inside = share >= 0.5
    # A foreground thinner than a voxel of the model's grid is still foreground.
    return inside if inside.any() else share >= share.max()


def _inside(geometry: Geometry, target: Geometry) -> BoolArray:
    ones = np.ones(geometry.shape, dtype=np.uint8)
    return sample_on(ones, geometry, target, order=0) > 0.5


def _smooth(image: sitk.Image, geometry: Geometry, target: Geometry) -> sitk.Image:
    """Gaussian along each axis of the image that the target samples more coarsely."""
    # Which target axis runs along which image axis, and how far apart its samples are there.
    along = np.abs(geometry.direction.T @ target.direction)
    spacing_along = target.spacing[along.argmax(axis=1)]
    ratio = spacing_along / geometry.spacing
    sigma = np.sqrt(np.maximum(ratio**2 - 1, 0)) / _FWHM_PER_SIGMA
    for axis in range(3):
        # The recursive filter needs four samples.
        if sigma[axis] > _SMALLEST_SIGMA and image.GetSize()[axis] >= 4:
            image = sitk.RecursiveGaussian(
                image, sigma=float(sigma[axis] * geometry.spacing[axis]), direction=axis
            )
    return image


def _box_around(
    mask: BoolArray, geometry: Geometry, spacing_mm: float
) -> tuple[slice, slice, slice]:
    """Bounding box ``[k, j, i]`` of a mask, with a margin that smoothing and sampling need."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        margin = math.ceil(2 * spacing_mm / geometry.spacing[2 - axis]) + 1
        first, last = int(occupied[0]), int(occupied[-1])
        box.append(slice(max(first - margin, 0), min(last + margin + 1, mask.shape[axis])))
    return box[0], box[1], box[2]


def _orthonormal(direction: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest orthonormal matrix: a header's rounding must not shear the model's grid."""
    left, _, right = np.linalg.svd(direction)
    return np.asarray(left @ right)
