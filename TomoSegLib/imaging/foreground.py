"""Foreground masks: which voxels belong to the patient, or to the brain."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.imaging.itk import resample, sitk_image
from TomoSegLib.imaging.volume import Geometry, Volume

BoolArray = npt.NDArray[np.bool_]
ForegroundKind = Literal["nonzero", "body", "brain", "none"]

# The body's outline is found on a grid about this coarse: it needs no more detail, and a CT of
# 512^3 voxels is done in a second and little memory.
_COARSE_MM = 2.0
# An adult's brain has 1 to 1.7 L, a head shown down to the chin 3 L and more.
_LARGEST_BRAIN_ML = 2300.0


def foreground_mask(volume: Volume, kind: ForegroundKind) -> BoolArray:
    """The foreground of a volume on its own grid.

    * ``nonzero``: differs from the background value, which is whatever constant fills the
      volume's corners: 0, or -3.16 in a scan that was normalised after skull stripping. Everything
      where the corners hold no common value.
    * ``body``: largest connected component above Otsu's threshold, holes filled.
    * ``brain``: as ``nonzero`` where the scan is already skull-stripped, else brain extraction.
    * ``none``: everything.

    Args:
        volume: The scan, array ``[k, j, i]``.
        kind: Which mask.

    Returns:
        Boolean ``[k, j, i]`` array.

    Raises:
        TomoSegError: ``foreground-empty`` where nothing is left, ``brain-extraction-missing``
            where deepbet is needed and not installed, ``brain-extraction-failed``.
    """
    if kind == "none":
        mask = np.ones(volume.array.shape, dtype=np.bool_)
    elif kind == "nonzero":
        mask = nonzero_mask(volume.array)
    elif kind == "body":
        mask = body_mask(volume)
    elif is_skull_stripped(volume):
        mask = nonzero_mask(volume.array)
    else:
        mask = brain_mask(volume)
    if not mask.any():
        raise TomoSegError(
            "foreground-empty",
            f"No foreground ('{kind}') was found in '{volume.name}'.",
            "Give a foreground mask, or use a model whose card asks for another kind.",
        )
    return mask


def bounding_box(mask: BoolArray) -> tuple[slice, slice, slice] | None:
    """The smallest box ``[k, j, i]`` that holds all voxels of a mask; None if there are none."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        if occupied.size == 0:
            return None
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return box[0], box[1], box[2]


def background_value(array: npt.NDArray[Any]) -> float | None:
    """The constant around the object: the value that at least six of the eight corners share."""
    corners = array[np.ix_(*([0, -1] for _ in range(3)))].ravel()
    values, counts = np.unique(corners, return_counts=True)
    return float(values[counts.argmax()]) if counts.max() >= 6 else None


def nonzero_mask(array: npt.NDArray[Any]) -> BoolArray:
    """Voxels that differ from `background_value`; all of them where there is none."""
    background = background_value(array)
    if background is None or _agrees(array, background).mean() < 0.01:
        return np.ones(array.shape, dtype=np.bool_)
    return ~_agrees(array, background)


def is_skull_stripped(volume: Volume) -> bool:
    """Whether a head scan shows nothing but the brain.

    It does if a constant background surrounds an object no larger than a brain that is not cut
    off by the sides of the volume. A whole head whose air was zeroed is larger, and its neck
    reaches the lowest slice.
    """
    mask = nonzero_mask(volume.array)
    volume_ml = float(np.count_nonzero(mask)) * volume.geometry.voxel_volume_ml
    if mask.all() or volume_ml > _LARGEST_BRAIN_ML:
        return False
    faces = [face for axis in range(3) for face in (mask.take(0, axis), mask.take(-1, axis))]
    return all(face.mean() < 0.1 for face in faces)


