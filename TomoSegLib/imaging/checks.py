"""What a volume must be for anything to be computed with it, and the errors for what is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import last_line, suffix_of
from TomoSegLib.imaging.volume import Geometry, Volume

READABLE = "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), DICOM series folder"
MINIMUM_SPACING_MM = 0.01
MAXIMUM_SPACING_MM = 100.0
# Axes further from a right angle than this are a sheared grid (an untreated gantry tilt), not
# the rounding of a converter.
MAXIMUM_SHEAR_DEGREES = 0.5


def check_volume(volume: Volume, *, single_slice: bool = False, constant: bool = False) -> None:
    """Refuse volumes with which nothing sensible can be computed.

    Raises:
        TomoSegError: See `read_volume`.
    """
    array, name = volume.array, volume.name
    if array.size == 0:
        raise TomoSegError(
            "volume-empty",
            f"'{name}' has no voxels: its shape is {array.shape}.",
            "Export the volume again.",
        )
    if not single_slice and min(array.shape) < 2:
        raise TomoSegError(
            "volume-not-3d",
            f"'{name}' is a single slice ({sizes_text(volume.geometry.size)}), not a volume.",
            "Give a stack of at least two slices in every direction.",
        )
    check_geometry(volume.geometry, name)
    if not _is_finite(array):
        raise TomoSegError(
            "volume-not-finite",
            f"'{name}' contains NaN or infinite values.",
            "Replace them by the background value (e.g. numpy.nan_to_num) and save the volume.",
        )
    if not constant and array.min() == array.max():
        raise TomoSegError(
            "volume-constant",
            f"Every voxel of '{name}' has the same value, {array.flat[0]}.",
            "Check that it is the image and not an empty mask, and export it again.",
        )


def check_size(shape: Sequence[int], name: str) -> None:
    """Refuse, before memory is taken, what cannot fit into the machine's as single precision.

    Raises:
        TomoSegError: ``volume-too-large``.
    """
    import psutil

    needed, there = 4 * math.prod(shape), psutil.virtual_memory().total
    if needed > there:
        raise TomoSegError(
            "volume-too-large",
            f"'{name}' has {sizes_text(shape)} voxels by its header, which need more than the "
            f"{there / 2**30:.0f} GiB of memory of this machine.",
            "Check that its header is right; if it is, crop or resample the volume first.",
        )


def check_geometry(geometry: Geometry, name: str) -> None:
    """Refuse absurd spacing and sheared grids; see `read_volume` for the codes."""
    spacing = geometry.spacing
    if np.any(spacing < MINIMUM_SPACING_MM) or np.any(spacing > MAXIMUM_SPACING_MM):
        raise TomoSegError(
            "volume-spacing",
            f"'{name}' has an absurd voxel size of {sizes_text(np.round(spacing, 6))} mm.",
            f"Sizes between {MINIMUM_SPACING_MM:g} and {MAXIMUM_SPACING_MM:g} mm make sense; "
            "repair the header, or convert the volume again from its DICOM files.",
        )
    cosines = np.abs(geometry.direction.T @ geometry.direction - np.eye(3))
    shear_degrees = math.degrees(math.asin(min(float(cosines.max()), 1.0)))
    if shear_degrees > MAXIMUM_SHEAR_DEGREES:
        raise TomoSegError(
            "geometry-sheared",
            f"The axes of '{name}' are not perpendicular: {shear_degrees:.1f} degrees off.",
            "Probably a CT with tilted gantry: resample it to a rectangular grid first (Slicer's "
            "DICOM module does, with 'acquisition geometry regularization').",
        )


def _is_finite(array: npt.NDArray[Any]) -> bool:
    # Slice by slice: the test's temporary array stays small.
    return array.dtype.kind in "iub" or all(bool(np.isfinite(plane).all()) for plane in array)


def sizes_text(values: npt.ArrayLike) -> str:
    """Sizes along the axes for messages, ``3 x 4 x 5``."""
    return " x ".join(f"{value:g}" for value in np.asarray(values).tolist())


def not_found(path: Path) -> TomoSegError:
    """The error for a path at which nothing is."""
    return TomoSegError(
        "volume-not-found",
        f"There is no file or folder '{path}'.",
        f"Check the path; the current folder is '{Path.cwd()}'.",
    )


def zero_spacing(path: Path) -> TomoSegError:
    """The error for a voxel size of zero."""
    return TomoSegError(
        "volume-spacing",
        f"'{path.name}' has a voxel size of zero.",
        "Repair the header, or convert the volume again from its DICOM files.",
    )


def unreadable_file(path: Path, reason: object) -> TomoSegError:
    """The error for a file that is not what its name says."""
    return TomoSegError(
        "volume-unreadable",
        f"'{path.name}' cannot be read as {suffix_of(path)}: {last_line(reason)}.",
        f"Check that it is what its name says, one of: {READABLE}.",
    )


def broken_file(path: Path, reason: object) -> TomoSegError:
    """The error for a file of which not everything is there."""
    return TomoSegError(
        "volume-truncated",
        f"'{path.name}' is incomplete or damaged: {last_line(reason)}.",
        "Copy or download the file again.",
    )


def not_3d(size: Sequence[int], kind: str, path: Path) -> TomoSegError:
    """The error for other axes, or other values, than those of a volume."""
    return TomoSegError(
        "volume-not-3d",
        f"'{path.name}' is not a 3D volume of single values but {sizes_text(size)}, {kind}.",
        "Give one 3D image: extract one time point or channel, or convert colours to grey; "
        "'tomoseg run' works on every frame of a 4D image.",
    )