def body_mask(volume: Volume) -> BoolArray:
    """The patient: largest component above Otsu's threshold, with cavities filled.

    Thin things such as the table are removed by an opening. Cavities are filled in space and in
    each transverse slice, because lungs that the field of view cuts are open in space.
    """
    # Imported here: scikit-image and scipy are slow to import, and few runs need this mask.
    from scipy import ndimage
    from skimage.filters import threshold_otsu
    from skimage.morphology import ball

    array, geometry = volume.array, volume.geometry
    steps = np.maximum(np.round(_COARSE_MM / geometry.spacing), 1).astype(int)[::-1]
    coarse = array[:: steps[0], :: steps[1], :: steps[2]].astype(np.float32)
    # Padding far below air (e.g. -3024 around a CT's circle) and a few very bright voxels would
    # attract the threshold.
    low, high = np.percentile(coarse, [0.5, 99.5])
    if array.min() < -1000 and high > 0:
        low = max(low, -1024.0)
    np.clip(coarse, low, high, out=coarse)
    if low == high:
        return np.ones(array.shape, dtype=np.bool_)
    mask = ndimage.gaussian_filter(coarse, 0.7) > threshold_otsu(coarse)
    opened = ndimage.binary_opening(mask, ball(1))
    mask = _largest_component(opened if opened.any() else mask)
    mask = ndimage.binary_closing(np.pad(mask, 3), ball(3))[3:-3, 3:-3, 3:-3]
    transverse = 2 - int(np.abs(geometry.direction[2]).argmax())
    planes = np.moveaxis(mask, transverse, 0)
    for index, plane in enumerate(planes):
        planes[index] = ndimage.binary_fill_holes(plane)
    mask = ndimage.binary_fill_holes(mask)
    for axis, step in enumerate(steps):
        mask = np.repeat(mask, step, axis=axis).take(range(array.shape[axis]), axis=axis)
    return mask


def brain_mask(volume: Volume) -> BoolArray:
    """Brain extraction of a whole-head scan by the network of deepbet.

    deepbet (L. Fisch et al., Computers in Biology and Medicine 2024) was trained on T1-weighted
    scans of healthy adults; a warning says so.

    Raises:
        TomoSegError: ``brain-extraction-missing`` or ``brain-extraction-failed``.
    """
    try:
        from deepbet import BrainExtraction
    except ImportError as error:
        raise TomoSegError(
            "brain-extraction-missing",
            f"'{volume.name}' shows the whole head, and brain extraction is not installed.",
            "Install it with: pip install 'tomoseg[brain]'; or give a skull-stripped scan or a "
            "brain mask.",
        ) from error
    import nibabel

    lps_from_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    image = nibabel.Nifti1Image(
        np.ascontiguousarray(volume.array.T, dtype=np.float32),
        lps_from_ras @ volume.geometry.affine,
    )
    try:
        _, found, _ = BrainExtraction(no_gpu=True).run(image)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise TomoSegError(
            "brain-extraction-failed",
            f"No brain was found in '{volume.name}'.",
            "Check that it is a head scan, or give a brain mask.",
        ) from error
    warnings.warn(
        TomoSegWarning(
            "brain-extracted",
            f"The brain of '{volume.name}' was extracted automatically.",
            "Look at the overlay: the network was trained on T1-weighted scans of healthy adults.",
        ),
        stacklevel=2,
    )
    return np.ascontiguousarray(np.asarray(found.dataobj).T > 0)


def _agrees(array: npt.NDArray[Any], value: float) -> BoolArray:
    """Equal, up to the rounding of a float."""
    if array.dtype.kind != "f":
        return array == value
    tolerance = 1e-6 * max(abs(value), float(array.max()) - float(array.min()))
    # Two comparisons: no temporary array of floats.
    return (array >= value - tolerance) & (array <= value + tolerance)


def _largest_component(mask: BoolArray) -> BoolArray:
    labels = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.view(np.uint8)))
    return sitk.GetArrayFromImage(sitk.RelabelComponent(labels, sortByObjectSize=True)) == 1


def resample_mask(mask: Volume, target: Geometry) -> BoolArray:
    """A mask given as a volume (non-zero is inside) on another grid, by nearest neighbour."""
    if mask.geometry.is_close(target):
        return mask.array != 0
    image = sitk_image((mask.array != 0).view(np.uint8), mask.geometry)
    found = resample(image, target, sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(found) != 0
